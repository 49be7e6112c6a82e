"""The world <-> blocks and bytes. Knows no feature and no model.

frames.py       FrameBlock: raw frames of one read in one flat buffer
window.py       the bytes of a capture file, mapped or read piece by piece
compressed.py   gzip, zstd and xz
pcap.py         pcap files, and how any capture file is opened
pcapng.py       pcapng files
capture_settings.py  what live sources share: settings and counters
capture.py      live packets from an AF_PACKET ring; ring.py walks its blocks, bpf.py makes its filters
sniffer.py      live packets through scapy, the portable fallback
netdev.py       what the kernel says of interfaces
clock_steps.py  keeps the times of a live capture on one clock
privileges.py   gives up what a process was allowed; notify.py tells systemd how it is
memory.py       the embedded bus
kafka.py        Apache Kafka as a bus; kafka_client.py how it is reached, kafka_topics.py its topics, kafka_table.py a
                compacted topic as a dictionary
spilling.py     a publisher that never waits; spill.py and disk_queue.py are where messages wait
codec.py        columns <-> Arrow IPC stream bytes; the only wire format
prometheus.py   /metrics exposition
whole.py        files that appear whole or not at all
parquet.py      sink: columns as Parquet; text.py the same for lines
text.py         sink: lines of text
alerts.py       sink: alerts as ECS JSON lines
"""
