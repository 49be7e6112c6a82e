"""Input of models: features of each packet, from state kept for each stream.

Belongs here: kernels that turn packets into numbers. Does not: a model, or a connection's record.

afterimage.py   100 damped statistics of a packet's channels
damped.py       one damped statistic
carried.py      streams of an earlier run as arrays for a file, and back
streams.py      the streams that a packet belongs to; slots.py their index
"""
