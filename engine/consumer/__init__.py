"""Messages from a bus -> detectors -> sinks; a crash neither loses nor duplicates a row.

Belongs here: the order of polling, processing, flushing, snapshots and commits, and the sinks. Does not: scoring
packets (scoring/), or the protocol of a broker (connectors/bus/).

intake.py           messages -> detectors
outlet.py           rows -> sinks
worker.py           the loop over the embedded bus
member.py           the loop of a member of a Kafka consumer group
restore.py          the offset and the state at which a partition continues
snapshot.py         a partition's state on disk
snapshot_thread.py  the thread that writes it
segments.py         Parquet files by range of offsets, and reading them as one table
file_sinks.py       scores and traces as Parquet, alerts as lines; alerts.py makes the documents
top.py              counts, the most anomalous connections, alarms by hosts and probes
topic_sinks.py      scores, alerts and dead letters on topics
"""
