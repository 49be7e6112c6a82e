"""Link headers: everything before IP and ARP."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    K_LINK,
    R_ENCAPSULATION,
    R_LINK_PROTOCOL,
    R_LINK_TRUNCATED,
    R_LINK_TYPE,
    TO_ARP,
    TO_BRCM,
    TO_BRCM_PREPEND,
    TO_CHDLC,
    TO_DIRECTED_CHDLC,
    TO_DIRECTED_FRELAY,
    TO_DIRECTED_PPP,
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
    TO_MPLS,
    TO_NETANALYZER,
    TO_NETANALYZER_TRANSPARENT,
    TO_NFLOG,
    TO_NULL,
    TO_PFLOG,
    TO_PKTAP,
    TO_PPI,
    TO_PPP,
    TO_PPPD,
    TO_PPPOE,
    TO_PRISM,
    TO_RADIOTAP,
    TO_SLL,
    TO_SLL2,
    TO_UNKNOWN,
    TO_USER2,
    TO_WIFI,
    Bytes,
    fail,
    forget,
    u8,
    u16,
    u32,
    u48,
)
from engine.kernels import kernel


@kernel
def first_layer(link_type: int) -> int:
    """The first header of a frame with this LINKTYPE_ value (https://www.tcpdump.org/linktypes.html)."""
    if link_type == 1:
        return TO_ETHERNET
    if link_type in (12, 14, 101):  # raw IP, by version
        return TO_IP
    if link_type == 228:
        return TO_IPV4
    if link_type == 229:
        return TO_IPV6
    if link_type in (0, 108):
        return TO_NULL
    if link_type == 113:
        return TO_SLL
    if link_type == 276:
        return TO_SLL2
    if link_type in (9, 50):
        return TO_PPP
    if link_type == 51:
        return TO_PPPOE
    if link_type == 104:
        return TO_CHDLC
    if link_type == 105:
        return TO_WIFI
    if link_type == 127:
        return TO_RADIOTAP
    if link_type == 192:
        return TO_PPI
    if link_type in (119, 163):  # one may come under the number of the other
        return TO_PRISM
    if link_type == 239:
        return TO_NFLOG
    if link_type == 117:
        return TO_PFLOG
    if link_type == 258:
        return TO_PKTAP
    if link_type == 149:
        return TO_USER2
    return rare_first_layer(link_type)


@kernel
def rare_first_layer(link_type: int) -> int:
    """The same, of link types seldom seen."""
    if link_type == 100:
        return TO_LLC
    if link_type == 107:
        return TO_FRELAY
    if link_type == 109:
        return TO_ENC
    if link_type == 166:
        return TO_PPPD
    if link_type == 204:
        return TO_DIRECTED_PPP
    if link_type == 205:
        return TO_DIRECTED_CHDLC
    if link_type == 206:
        return TO_DIRECTED_FRELAY
    if link_type == 219:
        return TO_MPLS
    if link_type == 226:
        return TO_IPNET
    if link_type == 240:
        return TO_NETANALYZER
    if link_type == 241:
        return TO_NETANALYZER_TRANSPARENT
    if link_type == 242:
        return TO_IPOIB
    if link_type == 281:
        return TO_BRCM
    if link_type == 282:
        return TO_BRCM_PREPEND
    if link_type == 284:
        return TO_DSA
    if link_type == 285:
        return TO_EDSA
    return TO_UNKNOWN


@kernel
def wrapped(c: Any, row: Any, link_type: int) -> int:
    """The frame within, of this link type."""
    c["depth"] += 1
    c["what"] = 0
    if link_type > 0xFFFF or first_layer(link_type) == TO_UNKNOWN:
        return fail(row, R_LINK_TYPE)
    return first_layer(link_type)


@kernel
def ethernet(data: Bytes, c: Any, row: Any) -> int:
    """IEEE 802.3: destination, source, then a type or (up to 1500) a length before an LLC header."""
    at = c["at"]
    if c["end"] - at < 14:
        return fail(row, R_LINK_TRUNCATED)
    forget(row)
    row["kind"] = K_LINK | c["inner"]
    row["dst_mac"] = u48(data, at)
    row["src_mac"] = u48(data, at + 6)
    row["vlan"] = 0
    c["what"] = u16(data, at + 12)
    c["at"] = at + 14
    return ethertype(data, c, row)


@kernel
def ethertype(data: Bytes, c: Any, row: Any) -> int:
    """The header that the EtherType names."""
    what = c["what"]
    row["ethertype"] = what
    if what == 0x0800:
        return TO_IPV4
    if what == 0x86DD:
        return TO_IPV6
    if what in (0x0806, 0x8035):
        return TO_ARP
    if what <= 1500:
        return TO_LLC
    if what in (0x8847, 0x8848):
        return TO_MPLS
    if what == 0x8864:
        return TO_PPPOE
    return tag(data, c, row)


@kernel
def tag(data: Bytes, c: Any, row: Any) -> int:
    """Step over a tag between the addresses and the EtherType, or before a complete inner frame."""
    at = c["at"]
    what = c["what"]
    have = c["end"] - at
    c["depth"] += 1
    if what == 0x8903:  # Cisco FabricPath: the frame follows
        c["at"] = at + 2
        return TO_ETHERNET
    if what == 0x88E7:  # I-tag, 802.1ah: the customer's frame follows
        c["at"] = at + 4
        return TO_ETHERNET
    if what == 0x894F:
        return nsh(data, c, row)
    size = 0
    if what in (0x8100, 0x88A8, 0x9100, 0x9200):  # VLAN: 802.1Q, 802.1ad and their forerunners
        size = 2
    elif what == 0x8926:  # VN-tag
        size = 4
    elif what == 0x893F:  # E-tag, 802.1BR
        size = 6
    elif what == 0x88E5 and have > 0 and u8(data, at) & 0x0C == 0:  # MACsec without encryption, 802.1AE
        size = 14 if u8(data, at) & 0x20 else 6
    if size == 0:
        return fail(row, R_LINK_PROTOCOL)
    if have < size + 2:
        return fail(row, R_ENCAPSULATION)
    if size == 2:
        note_vlan(row, u16(data, at) & 0x0FFF)
    c["what"] = u16(data, at + size)
    c["at"] = at + size + 2
    return TO_ETHERTYPE


@kernel
def note_vlan(row: Any, number: int) -> None:
    """Keep the ids of the two outer tags. Id 0 (and none in the outer tag) is no VLAN, only a priority: 802.1Q 9.6."""
    if row["vlan"] == 0:
        row["vlan"] = number
    elif row["vlan"] <= 0x0FFF:
        row["vlan"] = row["vlan"] | number << 16


@kernel
def nsh(data: Bytes, c: Any, row: Any) -> int:
    """Network Service Header, RFC 8300: its length in words, and what follows."""
    at = c["at"]
    if c["end"] - at < 4:
        return fail(row, R_ENCAPSULATION)
    size = (u16(data, at) & 0x3F) * 4
    if size < 8:
        return fail(row, R_ENCAPSULATION)
    what = u8(data, at + 3)
    c["at"] = at + size
    if what == 1:
        return TO_IPV4
    if what == 2:
        return TO_IPV6
    if what == 3:
        return TO_ETHERNET
    return fail(row, R_LINK_PROTOCOL)


@kernel
def llc(data: Bytes, c: Any, row: Any) -> int:
    """802.2 LLC, and SNAP with an EtherType (OUI 0, or 0000F8 of 802.1H)."""
    at = c["at"]
    row["ethertype"] = 0  # the length of an 802.3 frame
    if c["end"] - at < 3:
        return fail(row, R_LINK_TRUNCATED)
    sap = u16(data, at)
    row["ethertype"] = sap >> 8
    if sap == 0x0606:
        c["at"] = at + 3
        return TO_IPV4
    if sap != 0xAAAA or u8(data, at + 2) != 3:
        return fail(row, R_LINK_PROTOCOL)
    if c["end"] - at < 8:
        return fail(row, R_LINK_TRUNCATED)
    oui = u32(data, at + 2) & 0xFFFFFF
    c["what"] = u16(data, at + 6)
    if oui not in (0, 0x0000F8) or c["what"] <= 1500:
        return fail(row, R_LINK_PROTOCOL)
    c["at"] = at + 8
    c["depth"] += 1
    return TO_ETHERTYPE


@kernel
def mpls(data: Bytes, c: Any, row: Any) -> int:
    """RFC 3032 label stack; only the first nibble hints at what follows (RFC 4928)."""
    at = c["at"]
    bottom = False
    while not bottom:
        if c["end"] - at < 4:
            return fail(row, R_ENCAPSULATION)
        bottom = u8(data, at + 2) & 1 == 1
        at += 4
    c["at"] = at
    c["depth"] += 1
    if c["end"] - at < 1:
        return fail(row, R_ENCAPSULATION)
    nibble = u8(data, at) >> 4
    if nibble in (4, 6):
        return TO_IP
    if nibble == 0:  # control word of an Ethernet pseudowire, RFC 4448
        c["at"] = at + 4
        return TO_ETHERNET
    return fail(row, R_LINK_PROTOCOL)


@kernel
def pppoe(data: Bytes, c: Any, row: Any) -> int:
    """RFC 2516: version and type, code, session, length, then PPP without its HDLC bytes."""
    at = c["at"]
    if c["end"] - at < 6 or u8(data, at) != 0x11:
        return fail(row, R_ENCAPSULATION)
    if u8(data, at + 1) != 0:  # discovery, not session
        return fail(row, R_LINK_PROTOCOL)
    c["at"] = at + 6
    c["depth"] += 1
    return TO_PPP


@kernel
def ppp(data: Bytes, c: Any, row: Any) -> int:
    """RFC 1661: an optional FF 03 (RFC 1662), then a protocol: one byte if that is odd, else two."""
    at = c["at"]
    have = c["end"] - at
    if have >= 4 and u16(data, at) in (0x0F00, 0x8F00):  # Cisco's HDLC, declared as PPP by its driver
        return TO_CHDLC
    if have >= 2 and u16(data, at) == 0xFF03:
        at += 2
        have -= 2
    if have < 1:
        return fail(row, R_LINK_TRUNCATED)
    what = u8(data, at)
    size = 1
    if what & 1 == 0:
        if have < 2:
            return fail(row, R_LINK_TRUNCATED)
        what = u16(data, at)
        size = 2
    c["at"] = at + size
    if what == 0x0021:
        return TO_IPV4
    if what == 0x0057:
        return TO_IPV6
    if what in (0x0281, 0x0283):
        return TO_MPLS
    return fail(row, R_LINK_PROTOCOL)
