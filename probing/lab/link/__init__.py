"""The link between the hosts of a run.

Belongs here: what happens to a frame on its way. Does not: hosts and programs.

link.py     the link in user space: memory, thread, log
kernels.py  its loop, and the fate of a frame
queue.py    the queue in front of a rate or of a delivery trace
forward.py  a frame behind the queue
heap.py     what is to happen, by time
netem.py    the kernel's queues in its place
relay.py    their loop
account.py  the account of a frame, kept by both loops
tables.py   the rows of the account, the parts of a frame, which flow a frame is of
system.py   system calls of both loops
"""
