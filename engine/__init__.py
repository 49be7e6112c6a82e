"""The domain: packets in, scored connections out.

Belongs here: what knows packets, connections, features, labels and scores. Does not: reading a device or a broker
(connectors/), arithmetic that knows no packet (models/), anything only a researcher needs (probing/).

From the top floor down; a room imports only rooms below it:

cli.py         the command line
commands/      what each command puts together
consumer/      messages from a bus -> detectors -> sinks, and recovery
config.py      the YAML file, checked; a section for each room below
scoring/       models over packets: what a connection's score is, and when it alarms
sensor/        frames -> packet blocks on a bus
labels/        probe labels: which packets belong to which probe
connections/   the connection table and its records
features/      what models are given of a packet
headers/       bytes -> packet columns
metrics.py     every metric, with type, unit and help
wire.py        PacketBlock <-> bus message
partition.py   host pair -> partition
clock.py       event time
types.py       Packets, PacketBlock and the laws of blocks
hashing.py     mixers of 64 bits that tables, ids and partitions share
notation.py    times and addresses as text
kernels.py     how kernels are compiled
errors.py      the error tree
"""

__version__ = "0.1.0"
