"""Headers that a capture puts before a packet: Linux's "any" device, loopback devices, NFLOG, PFLOG, PKTAP."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    K_LINK,
    R_ENCAPSULATION,
    R_LINK_PROTOCOL,
    R_LINK_TRUNCATED,
    R_LINK_TYPE,
    TO_BRCM,
    TO_BRCM_PREPEND,
    TO_CHDLC,
    TO_DSA,
    TO_EDSA,
    TO_ENC,
    TO_ETHERNET,
    TO_ETHERTYPE,
    TO_FRELAY,
    TO_IP,
    TO_IPNET,
    TO_IPOIB,
    TO_IPV4,
    TO_IPV6,
    TO_LLC,
    TO_NETANALYZER,
    TO_NETANALYZER_TRANSPARENT,
    TO_NFLOG,
    TO_NULL,
    TO_PFLOG,
    TO_PKTAP,
    TO_PPI,
    TO_PRISM,
    TO_RADIOTAP,
    TO_SLL,
    TO_SLL2,
    TO_UNKNOWN,
    TO_USER2,
    TO_WIFI,
    Bytes,
    fail,
    le16,
    le32,
    u8,
    u16,
    u32,
    u48,
)
from engine.headers.link import first_layer, wrapped
from engine.headers.rare import device, directed, frame_relay, is_ipv6, netanalyzer, switch
from engine.headers.wireless import ppi, prism, radiotap, wifi
from engine.kernels import kernel

NETLINK, RADIO, PRISM, RADIOTAP = 824, 801, 802, 803  # ARPHRD_ values of devices without EtherTypes
PKTAP_HEADER = 108  # bytes of the fields that every version of PKTAP has


@kernel
def rare_link(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """A link header that is neither Ethernet's nor found above it."""
    if layer == TO_SLL or layer == TO_SLL2:
        return sll(data, layer, c, row)
    if layer == TO_NULL:
        return null(data, c, row)
    if layer == TO_CHDLC:
        return chdlc(data, c, row)
    if layer == TO_WIFI:
        return wifi(data, c, row)
    if layer == TO_RADIOTAP:
        return radiotap(data, c, row)
    if layer == TO_PPI:
        return ppi(data, c, row)
    if layer == TO_PRISM:
        return prism(data, c, row)
    if layer == TO_NFLOG:
        return nflog(data, c, row)
    if layer == TO_PFLOG:
        return pflog(data, c, row)
    if layer == TO_PKTAP:
        return pktap(data, c, row)
    if layer == TO_USER2 and is_pktap(data, c):
        return TO_PKTAP
    if layer == TO_UNKNOWN or layer == TO_USER2:
        return fail(row, R_LINK_TYPE)
    if layer == TO_BRCM_PREPEND:
        c["at"] += 4
        return TO_ETHERNET
    if layer == TO_BRCM or layer == TO_DSA or layer == TO_EDSA:
        return switch(data, layer, c, row)
    if layer == TO_FRELAY:
        return frame_relay(data, c, row)
    if layer == TO_NETANALYZER or layer == TO_NETANALYZER_TRANSPARENT:
        return netanalyzer(layer, c)
    if layer == TO_ENC or layer == TO_IPNET or layer == TO_IPOIB:
        return device(data, layer, c, row)
    return directed(layer, c)


