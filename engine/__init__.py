"""The domain: packets in, scored connections out.

types.py        Packets, PacketBlock, ScoreBatch and the laws of blocks
errors.py       the error tree
kernels.py      how kernels are compiled
wire.py         PacketBlock <-> bus message
decode.py       FrameBlock -> Packets in one kernel call; headers/ has a function a header
partition.py    host pair -> partition
connections/    table, TCP sequence analysis, connection records
features/       AfterImage statistics
scorers.py      state + features + model + threshold behind one Protocol
detector.py     all state of one partition
labels.py       probe labels: which packets belong to which probe
scores.py       ScoreBatch -> columns; packets.py the same for packets
publisher.py    the sensor's half: frames -> blocks on the bus
worker.py       the consumer's half: blocks -> scores -> sinks
sinks.py        Parquet, alerts, the summary's top
summary.py      the table a command prints
metrics.py      every metric, with type, unit and help
config.py       the YAML file, checked
app.py          where the parts are put together
cli.py          the command line
"""

__version__ = "0.1.0"
