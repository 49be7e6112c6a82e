"""Messages from a bus -> detectors -> sinks, with nothing lost or doubled by a crash.

Belongs here: the order of polling, processing, flushing, snapshots and commits, and the sinks. Does not: how a
packet is scored (scoring/), or how a broker is spoken to (connectors/bus/).

intake.py           messages -> detectors
outlet.py           rows -> sinks
worker.py           the loop over the embedded bus
member.py           the loop of a member of a Kafka consumer group
restore.py          where a partition goes on, and with which state
snapshot.py         a partition's state on disk
snapshot_thread.py  the thread that writes it
segments.py         Parquet files by range of offsets, and how to read them as one
file_sinks.py       scores and traces as Parquet, alerts as lines; alerts.py makes these
top.py              counts, the most anomalous connections, who alarmed whom
topic_sinks.py      scores, alerts and dead letters on topics
"""
