"""Captures and outputs on disk.

Belongs here: formats and files. Does not: the meaning of their rows.

frames.py       FrameBlock: raw frames of one read in one flat buffer
counts.py       FileCounts: what capture files report of themselves
magic.py        first bytes of captures
statistics.py   losses that pcapng captures report
window.py       the bytes of a capture file, mapped or read piece by piece
compressed.py   gzip, zstd and xz
pcap.py         pcap files, and opening any capture file
pcapng.py       pcapng files
folder.py       folders and patterns of captures
bpf.py          filters over captures
whole.py        files that appear complete or not at all
parquet.py      columns as Parquet
parquet_in.py   columns from Parquet, checked
text.py         lines of text
yaml_core.py    YAML of the core schema as plain data
alerts.py       alerts as ECS JSON lines
"""
