"""Link headers seldom seen: tags of switches, Frame Relay, serial lines with a direction, and some devices' own.

All are in https://www.tcpdump.org/linktypes.html under the name of their layer.
"""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    K_LINK,
    R_ENCAPSULATION,
    R_LINK_PROTOCOL,
    R_LINK_TRUNCATED,
    TO_BRCM,
    TO_CHDLC,
    TO_DIRECTED_CHDLC,
    TO_DIRECTED_FRELAY,
    TO_EDSA,
    TO_ENC,
    TO_ETHERNET,
    TO_ETHERTYPE,
    TO_FRELAY,
    TO_IPNET,
    TO_IPV4,
    TO_IPV6,
    TO_NETANALYZER_TRANSPARENT,
    TO_PPP,
    TO_PPPD,
    Bytes,
    fail,
    le32,
    u8,
    u16,
    u32,
    u48,
)
from engine.kernels import kernel


@kernel
def is_ipv6(family: int) -> bool:
    """Whether it is some system's AF_INET6: Linux, OpenBSD and NetBSD, FreeBSD, macOS."""
    return family in (10, 24, 28, 30)


@kernel
def switch(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """Ethernet with a switch's tag between the addresses and the type: Broadcom's, Marvell's DSA or EDSA."""
    at = c["at"]
    size = 22 if layer == TO_EDSA else 18
    if c["end"] - at < size:
        return fail(row, R_LINK_TRUNCATED)
    row["kind"] = K_LINK
    row["dst_mac"] = u48(data, at)
    row["src_mac"] = u48(data, at + 6)
    tag = at + size - 6
    if layer != TO_BRCM and u8(data, tag) & 0x20:  # it takes the place of a VLAN tag
        row["vlan"] = u16(data, tag + 2) & 0x0FFF
    c["what"] = u16(data, at + size - 2)
    c["at"] = at + size
    return TO_ETHERTYPE


@kernel
def frame_relay(data: Bytes, c: Any, row: Any) -> int:
    """RFC 2427: an address of two to four bytes, control, an identifier (or SNAP); Cisco's has an EtherType instead."""
    at, end = c["at"], c["end"]
    if end - at < 4:
        return fail(row, R_LINK_TRUNCATED)
    size = 1
    while size < 4 and u8(data, at + size - 1) & 1 == 0:
        size += 1
    if size == 1 or u8(data, at + size - 1) & 1 == 0:
        return fail(row, R_ENCAPSULATION)
    at += size
    if end - at < 2:
        return fail(row, R_LINK_TRUNCATED)
    if u8(data, at) != 3:
        c["what"] = u16(data, at)
        c["at"] = at + 2
        return TO_ETHERTYPE if c["what"] > 1500 else fail(row, R_LINK_PROTOCOL)
    at += 2 if u8(data, at + 1) == 0 else 1  # a byte of padding
    if end - at < 1:
        return fail(row, R_LINK_TRUNCATED)
    what = u8(data, at)
    c["at"] = at + 1
    if what == 0xCC:
        return TO_IPV4
    if what == 0x8E:
        return TO_IPV6
    if what != 0x80 or end - at < 6:
        return fail(row, R_LINK_PROTOCOL if what != 0x80 else R_LINK_TRUNCATED)
    c["what"] = u16(data, at + 4)
    c["at"] = at + 6
    if u16(data, at + 1) != 0:  # of an organisation's OUI, the first two bytes
        return fail(row, R_LINK_PROTOCOL)
    if u8(data, at + 3) != 0 or c["what"] <= 1500:
        return fail(row, R_LINK_PROTOCOL)
    return TO_ETHERTYPE


@kernel
def directed(layer: int, c: Any) -> int:
    """PPP, Cisco's HDLC or Frame Relay behind a byte for the direction; pppd's replaces the first of FF 03."""
    c["at"] += 2 if layer == TO_PPPD else 1
    if layer == TO_DIRECTED_CHDLC:
        return TO_CHDLC
    if layer == TO_DIRECTED_FRELAY:
        return TO_FRELAY
    return TO_PPP


@kernel
def netanalyzer(layer: int, c: Any) -> int:
    """Hilscher's netANALYZER: four bytes, perhaps a preamble of eight, a frame and its check sequence."""
    c["at"] += 12 if layer == TO_NETANALYZER_TRANSPARENT else 4
    c["wire_end"] = max(c["at"], c["wire_end"] - 4)
    c["end"] = min(c["end"], c["wire_end"])
    return TO_ETHERNET


@kernel
def device(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """A header with the address family: OpenBSD's IPsec (ENC), Solaris' IPNET; or IP over InfiniBand."""
    at = c["at"]
    size = 12 if layer == TO_ENC else 24 if layer == TO_IPNET else 44
    if c["end"] - at < size:
        return fail(row, R_LINK_TRUNCATED)
    c["at"] = at + size
    if layer == TO_ENC:
        family = u32(data, at)
        if family > 0xFFFF:
            family = le32(data, at)
    elif layer == TO_IPNET:
        family = u8(data, at + 1)
    else:
        c["what"] = u16(data, at + 40)
        return TO_ETHERTYPE if c["what"] > 1500 else fail(row, R_LINK_PROTOCOL)
    if family == 2:
        return TO_IPV4
    if is_ipv6(family) or (family == 26 and layer == TO_IPNET):
        return TO_IPV6
    return fail(row, R_LINK_PROTOCOL)
