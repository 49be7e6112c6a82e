"""Tunnels. One that ``decode.tunnels`` names is opened; another is the reason why its packet was read no further.

A port or a protocol number alone makes no tunnel: its header, and what seems to follow it, must be those of one.
"""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    DONE,
    R_6IN4,
    R_AYIYA,
    R_ENCAPSULATION,
    R_GENEVE,
    R_GRE,
    R_GTP,
    R_IPIP,
    R_TEREDO,
    R_TZSP,
    R_VXLAN,
    R_VXLAN_GPE,
    TO_AYIYA,
    TO_ETHERNET,
    TO_ETHERTYPE,
    TO_GENEVE,
    TO_GRE,
    TO_GRE_IN_UDP,
    TO_GTP,
    TO_IP,
    TO_IPIP,
    TO_IPV4,
    TO_IPV6,
    TO_MPLS,
    TO_PPP,
    TO_PRISM,
    TO_TEREDO,
    TO_TZSP,
    TO_VXLAN,
    TO_VXLAN_GPE,
    TO_WIFI,
    Bytes,
    fail,
    u8,
    u16,
    u32,
)
from engine.kernels import kernel
from engine.types import KIND_INNER

# UDP ports; those of GTP, Teredo and AYIYA are also their servers' source ports
GTP_PORT, TEREDO_PORT, GRE_PORT, VXLAN_GPE_PORT = 2152, 3544, 4754, 4790
AYIYA_PORT, GENEVE_PORT, TZSP_PORT = 5072, 6081, 37008
NO_NEXT_HEADER = 59  # IP protocol
IN_NSH, MPLS_UNICAST = 0x894F, 0x8847  # EtherTypes


@kernel
def over_udp(data: Bytes, c: Any, row: Any) -> int:
    """The tunnel whose port a UDP packet goes to or comes from. Teredo's peers use any port among themselves."""
    sport, dport = row["sport"], row["dport"]
    if dport == c["vxlan_port"]:
        return TO_VXLAN
    if dport == GTP_PORT or sport == GTP_PORT:
        return TO_GTP
    if dport == GENEVE_PORT:
        return TO_GENEVE
    if dport == VXLAN_GPE_PORT:
        return TO_VXLAN_GPE
    if dport == GRE_PORT:
        return TO_GRE_IN_UDP
    if dport == TZSP_PORT:
        return TO_TZSP
    if dport == TEREDO_PORT or sport == TEREDO_PORT:
        return TO_TEREDO
    if dport == AYIYA_PORT or sport == AYIYA_PORT:
        return TO_AYIYA
    at = c["at"]
    if c["end"] - at >= 40 and u8(data, at) >> 4 == 6 and has_teredo_address(data, at):
        return TO_TEREDO
    return DONE


@kernel
def has_teredo_address(data: Bytes, at: int) -> bool:
    """Whether either end of an IPv6 packet is in Teredo's prefix, 2001::/32."""
    return u32(data, at + 8) == 0x20010000 or u32(data, at + 24) == 0x20010000


@kernel
def is_named(c: Any, tunnel: int) -> bool:
    """Whether the configuration names the tunnel. tunnel: the reason for which it would not be opened."""
    return bool(c["tunnels"] >> tunnel & 1)


@kernel
def inside(data: Bytes, c: Any, row: Any, tunnel: int, layer: int) -> int:
    """Enter a tunnel whose header was read: the next headers are an inner packet's. Or note that it stays closed."""
    if is_named(c, tunnel):
        c["depth"] += 1
        c["inner"] = KIND_INNER
        return layer
    if follows(data, c, layer):
        return fail(row, tunnel)
    return DONE


@kernel
def inside_if_seen(data: Bytes, c: Any, row: Any, tunnel: int, layer: int) -> int:
    """The same, where only an inner packet tells a tunnel from other traffic on its port."""
    if follows(data, c, layer):
        return inside(data, c, row, tunnel, layer)
    return DONE


@kernel
def broken(c: Any, row: Any, tunnel: int) -> int:
    """A header that is not the tunnel's: a fault if the configuration expects it, else other traffic on its port."""
    if is_named(c, tunnel):
        return fail(row, R_ENCAPSULATION)
    return DONE


