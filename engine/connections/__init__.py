"""State per connection.

bounds.py       capacity, timeouts, server ports
layout.py       the rows and arrays of state, and the codes in them
table.py        open addressing, timer lists, eviction
ranges.py       byte ranges of a side: new, seen, holes
window.py       what lies outside a side's window
history.py      the letters of a connection's history
tcp.py          effect of a TCP packet on its connection
track_kernels.py  find each packet's connection and update it
tracker.py      packets in, slots and classes out
saved.py         a table as plain arrays, and back
columns.py      the columns of a record, with units and meanings
record.py       rows -> columns with Zeek's names
"""
