"""The parts of each command, put together without the command line.

Belongs here: choosing, building and connecting the parts below for one command, and its output. Does not: anything
that other rooms need too.

score.py        captures or a tap through the embedded bus to sinks
feed.py         captures onto the embedded bus
train.py        captures to a bundle
replay.py       captures to Kafka
cluster.py      connection settings and errors of Kafka
capture.py      an interface to Kafka
detect.py       Kafka to sinks, as a member of a consumer group
watch.py        an interface through the embedded bus, with a view of it
tap.py          a live source as configured
scores.py       files of scores as one table, and by label
reading.py      captures -> frames, packets, connections
inputs.py       folders and patterns of captures
notes.py        sentences on what was read
packets.py      packet columns as a table
models.py       the models that a command scores with
warm.py         compiles the kernels before the first packet; compiling.py shows the progress
run_summary.py  the summary of a run; summary.py prints it
options.py      options that commands share; kafka_cli.py the commands over Kafka
console.py      terminal, signals and output files of all commands
"""