@kernel
def follows(data: Bytes, c: Any, layer: int) -> bool:
    """Whether the bytes at the cursor can be a header of this layer."""
    at = c["at"]
    have = c["end"] - at
    if layer == TO_ETHERTYPE:
        if c["what"] == 0x0800:
            layer = TO_IPV4
        elif c["what"] == 0x86DD:
            layer = TO_IPV6
    elif layer == TO_IP and have > 0:
        layer = TO_IPV4 if u8(data, at) >> 4 == 4 else TO_IPV6
    if layer == TO_IPV4:
        return is_ipv4(data, at, have, c["wire_end"])
    if layer == TO_IPV6:
        return is_ipv6(data, at, have, c["wire_end"])
    if layer == TO_ETHERNET:
        return is_frame(data, at, have, c["wire_end"])
    if layer == TO_WIFI:
        return bool(have >= 10 and u8(data, at) & 3 == 0 and u8(data, at) >> 2 & 3 != 3)
    return bool(have >= 4)


@kernel
def is_ipv4(data: Bytes, at: int, have: int, wire_end: int) -> bool:
    """Whether version and lengths are those of an IPv4 packet that fits."""
    if have < 20 or u8(data, at) >> 4 != 4:
        return False
    header, size = (u8(data, at) & 15) * 4, u16(data, at + 2)
    return 20 <= header <= size <= wire_end - at


@kernel
def is_ipv6(data: Bytes, at: int, have: int, wire_end: int) -> bool:
    """Whether version and length are those of an IPv6 packet that fits."""
    if have < 40 or u8(data, at) >> 4 != 6:
        return False
    size = u16(data, at + 4)
    if size == 0:
        return u8(data, at + 6) == NO_NEXT_HEADER
    return 40 + size <= wire_end - at


@kernel
def is_frame(data: Bytes, at: int, have: int, wire_end: int) -> bool:
    """Whether it may be an Ethernet frame: no group sent it, and its type is a common one or its length fits."""
    if have < 14 or u8(data, at + 6) & 1:
        return False
    what = u16(data, at + 12)
    if what <= 1500:
        return 3 <= what <= wire_end - at - 14
    if what in (0x0800, 0x86DD, 0x0806, 0x8035, 0x8100, 0x88A8, 0x9100, 0x8847, 0x8848, 0x8863, 0x8864):
        return True
    return 0x8870 <= what <= 0x8950 or what in (0x6558, 0x9000)  # LLDP, EAPOL, PTP, industrial protocols …


@kernel
def tunnel(data: Bytes, layer: int, c: Any, row: Any) -> int:
    """The header of a tunnel."""
    if layer == TO_GRE:
        return gre(data, c, row)
    if layer == TO_VXLAN:
        return vxlan(data, c, row)
    if layer == TO_GTP:
        return gtp(data, c, row)
    if layer == TO_GENEVE:
        return geneve(data, c, row)
    if layer == TO_GRE_IN_UDP:
        return gre_in_udp(data, c)
    if layer == TO_VXLAN_GPE:
        return vxlan_gpe(data, c, row)
    if layer == TO_TEREDO:
        return teredo(data, c, row)
    if layer == TO_AYIYA:
        return ayiya(data, c, row)
    if layer == TO_TZSP:
        return tzsp(data, c, row)
    if layer == TO_IPIP:
        return inside(data, c, row, R_IPIP, TO_IPV4)
    return inside(data, c, row, R_6IN4, TO_IPV6)


