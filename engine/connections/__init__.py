"""State per connection.

bounds.py       capacity, timeouts, server ports
layout.py       the rows and arrays of state, and the codes in them
table.py        open addressing, timer lists, eviction
ranges.py       byte ranges of a side: new, seen, holes
history.py      the letters of a connection's history
tcp.py          what a TCP packet does to its connection
track_kernels.py  each packet to its connection, and what that does to it
tracker.py      packets in, slots and classes out
saved.py         a table as plain arrays, and back
record.py       rows -> columns with Zeek's names
"""
