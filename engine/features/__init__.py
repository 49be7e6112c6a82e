"""What models are given of a packet, from state kept per stream.

Belongs here: kernels that turn packets into numbers. Does not: a model, or a connection's record.

afterimage.py   100 damped statistics of a packet's channels
damped.py       one damped statistic
streams.py      which streams a packet belongs to; slots.py the rows they are given
"""
