"""Datagrams with chosen times and ports, for tests of the connection table and of what feeds it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.types import KIND_TRANSPORT, Kind, Packets, empty_packets
from tests.support.conversation import A, B


def udp(times: Sequence[int], ports: Sequence[int]) -> Packets:
    """One datagram from A:port to B:9 at each time."""
    p = empty_packets(len(times))
    p.ts[:], p.sport[:], p.dport[:] = times, ports, 9
    p.src_lo[:], p.dst_lo[:] = A, B
    p.proto[:], p.kind[:] = 17, Kind.IPV4 | KIND_TRANSPORT
    p.size[:], p.ip_size[:], p.payload[:] = 100, 86, 58
    return p
