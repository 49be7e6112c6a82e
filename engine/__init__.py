"""The domain: packets in, scored connections out.

types.py        Packets, PacketBlock, ScoreBatch and the laws of blocks
errors.py       the error tree
kernels.py      how kernels are compiled
wire.py         PacketBlock <-> bus message
decode.py       FrameBlock -> Packets in one kernel call; headers/ has a function a header
clock.py        event time
partition.py    host pair -> partition
connections/    table, TCP sequence analysis, connection records
features/       AfterImage statistics
scorers.py      state + features + model + threshold behind one Protocol
detector.py     all state of one partition
snapshot.py     that state on disk
labels.py       probe labels: which packets belong to which probe
scores.py       ScoreBatch -> columns; packets.py the same for packets
publisher.py    the sensor's half: frames -> blocks on the bus
live.py         an interface -> blocks on a bus, with heartbeats and every loss counted
pseudonyms.py   addresses hidden, their prefixes kept
probes.py       probe labels on the bus
intake.py       the consumer's half: messages -> detectors; outlet.py the rest of the way: rows -> sinks
worker.py       the loop over the embedded bus; member.py that of a member of a Kafka consumer group
sinks.py        Parquet, alerts, the summary's top
segments.py     Parquet files by range of offsets, and how to read them as one
summary.py      the table a command prints
metrics.py      every metric, with type, unit and help
config.py       the YAML file, checked
reading.py      captures -> frames, packets, connections; bundles.py: detectors with the model of a bundle
warm.py         compiles the kernels before the first packet
app.py          where the parts are put together; replay.py, capture.py, detect.py and watch.py are other commands
console.py      what commands share with the terminal
cli.py          the command line; cli_kafka.py its commands over Kafka, options.py what they share
"""

__version__ = "0.1.0"