@kernel
def gre(data: Bytes, c: Any, row: Any) -> int:
    """RFC 2784 and 2890, ERSPAN types I to III, PPTP (RFC 2637), Aruba's 802.11.

    Anything else inside stays the outer packet's payload.
    """
    at = c["at"]
    have = c["end"] - at
    if have < 4:
        return broken(c, row, R_GRE)
    flags = u16(data, at)
    what = u16(data, at + 2)
    if flags & 0x4007:  # RFC 1701 routing, or another version
        return pptp(data, c, row) if flags & 0x6007 == 0x2001 and what == 0x880B else DONE
    size = 4
    for bit in (0x8000, 0x2000, 0x1000):  # checksum, key, sequence number
        if flags & bit:
            size += 4
    layer = TO_ETHERTYPE
    if what == 0x6558:
        layer = TO_ETHERNET
    elif what == 0x88BE:  # ERSPAN, type I or II
        layer = TO_ETHERNET
        if flags & 0x1000:
            size += 8
    elif what == 0x22EB:  # ERSPAN, type III
        if have < size + 12:
            return broken(c, row, R_GRE)
        layer = TO_IP if u8(data, at + size + 10) >> 2 & 31 == 2 else TO_ETHERNET
        size += 20 if u8(data, at + size + 11) & 1 else 12
    elif (0x8200 <= what <= 0x83F0 and what & 15 == 0) or what == 0x9000:
        layer = TO_WIFI
    elif what not in (0x0800, 0x86DD, 0x8847, 0x8848, 0x8100):
        return DONE
    if have < size:
        return broken(c, row, R_GRE)
    c["what"] = what if layer == TO_ETHERTYPE else 0
    c["at"] = at + size
    return inside(data, c, row, R_GRE, layer)


@kernel
def pptp(data: Bytes, c: Any, row: Any) -> int:
    """Enhanced GRE, RFC 2637: payload length and call, then a sequence number if there is a payload."""
    at = c["at"]
    have = c["end"] - at
    flags = u16(data, at)
    if flags & 0x1000 == 0:  # an acknowledgement alone
        return DONE
    size = 16 if flags & 0x0080 else 12
    if have < size + 4:
        return broken(c, row, R_GRE)
    c["at"] = at + size
    return inside(data, c, row, R_GRE, TO_PPP)


@kernel
def gre_in_udp(data: Bytes, c: Any) -> int:
    """RFC 8086: GRE's header as above, of which the reserved bits tell it from other traffic on the port."""
    at = c["at"]
    if c["end"] - at < 4 or u16(data, at) & 0x4FFF != 0:
        return DONE
    what = u16(data, at + 2)
    if what not in (0x0800, 0x86DD, 0x8847, 0x8848, 0x8100, 0x6558, 0x88BE, 0x22EB):
        return DONE
    return TO_GRE


@kernel
def vxlan(data: Bytes, c: Any, row: Any) -> int:
    """RFC 7348: eight bytes with the I flag set, then an Ethernet frame.

    Where it is not asked for, all bits must be 0 but those of its extensions: a group policy (G, D, A and the group),
    or the number of an Ethernet frame (P).
    """
    at = c["at"]
    if c["end"] - at < 8 or u8(data, at) & 8 == 0:
        return broken(c, row, R_VXLAN)
    head = u32(data, at)
    clean = head == 0x08000000 or head == 0x0C000003 or head & 0xFFB70000 == 0x88000000
    clean = clean and u8(data, at + 7) == 0
    c["at"] = at + 8
    if not (clean or is_named(c, R_VXLAN)):
        return DONE
    return inside(data, c, row, R_VXLAN, TO_ETHERNET)


@kernel
def vxlan_gpe(data: Bytes, c: Any, row: Any) -> int:
    """draft-ietf-nvo3-vxlan-gpe: VXLAN with the number of what follows where the P flag is set."""
    at = c["at"]
    if c["end"] - at < 8:
        return DONE
    flags, what = u8(data, at), u8(data, at + 3)
    if flags & 0xF9 != 8 or u16(data, at + 1) != 0 or u8(data, at + 7) != 0:
        return DONE  # no VXLAN, another version, or signalling of its own (O)
    layer = TO_ETHERNET
    if flags & 4 == 0:
        if what != 0:
            return DONE
    elif what == 1:
        layer = TO_IPV4
    elif what == 2:
        layer = TO_IPV6
    elif what == 4:
        c["what"] = IN_NSH
        layer = TO_ETHERTYPE
    elif what == 5:
        layer = TO_MPLS
    elif what != 3:
        return DONE
    c["at"] = at + 8
    return inside_if_seen(data, c, row, R_VXLAN_GPE, layer)


