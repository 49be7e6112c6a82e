"""Packets as the frames they could have been: what a sensor would have read."""

from __future__ import annotations

import struct

import numpy as np

from connectors.files.frames import FrameBlock
from engine.types import KIND_FIRST_FRAGMENT, KIND_FRAGMENT, KIND_MASK, Kind, Packets


def frames_of(p: Packets, dropped: int = 0) -> FrameBlock:
    """Ethernet frames of IPv4, ARP and unreadable packets, cut behind their headers."""
    rows = [dict(zip(p._fields, values)) for values in zip(*(column.tolist() for column in p))]
    frames = [frame_of(row) for row in rows]
    captured = np.array([len(frame) for frame in frames], np.uint32)
    return FrameBlock(
        np.frombuffer(b"".join(frames), np.uint8),
        np.cumsum(captured, dtype=np.int64) - captured,
        captured,
        np.maximum(captured, p.size),
        p.ts,
        np.ones(captured.size, np.uint16),
        dropped,
    )


def frame_of(row: dict[str, int]) -> bytes:
    """The headers of one packet; five bytes of one that could not be read."""
    network = row["kind"] & KIND_MASK
    if network == Kind.UNREAD:
        return b"short"
    macs = row["dst_mac"].to_bytes(6, "big") + row["src_mac"].to_bytes(6, "big")
    src, dst = (struct.pack(">I", row[name] & 0xFFFF_FFFF) for name in ("src_lo", "dst_lo"))
    if network == Kind.ARP:
        return macs + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + macs[6:] + src + macs[:6] + dst
    fragment = 185 if row["kind"] & KIND_FRAGMENT else 0x2000 if row["kind"] & KIND_FIRST_FRAGMENT else 0
    transport = b"" if row["kind"] & KIND_FRAGMENT else _transport(row)
    size = 20 + len(transport) + row["payload"]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size, row["ip_id"], fragment, row["ttl"], row["proto"], 0)
    return macs + b"\x08\x00" + ip + src + dst + transport


def _transport(row: dict[str, int]) -> bytes:
    ports = struct.pack(">HH", row["sport"], row["dport"])
    match row["proto"]:
        case 6:
            numbers = struct.pack(">IIBB", row["seq"], row["ack"], 5 << 4, row["tcp_flags"])
            return ports + numbers + struct.pack(">HI", row["window"], 0)
        case 17:
            return ports + struct.pack(">HH", 8 + row["payload"], 0)
        case 1:
            return bytes((row["sport"], row["dport"])) + bytes(6)
        case _:
            return b""
