"""Frames -> packet blocks on a bus, with every loss counted.

Belongs here: everything a sensor does before the bus. Does not: how an interface is read (connectors/live/).

publisher.py   decodes, labels, divides and numbers packets
tally.py       counts of what was read
live.py        an interface -> blocks on a bus, with heartbeats
pseudonyms.py  pseudonyms of addresses that keep their prefixes
"""
