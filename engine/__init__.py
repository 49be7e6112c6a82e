"""The domain: packets in, scored connections out.

types.py        Packets, PacketBlock, ScoreBatch and the laws of blocks
errors.py       the error tree
decode.py       FrameBlock -> PacketBlock in one kernel call
partition.py    host pair -> partition
connections/    table, TCP sequence analysis, connection records
features/       AfterImage statistics
scorers.py      state + features + model + threshold behind one Protocol
detector.py     all state of one partition
labels.py       probe labels: which packets belong to which probe
worker.py       the consumer loop
metrics.py      every metric, with type, unit and help
config.py       the YAML file, checked
app.py          where the parts are put together
cli.py          the command line
"""

__version__ = "0.1.0"
