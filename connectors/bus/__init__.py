"""The embedded bus and Apache Kafka.

Belongs here: messages as bytes. Does not: what they mean.

memory.py        the embedded bus
memory_topic.py  a topic that keeps its log, in memory
memory_group.py  a consumer group on it, the twin of Kafka's
kafka.py         Apache Kafka as a bus
kafka_client.py  connecting to Kafka
kafka_topics.py  its topics
kafka_table.py   a compacted topic as a dictionary
spilling.py      a publisher that never blocks
spill.py         its queue in memory; disk_queue.py on disk
codec.py         columns <-> Arrow IPC stream bytes; the only wire format
"""
