"""Frames decoded for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from connectors.files.frames import FrameBlock
from engine.headers.decode import DecodeConfig, decode
from engine.types import KIND_TRANSPORT, Kind, Reason

SRC_MAC, DST_MAC = 0x020000000001, 0x020000000002
V4_SRC, V4_DST = 0xFFFF_0A00_0001, 0xFFFF_0A00_0002
V6_HIGH, V6_SRC, V6_DST = 0x2001_0DB8_0000_0000, 1, 2


def block(frames: list[bytes], wire: list[int] | None = None, link_type: int = 1) -> FrameBlock:
    sizes = [len(frame) for frame in frames]
    return FrameBlock(
        np.frombuffer(b"".join(frames), np.uint8),
        np.cumsum([0, *sizes])[:-1].astype(np.int64),
        np.array(sizes, np.uint32),
        np.array(wire or sizes, np.uint32),
        np.arange(len(frames), dtype=np.int64) + 1_700_000_000_000_000_000,
        np.full(len(frames), link_type, np.uint16),
    )


def row(
    frame: bytes | Packet, link_type: int = 1, config: DecodeConfig | None = None, wire: int = 0
) -> dict[str, Any]:
    """The columns of a single frame, as Python integers; kind and reason as their enumerations."""
    raw = bytes(frame)
    p = decode(block([raw], [wire] if wire else None, link_type), config or DecodeConfig())
    found: dict[str, Any] = {name: int(column[0]) for name, column in p._asdict().items()}
    return found | {"reason": Reason(found["reason"])}


def ether(**fields: Any) -> Packet:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def ip4(**fields: Any) -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", ttl=61, id=77, **fields)


def ip6(**fields: Any) -> Packet:
    return IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=62, **fields)


def tcp(size: int = 11) -> Packet:
    return TCP(sport=1234, dport=80, seq=111, ack=222, flags="PA", window=333) / Raw(b"x" * size)


TCP4 = {
    "src_hi": 0, "src_lo": V4_SRC, "dst_hi": 0, "dst_lo": V4_DST, "sport": 1234, "dport": 80, "proto": 6,
    "ttl": 61, "ip_id": 77, "tcp_flags": 0x18, "kind": Kind.IPV4 | KIND_TRANSPORT, "reason": Reason.OK,
    "ip_size": 51, "payload": 11, "seq": 111, "ack": 222, "window": 333,
}  # fmt: skip
TCP6 = TCP4 | {
    "src_hi": V6_HIGH, "src_lo": V6_SRC, "dst_hi": V6_HIGH, "dst_lo": V6_DST, "ttl": 62, "ip_id": 0,
    "kind": Kind.IPV6 | KIND_TRANSPORT, "ip_size": 71,
}  # fmt: skip


MPLS4 = MPLS(label=16, s=0) / MPLS(label=17, s=1)
