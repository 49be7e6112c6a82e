"""The world <-> blocks and bytes. Knows no feature and no model.

frames.py       FrameBlock: raw frames of one read in one flat buffer
window.py       the bytes of a capture file, mapped or read piece by piece
compressed.py   gzip, zstd and xz
pcap.py         pcap files, and how any capture file is opened
pcapng.py       pcapng files
memory.py       the embedded bus
codec.py        columns <-> Arrow IPC stream bytes; the only wire format
prometheus.py   /metrics exposition
whole.py        files that appear whole or not at all
parquet.py      sink: columns as Parquet; text.py the same for lines
text.py         sink: lines of text
alerts.py       sink: alerts as ECS JSON lines
"""