@kernel
def sll(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """Linux's "any" device: https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html, and …SLL2.html."""
    at = c["at"]
    have = c["end"] - at
    if layer == TO_SLL:
        if have < 16:
            return fail(row, R_LINK_TRUNCATED)
        device, mac, size = u16(data, at + 2), at + 6, u16(data, at + 4)
        what, header = u16(data, at + 14), 16
    else:
        if have < 20:
            return fail(row, R_LINK_TRUNCATED)
        device, mac, size = u16(data, at + 8), at + 12, u8(data, at + 11)
        what, header = u16(data, at), 20
    if size == 6:
        row["kind"] = K_LINK
        row["src_mac"] = u48(data, mac)
    c["at"] = at + header
    c["what"] = 0
    if device == RADIOTAP:
        return TO_RADIOTAP
    if device == PRISM:
        return TO_PRISM
    if device == RADIO:
        return TO_WIFI
    c["what"] = what
    if what == 4:
        return TO_LLC
    if device == NETLINK or what <= 1500:  # not an EtherType
        return fail(row, R_LINK_PROTOCOL)
    return TO_ETHERTYPE


@kernel
def chdlc(data: Bytes, c: Any, row: Any) -> int:
    """Cisco's HDLC: address, control, EtherType (RFC 1547 section 4.3.1)."""
    at = c["at"]
    if c["end"] - at < 4:
        return fail(row, R_LINK_TRUNCATED)
    c["what"] = u16(data, at + 2)
    c["at"] = at + 4
    if c["what"] <= 1500:
        return fail(row, R_LINK_PROTOCOL)
    return TO_ETHERTYPE


@kernel
def null(data: Bytes, c: Any, row: Any) -> int:
    """The address family in the capturing machine's byte order: of the two readings the small one is right."""
    if c["end"] - c["at"] < 4:
        return fail(row, R_LINK_TRUNCATED)
    family = u32(data, c["at"])
    if family > 0xFFFF:
        family = le32(data, c["at"])
    c["at"] += 4
    if family == 2:
        return TO_IPV4
    if is_ipv6(family):
        return TO_IPV6
    return fail(row, R_LINK_PROTOCOL)


@kernel
def nflog(data: Bytes, c: Any, row: Any) -> int:
    """Linux's NFLOG: https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html, linux/netfilter/nfnetlink_log.h.

    Length and type of an attribute are in the capturing machine's byte order. Types are small, so the first one tells
    which it is.
    """
    at = c["at"]
    end = c["end"]
    if end - at < 8:
        return fail(row, R_LINK_TRUNCATED)
    family = u8(data, at)
    at += 4
    little = u8(data, at + 3) & 0x3F == 0
    if u8(data, at - 3) != 0 or (little and u8(data, at + 2) & 0x3F == 0):  # another version, or type 0
        return fail(row, R_ENCAPSULATION)
    what = 0
    while end - at >= 4:
        size = le16(data, at) if little else u16(data, at)
        kind = (le16(data, at + 2) if little else u16(data, at + 2)) & 0x3FFF
        if size < 4 or at + size > c["wire_end"]:
            return fail(row, R_ENCAPSULATION)
        have = min(end - at, size)
        if kind == 1 and have >= 6:  # NFULA_PACKET_HDR: EtherType, hook
            what = u16(data, at + 4)
        elif kind == 8 and have >= 14 and u16(data, at + 4) == 6:  # NFULA_HWADDR: the sender's
            row["kind"] = K_LINK
            row["src_mac"] = u48(data, at + 8)
        elif kind == 16 and have == 18:  # NFULA_HWHEADER, of Ethernet
            row["kind"] = K_LINK
            row["dst_mac"] = u48(data, at + 4)
            row["src_mac"] = u48(data, at + 10)
        elif kind == 9:  # NFULA_PAYLOAD
            c["at"] = at + 4
            c["wire_end"] = at + size
            c["end"] = min(end, at + size)
            c["what"] = what
            if family == 2:
                return TO_IPV4
            if family == 10:
                return TO_IPV6
            if what > 1500:  # of a bridge, or of ARP
                return TO_ETHERTYPE
            return fail(row, R_LINK_PROTOCOL)
        at += (size + 3) // 4 * 4
    return fail(row, R_LINK_PROTOCOL if c["wire_end"] - at < 4 else R_LINK_TRUNCATED)


@kernel
def pflog(data: Bytes, c: Any, row: Any) -> int:
    """The pf firewall's log: length of the header (without its padding to four), address family, and more.

    https://www.tcpdump.org/linktypes/LINKTYPE_PFLOG.html: 61 bytes and 100 in OpenBSD, 61 to 72 in FreeBSD.
    """
    at = c["at"]
    have = c["end"] - at
    if have < 2:
        return fail(row, R_LINK_TRUNCATED)
    size = (u8(data, at) + 3) // 4 * 4
    family = u8(data, at + 1)
    if size < 48:
        return fail(row, R_ENCAPSULATION)
    if have < size:
        return fail(row, R_LINK_TRUNCATED)
    c["at"] = at + size
    if family == 2 or is_ipv6(family):
        return TO_IP  # by its own version: with af-to, the family is that of the rule
    return fail(row, R_LINK_PROTOCOL)


@kernel
def is_pktap(data: Bytes, c: Any) -> bool:
    """Whether a frame of a number for private use has Apple's PKTAP header, which Apple's own files give it."""
    at = c["at"]
    if c["end"] - at < PKTAP_HEADER:
        return False
    size = le32(data, at)
    return bool(
        PKTAP_HEADER <= size <= 512
        and size <= c["end"] - at
        and le32(data, at + 4) == 1
        and le32(data, at + 8) <= 0xFFFF
        and first_layer(le32(data, at + 8)) != TO_UNKNOWN
    )


@kernel
def pktap(data: Bytes, c: Any, row: Any) -> int:
    """Apple's PKTAP: https://www.tcpdump.org/linktypes/LINKTYPE_PKTAP.html: length, type of record, link type inside.

    In the capturing machine's byte order: of the two readings of the length the small one is right.
    """
    at = c["at"]
    if c["end"] - at < 12:
        return fail(row, R_LINK_TRUNCATED)
    little = le32(data, at) <= 0xFFFF
    size = le32(data, at) if little else u32(data, at)
    if size < PKTAP_HEADER or at + size > c["wire_end"]:
        return fail(row, R_ENCAPSULATION)
    if (le32(data, at + 4) if little else u32(data, at + 4)) != 1:  # no packet
        return fail(row, R_LINK_PROTOCOL)
    what = le32(data, at + 8) if little else u32(data, at + 8)
    if at + size > c["end"]:
        return fail(row, R_LINK_TRUNCATED)
    c["at"] = at + size
    return wrapped(c, row, what)
