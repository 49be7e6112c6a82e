"""Headers above IP: transport protocols, and the ways to tunnels."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    DONE,
    K_IPV6,
    R_TRANSPORT_LENGTH,
    R_TRANSPORT_TRUNCATED,
    TO_6IN4,
    TO_GRE,
    TO_IPIP,
    TO_PORTS,
    TO_TCP,
    Bytes,
    fail,
    u8,
    u16,
    u32,
)
from engine.headers.tunnels import over_udp
from engine.kernels import kernel
from engine.types import (
    ICMP,
    ICMP6,
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_MASK,
    KIND_TRANSPORT,
    SCTP,
    TCP,
    UDP,
)

IPV4, DCCP, IPV6, GRE, UDP_LITE = 4, 33, 41, 47, 136  # IP protocols that are not in engine/types.py
TCP_FIELDS, TCP_WINDOW = 14, 16  # bytes of a TCP header up to the flags, and up to the window


@kernel
def protocol(c: Any, row: Any) -> int:
    """The transport header or tunnel that follows; without one, everything after IP is payload."""
    what = c["what"]
    row["payload"] = c["wire_end"] - c["at"]
    if row["kind"] & KIND_FRAGMENT:
        return DONE
    if what == TCP:
        return TO_TCP
    if what in (ICMP, UDP, DCCP, ICMP6, SCTP, UDP_LITE):
        return TO_PORTS
    if row["kind"] & KIND_FIRST_FRAGMENT:
        return DONE
    if what == IPV4:
        return TO_IPIP
    if what == IPV6:
        return TO_6IN4
    if what == GRE:
        return TO_GRE
    return DONE


@kernel
def tcp(data: Bytes, c: Any, row: Any) -> int:
    """RFC 9293. All up to the flags must be captured, and the header's length fit into the packet on the wire."""
    at = c["at"]
    have = c["end"] - at
    rest = c["wire_end"] - at
    row["payload"] = 0
    if have >= 4:
        row["sport"] = u16(data, at)
        row["dport"] = u16(data, at + 2)
    if have < TCP_FIELDS or rest < 20:
        return fail(row, R_TRANSPORT_TRUNCATED)
    header = (u8(data, at + 12) >> 4) * 4
    if header < 20 or header > rest:
        return fail(row, R_TRANSPORT_LENGTH)
    row["kind"] = row["kind"] | KIND_TRANSPORT
    row["seq"] = u32(data, at + 4)
    row["ack"] = u32(data, at + 8)
    row["tcp_flags"] = u8(data, at + 13)
    row["payload"] = rest - header
    if have < TCP_WINDOW:
        return fail(row, R_TRANSPORT_TRUNCATED)
    row["window"] = u16(data, at + 14)
    if have >= 18:
        row["checksum"] = u16(data, at + 16)
    return DONE


@kernel
def ports(data: Bytes, c: Any, row: Any) -> int:
    """UDP, UDP-Lite, DCCP and SCTP begin with two ports; ICMP's type and code take their place.

    Of their headers, only these must be captured, and UDP's length.
    """
    at = c["at"]
    have = c["end"] - at
    rest = c["wire_end"] - at
    what = c["what"]
    row["payload"] = 0
    need = 6 if what == UDP else 4
    if what in (ICMP, ICMP6):
        need = 2
        if have >= 1:
            row["sport"] = u8(data, at)
        if have >= 2:
            row["dport"] = u8(data, at + 1)
    elif have >= 4:
        row["sport"] = u16(data, at)
        row["dport"] = u16(data, at + 2)
    header = 12 if what in (DCCP, SCTP) else 8
    if have < need or rest < header:
        return fail(row, R_TRANSPORT_TRUNCATED)
    row["kind"] = row["kind"] | KIND_TRANSPORT
    row["payload"] = rest - header
    place = at + (2 if what in (ICMP, ICMP6) else 6)
    if have >= place - at + 2 and what not in (DCCP, SCTP):
        row["checksum"] = u16(data, place)
    if what == UDP:
        return udp(data, c, row)
    return DONE


@kernel
def udp(data: Bytes, c: Any, row: Any) -> int:
    """Check UDP's length (RFC 768; 0 in a jumbogram, RFC 2675) and look for a tunnel above it."""
    at = c["at"]
    size = u16(data, at + 4)
    first = row["kind"] & KIND_FIRST_FRAGMENT != 0
    if size < 8 and not (size == 0 and row["kind"] & KIND_MASK == K_IPV6):
        return fail(row, R_TRANSPORT_LENGTH)
    if size > c["wire_end"] - at and not first:
        return fail(row, R_TRANSPORT_LENGTH)
    if first:
        return DONE
    c["at"] = at + 8
    return over_udp(data, c, row)
