"""Link headers seldom seen."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.l2 import LLC, SNAP

from engine.types import Kind, Reason
from tests.support.decoding import DST_MAC, MPLS4, SRC_MAC, TCP4, TCP6, ether, ip4, ip6, row, tcp

I4, I6 = bytes(ip4() / tcp()), bytes(ip6() / tcp())
F4 = bytes(ether() / ip4() / tcp())
MACS, REST = F4[:12], F4[12:]
SEEN = {"src_mac": SRC_MAC, "dst_mac": DST_MAC, "ethertype": 0x0800}

READ: dict[str, tuple[int, bytes, dict[str, Any]]] = {
    "llc over atm": (100, bytes(LLC() / SNAP(code=0x0800)) + I4, TCP4),
    "frame relay": (107, b"\x18\x41\x03\xcc" + I4, TCP4),
    "frame relay, IPv6": (107, b"\x18\x41\x03\x8e" + I6, TCP6),
    "frame relay, padded": (107, b"\x18\x41\x03\x00\xcc" + I4, TCP4),
    "frame relay, snap": (107, b"\x18\x41\x03\x00\x80\0\0\0\x08\0" + I4, TCP4 | {"ethertype": 0x0800}),
    "frame relay, four bytes of address": (107, b"\x18\x40\x40\x41\x03\xcc" + I4, TCP4),
    "frame relay of Cisco's": (107, b"\x18\x41\x08\x00" + I4, TCP4),
    "ipsec of OpenBSD": (109, struct.pack("<III", 2, 7, 1) + I4, TCP4),
    "ipsec of OpenBSD, big endian": (109, struct.pack(">III", 24, 7, 1) + I6, TCP6),
    "pppd": (166, b"\1\3\0\x21" + I4, TCP4),
    "ppp with a direction": (204, b"\0\xff\3\0\x21" + I4, TCP4),
    "ppp with a direction, bare": (204, b"\1\0\x57" + I6, TCP6),
    "cisco's hdlc with a direction": (205, b"\1\x0f\0\x08\0" + I4, TCP4),
    "frame relay with a direction": (206, b"\0\x18\x41\3\xcc" + I4, TCP4),
    "mpls": (219, bytes(MPLS4) + I4, TCP4),
    "ipnet": (226, b"\1\2" + bytes(22) + I4, TCP4),
    "ipnet, IPv6": (226, b"\1\x1a" + bytes(22) + I6, TCP6),
    "netanalyzer": (240, b"\0\0\0\0" + F4 + b"\1\2\3\4", TCP4 | SEEN),
    "netanalyzer with a preamble": (241, b"\0\0\0\0" + b"\x55" * 7 + b"\xd5" + F4 + b"\1\2\3\4", TCP4 | SEEN),
    "infiniband": (242, bytes(40) + b"\x08\0\0\0" + I4, TCP4 | {"ethertype": 0x0800}),
    "broadcom's tag": (281, MACS + b"\0\0\0\7" + REST, TCP4 | SEEN),
    "broadcom's tag in front": (282, b"\0\0\0\7" + F4, TCP4 | SEEN),
    "dsa": (284, MACS + b"\xc0\x18\x0f\xff" + REST, TCP4 | SEEN | {"vlan": 0}),
    "dsa in a VLAN": (284, MACS + b"\xe0\x18\x60\x05" + REST, TCP4 | SEEN | {"vlan": 5}),
    "dsa in a VLAN, tagged": (
        284, MACS + b"\xe0\x18\x60\x05\x81\0\0\x06" + REST, TCP4 | SEEN | {"vlan": 5 | 6 << 16},
    ),
    "edsa": (285, MACS + b"\xda\xda\0\0\xe0\x18\x60\x05" + REST, TCP4 | SEEN | {"vlan": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_packet_behind_the_header_is_read(name: str) -> None:
    link_type, frame, want = READ[name]
    assert row(frame, link_type).items() >= (want | {"size": len(frame)}).items()


OTHERS = {
    "frame relay, an address without end": (107, b"\x18\x40\x40\x40\x40\x03\xcc" + I4, Reason.ENCAPSULATION),
    "frame relay, an address of one byte": (107, b"\x19\x41\x03\xcc" + I4, Reason.ENCAPSULATION),
    "frame relay, management": (107, b"\x18\x41\x03\x08" + bytes(20), Reason.LINK_PROTOCOL),
    "frame relay, a frame in it": (107, b"\x18\x41\x03\0\x80\0\x80\xc2\0\7" + F4, Reason.LINK_PROTOCOL),
    "frame relay, snap cut": (107, b"\x18\x41\x03\0\x80\0\0", Reason.LINK_TRUNCATED),
    "frame relay cut": (107, b"\x18\x41\x03", Reason.LINK_TRUNCATED),
    "frame relay, an address alone": (107, b"\x18\x40\x40\x41", Reason.LINK_TRUNCATED),
    "ipsec of another family": (109, struct.pack("<III", 9, 7, 1) + I4, Reason.LINK_PROTOCOL),
    "ipsec cut": (109, struct.pack("<III", 2, 7, 1)[:11], Reason.LINK_TRUNCATED),
    "nothing behind a direction": (204, b"", Reason.LINK_TRUNCATED),
    "netanalyzer, nothing": (240, b"\0\0", Reason.LINK_TRUNCATED),
    "netanalyzer, a check sequence alone": (240, bytes(8), Reason.LINK_TRUNCATED),
    "ipnet cut": (226, b"\1\2" + bytes(21), Reason.LINK_TRUNCATED),
    "infiniband, no type": (242, bytes(44) + I4, Reason.LINK_PROTOCOL),
    "broadcom's tag cut": (281, MACS + bytes(5), Reason.LINK_TRUNCATED),
    "broadcom's tag in front cut": (282, bytes(17), Reason.LINK_TRUNCATED),
    "edsa cut": (285, MACS + bytes(9), Reason.LINK_TRUNCATED),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_broken_header_gives_a_reason_and_no_packet(name: str) -> None:
    link_type, frame, reason = OTHERS[name]
    found = row(frame, link_type)
    assert (found["reason"], found["kind"], found["src_lo"]) == (reason, Kind.UNREAD, 0)


def test_netanalyzers_check_sequence_is_no_payload() -> None:
    unsized = F4[:16] + b"\0\0" + F4[18:]
    assert row(b"\0\0\0\0" + unsized + b"\1\2\3\4", 240)["payload"] == 11
