"""What each command puts together, without the command line.

Belongs here: choosing, building and connecting the parts below for one command, and what it prints. Does not: anything
that a second command could not do without.

score.py        captures or a tap through the embedded bus to sinks
feed.py         captures onto the embedded bus
train.py        captures to a bundle
replay.py       captures to Kafka
cluster.py      how Kafka is reached
capture.py      an interface to Kafka
detect.py       Kafka to sinks, as a member of a consumer group
watch.py        an interface through the embedded bus, with a view of it
tap.py          a live source of the configuration
scores.py       files of scores as one table, and by label
reading.py      captures -> frames, packets, connections
packets.py      packet columns as a table
models.py       which models a command scores with
warm.py         compiles the kernels before the first packet; compiling.py shows that it does
run_summary.py  what a run came to; summary.py prints it
options.py      options that commands share; kafka_cli.py the commands over Kafka
console.py      what commands share with the terminal
"""
