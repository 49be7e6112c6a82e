"""Headers above IP: transport protocols, and the entries to tunnels."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    DONE,
    IN_6IN4,
    IN_GENEVE,
    IN_GRE,
    IN_GTP,
    IN_IPV4,
    IN_VXLAN,
    K_IPV6,
    R_ENCAPSULATION,
    R_TRANSPORT_LENGTH,
    R_TRANSPORT_TRUNCATED,
    TO_ETHERNET,
    TO_ETHERTYPE,
    TO_GENEVE,
    TO_GRE,
    TO_GTP,
    TO_IP,
    TO_IPV4,
    TO_IPV6,
    TO_PORTS,
    TO_TCP,
    TO_VXLAN,
    Bytes,
    fail,
    u8,
    u16,
    u32,
)
from engine.kernels import kernel
from engine.types import (
    ICMP,
    ICMP6,
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_INNER,
    KIND_MASK,
    KIND_TRANSPORT,
    SCTP,
    TCP,
    UDP,
)

IPV4, DCCP, IPV6, GRE, UDP_LITE = 4, 33, 41, 47, 136  # IP protocols that are not in engine/types.py
GTP_PORT, GENEVE_PORT = 2152, 6081


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
    tunnels = c["tunnels"]
    if tunnels == 0 or row["kind"] & KIND_FIRST_FRAGMENT:
        return DONE
    if what == IPV4 and tunnels & IN_IPV4:
        return inside(c, TO_IPV4)
    if what == IPV6 and tunnels & IN_6IN4:
        return inside(c, TO_IPV6)
    if what == GRE and tunnels & IN_GRE:
        return TO_GRE
    return DONE


@kernel
def tcp(data: Bytes, c: Any, row: Any) -> int:
    """RFC 9293. Options need not be captured; the data offset must fit into the packet on the wire."""
    at = c["at"]
    have = c["end"] - at
    rest = c["wire_end"] - at
    row["payload"] = 0
    if have >= 4:
        row["sport"] = u16(data, at)
        row["dport"] = u16(data, at + 2)
    if have < 20:
        return fail(row, R_TRANSPORT_TRUNCATED)
    header = (u8(data, at + 12) >> 4) * 4
    if header < 20 or header > rest:
        return fail(row, R_TRANSPORT_LENGTH)
    row["kind"] = row["kind"] | KIND_TRANSPORT
    row["seq"] = u32(data, at + 4)
    row["ack"] = u32(data, at + 8)
    row["tcp_flags"] = u8(data, at + 13)
    row["window"] = u16(data, at + 14)
    row["payload"] = rest - header
    return DONE


@kernel
def ports(data: Bytes, c: Any, row: Any) -> int:
    """UDP, UDP-Lite, DCCP and SCTP begin with two ports; ICMP's type and code take their place."""
    at = c["at"]
    have = c["end"] - at
    what = c["what"]
    row["payload"] = 0
    if what in (ICMP, ICMP6):
        if have >= 1:
            row["sport"] = u8(data, at)
        if have >= 2:
            row["dport"] = u8(data, at + 1)
    elif have >= 4:
        row["sport"] = u16(data, at)
        row["dport"] = u16(data, at + 2)
    header = 12 if what in (DCCP, SCTP) else 8
    if have < header:
        return fail(row, R_TRANSPORT_TRUNCATED)
    row["kind"] = row["kind"] | KIND_TRANSPORT
    row["payload"] = c["wire_end"] - at - header
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
    if c["tunnels"] == 0 or first:
        return DONE
    layer = DONE
    if c["tunnels"] & IN_VXLAN and row["dport"] == c["vxlan_port"]:
        layer = TO_VXLAN
    elif c["tunnels"] & IN_GTP and (row["dport"] == GTP_PORT or row["sport"] == GTP_PORT):
        layer = TO_GTP
    elif c["tunnels"] & IN_GENEVE and row["dport"] == GENEVE_PORT:
        layer = TO_GENEVE
    if layer != DONE:
        c["at"] = at + 8
    return layer


@kernel
def inside(c: Any, layer: int) -> int:
    """Enter a tunnel: headers from here on are an inner packet's."""
    c["depth"] += 1
    c["inner"] = KIND_INNER
    return layer


@kernel
def gre(data: Bytes, c: Any, row: Any) -> int:
    """RFC 2784 and 2890, and ERSPAN types I to III; anything else inside stays the outer packet's payload."""
    at = c["at"]
    have = c["end"] - at
    if have < 4:
        return fail(row, R_ENCAPSULATION)
    flags = u16(data, at)
    what = u16(data, at + 2)
    if flags & 0x4007:  # RFC 1701 routing, or PPTP's version 1
        return DONE
    size = 4
    for bit in (0x8000, 0x2000, 0x1000):  # checksum, key, sequence number
        if flags & bit:
            size += 4
    layer = TO_ETHERTYPE
    if what == 0x6558:
        layer = TO_ETHERNET
    elif what == 0x88BE:
        layer = TO_ETHERNET
        if flags & 0x1000:
            size += 8
    elif what == 0x22EB:
        layer = TO_ETHERNET
        if have < size + 12:
            return fail(row, R_ENCAPSULATION)
        size += 20 if u8(data, at + size + 11) & 1 else 12
    elif what not in (0x0800, 0x86DD, 0x8847, 0x8848, 0x8100):
        return DONE
    if have < size:
        return fail(row, R_ENCAPSULATION)
    c["what"] = what
    c["at"] = at + size
    return inside(c, layer)


@kernel
def vxlan(data: Bytes, c: Any, row: Any) -> int:
    """RFC 7348: eight bytes with the I flag set, then an Ethernet frame."""
    at = c["at"]
    if c["end"] - at < 8 or u8(data, at) & 8 == 0:
        return fail(row, R_ENCAPSULATION)
    c["at"] = at + 8
    return inside(c, TO_ETHERNET)


@kernel
def gtp(data: Bytes, c: Any, row: Any) -> int:
    """GTP-U version 1 (3GPP TS 29.281): a user's packet; signalling stays the outer packet's payload."""
    at, end = c["at"], c["end"]
    if end - at < 8:
        return fail(row, R_ENCAPSULATION)
    flags = u8(data, at)
    if flags & 0xF0 != 0x30 or u8(data, at + 1) != 255:
        return DONE
    at += 8
    if flags & 7:  # sequence number, N-PDU number and the type of an extension header: all or none
        at += 4
        while at < end and flags & 4 and u8(data, at - 1) != 0:
            if u8(data, at) == 0:
                return fail(row, R_ENCAPSULATION)
            at += 4 * u8(data, at)
    if at >= end:
        return fail(row, R_ENCAPSULATION)
    c["at"] = at
    return inside(c, TO_IP)


@kernel
def geneve(data: Bytes, c: Any, row: Any) -> int:
    """RFC 8926: eight bytes and options, then the header that the EtherType names."""
    at = c["at"]
    if c["end"] - at < 8 or u8(data, at) >> 6 != 0:
        return fail(row, R_ENCAPSULATION)
    what = u16(data, at + 2)
    if what not in (0x6558, 0x0800, 0x86DD):
        return DONE
    c["what"] = what
    c["at"] = at + 8 + 4 * (u8(data, at) & 63)
    return inside(c, TO_ETHERNET if what == 0x6558 else TO_ETHERTYPE)