@kernel
def gtp(data: Bytes, c: Any, row: Any) -> int:
    """GTP-U version 1 (3GPP TS 29.281): a user's packet; signalling stays the outer packet's payload."""
    at, end = c["at"], c["end"]
    if end - at < 8:
        return broken(c, row, R_GTP)
    flags = u8(data, at)
    if flags & 0xF0 != 0x30 or u8(data, at + 1) != 255:
        return DONE
    fits = 8 + u16(data, at + 2) <= c["wire_end"] - at
    at += 8
    if flags & 7:  # sequence number, N-PDU number and the type of an extension header: all or none
        at += 4
        while at < end and flags & 4 and u8(data, at - 1) != 0:
            if u8(data, at) == 0:
                return broken(c, row, R_GTP)
            at += 4 * u8(data, at)
    if at >= end:
        return broken(c, row, R_GTP)
    c["at"] = at
    if not (fits or is_named(c, R_GTP)):
        return DONE
    return inside(data, c, row, R_GTP, TO_IP)


@kernel
def geneve(data: Bytes, c: Any, row: Any) -> int:
    """RFC 8926: eight bytes and options, then the header that the EtherType names."""
    at = c["at"]
    if c["end"] - at < 8 or u8(data, at) >> 6 != 0:
        return broken(c, row, R_GENEVE)
    what = u16(data, at + 2)
    if what not in (0x6558, 0x0800, 0x86DD):
        return DONE
    clean = u8(data, at + 1) & 0x3F == 0 and u8(data, at + 7) == 0
    if not (clean or is_named(c, R_GENEVE)):
        return DONE
    c["what"] = what
    c["at"] = at + 8 + 4 * (u8(data, at) & 63)
    return inside(data, c, row, R_GENEVE, TO_ETHERNET if what == 0x6558 else TO_ETHERTYPE)


@kernel
def teredo(data: Bytes, c: Any, row: Any) -> int:
    """RFC 4380 section 5.1.1: authentication and origin, each optional, then IPv6.

    The packet must end with the datagram, or have an address of Teredo's: then trailers (RFC 6081) may follow.
    """
    at, end = c["at"], c["end"]
    if end - at >= 4 and u16(data, at) == 1:
        at += 13 + u8(data, at + 2) + u8(data, at + 3)
    if end - at >= 8 and u16(data, at) == 0:
        at += 8
    if not is_ipv6(data, at, end - at, c["wire_end"]):
        return DONE
    exact = 40 + u16(data, at + 4) == c["wire_end"] - at
    if not (exact or has_teredo_address(data, at)):
        return DONE
    c["at"] = at
    return inside(data, c, row, R_TEREDO, TO_IPV6)


@kernel
def ayiya(data: Bytes, c: Any, row: Any) -> int:
    """draft-massar-v6ops-ayiya: lengths of identity and signature, operation (1: forward), next header, time."""
    at = c["at"]
    if c["end"] - at < 8 or u8(data, at + 2) & 15 != 1:
        return DONE
    what = u8(data, at + 3)
    c["at"] = at + 8 + (1 << (u8(data, at) >> 4)) + 4 * (u8(data, at + 1) >> 4)
    if what == 4:
        return inside_if_seen(data, c, row, R_AYIYA, TO_IPV4)
    if what == 41:
        return inside_if_seen(data, c, row, R_AYIYA, TO_IPV6)
    return DONE


@kernel
def tzsp(data: Bytes, c: Any, row: Any) -> int:
    """TaZmen Sniffer Protocol: version, type, what is inside, then tags up to an end tag."""
    at, end = c["at"], c["end"]
    if end - at < 5 or u8(data, at) != 1 or u8(data, at + 1) > 1:  # only these types carry packets
        return DONE
    what = u16(data, at + 2)
    at += 4
    while at < end and u8(data, at) != 1:
        if u8(data, at) == 0:  # padding has no length
            at += 1
        elif at + 1 < end:
            at += 2 + u8(data, at + 1)
        else:
            return DONE
    if at >= end:
        return DONE
    c["at"] = at + 1
    c["what"] = 0
    if what == 1:
        return inside_if_seen(data, c, row, R_TZSP, TO_ETHERNET)
    if what == 18:
        return inside_if_seen(data, c, row, R_TZSP, TO_WIFI)
    if what in (119, 127):
        return inside_if_seen(data, c, row, R_TZSP, TO_PRISM)
    return DONE
