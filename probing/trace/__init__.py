"""Chosen connections packet by packet, with the scores of models, what the link did, and twins beside each other.

Belongs here: putting these together, as a table and as a picture. Does not: choosing packets and scoring them
(engine/commands/trace.py). The command stands in this half because it reads what only the lab writes.

connection.py  a connection with everything that is known of its packets
marks.py       verdicts of the link and phases, from the files beside a capture
twins.py       label rows of the lab: phases and twins of a connection
sources.py     the connections that were asked for, from captures and the files beside them
align.py       places of packets on an axis: by time, by phase, by bytes
scale.py       the axis of scores
picture.py     the picture
svg.py         its elements as text
text.py        the table
cli.py         `wiresonde trace`
"""
