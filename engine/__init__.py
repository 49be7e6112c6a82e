"""The domain: packets in, scored connections out.

Belongs here: code that knows packets, connections, features, labels and scores. Does not: reading a device or a broker
(connectors/), arithmetic without packets (models/), anything that only a researcher needs (probing/).

The rooms from the top floor down; each imports only rooms below it:

cli.py         the command line
commands/      the parts of each command, put together
consumer/      messages from a bus -> detectors -> sinks, and recovery
config.py      the YAML file, checked; a section for each room below
scoring/       models over packets: scores and alarms of connections
sensor/        frames -> packet blocks on a bus
labels/        probe labels: the probe of each packet
connections/   the connection table and its records
features/      statistics of packets, the input of models
headers/       bytes -> packet columns
metrics.py     every metric, with type, unit and help
wire.py        PacketBlock <-> bus message
partition.py   host pair -> partition
clock.py       event time
types.py       Packets, PacketBlock and the laws of blocks
hashing.py     64-bit mixers for tables, ids and partitions
notation.py    times and addresses as text
kernels.py     the compiler settings of kernels
errors.py      the error tree
"""

__version__ = "0.1.0"
