"""The world <-> blocks and bytes. Knows no feature and no model.

frames.py       FrameBlock: raw frames of one read in one flat buffer
pcap.py         pcap and pcapng files
memory.py       the embedded bus
codec.py        columns <-> Arrow IPC stream bytes; the only wire format
prometheus.py   /metrics exposition
parquet.py      sink: columns as Parquet
alerts.py       sink: alerts as ECS JSON lines
"""
