"""Capture files put together byte by byte, for tests of the reader."""

from __future__ import annotations

import struct
from collections.abc import Iterable

Record = tuple[int, bytes, int]  # ticks, frame, bytes on the wire

SECTION, INTERFACE, OBSOLETE, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6


def pcap(
    records: Iterable[Record] = (),
    *,
    order: str = "<",
    magic: int = 0xA1B2C3D4,
    version: tuple[int, int] = (2, 4),
    link_type: int = 1,
) -> bytes:
    """A pcap file. order: '<' or '>'; ticks are micro- or nanoseconds as the magic says."""
    second = 10**9 if magic == 0xA1B23C4D else 10**6
    out = [struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, link_type)]
    for ticks, frame, wire in records:
        out.append(struct.pack(order + "IIII", ticks // second, ticks % second, len(frame), wire))
        if magic == 0xA1B2CD34:
            out.append(struct.pack(order + "IHBx", 1, 0x0800, 0))
        out.append(frame)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block, padded."""
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order: str = "<", version: tuple[int, int] = (1, 0)) -> bytes:
    return block(SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1), order)


def interface(link_type: int = 1, snaplen: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(INTERFACE, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order)


def enhanced(record: Record, interface: int = 0, order: str = "<", options: bytes = b"") -> bytes:
    ticks, frame, wire = record
    head = struct.pack(order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire)
    return block(ENHANCED, head + frame + b"\0" * (-len(frame) % 4) + options, order)


def obsolete(record: Record, interface: int = 0, order: str = "<") -> bytes:
    ticks, frame, wire = record
    head = struct.pack(order + "HHIIII", interface, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), wire)
    return block(OBSOLETE, head + frame, order)


def simple(frame: bytes, wire: int, order: str = "<") -> bytes:
    return block(SIMPLE, struct.pack(order + "I", wire) + frame, order)


def pcapng(records: Iterable[Record], order: str = "<") -> bytes:
    """One section with one Ethernet interface and microseconds."""
    return section(order) + interface(order=order) + b"".join(enhanced(r, order=order) for r in records)
