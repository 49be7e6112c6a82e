"""The link between the hosts of a run.

Belongs here: what happens to a frame on its way. Does not: who sends it.

link.py     the link in user space
kernels.py  its loop
tables.py   its tables, and a frame's flow
netem.py    the kernel's queues in its place
relay.py    their loop
"""
