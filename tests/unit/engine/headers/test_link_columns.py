"""VLAN ids and the EtherType, and what is kept of frames that are not IP."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.contrib.lldp import LLDPDUChassisID
from scapy.contrib.mpls import EoMCW
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, CookedLinux, Dot1AD, Dot1AH, Dot1Q, Dot3
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from engine.headers.decode import DecodeConfig
from engine.types import KIND_INNER, Kind, Reason
from tests.support.decoding import DST_MAC, MPLS4, SRC_MAC, V4_DST, V4_SRC, ether, ip4, ip6, row, tcp

IPV4, IPV6 = 0x0800, 0x86DD
VLANS: dict[str, tuple[Any, int, int]] = {
    "none": (ether() / ip4() / tcp(), 0, IPV4),
    "one": (ether() / Dot1Q(vlan=10) / ip4() / tcp(), 10, IPV4),
    "the largest, with a priority": (ether() / Dot1Q(vlan=4095, prio=7, dei=1) / ip6() / tcp(), 4095, IPV6),
    "two": (ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip4() / tcp(), 5 | 6 << 16, IPV4),
    "two of the same kind": (ether() / Dot1Q(vlan=4094) / Dot1Q(vlan=1) / ip4() / tcp(), 4094 | 1 << 16, IPV4),
    "three": (ether() / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / ip4() / tcp(), 1 | 2 << 16, IPV4),
    "a priority alone": (ether() / Dot1Q(vlan=0, prio=3) / ip4() / tcp(), 0, IPV4),
    "a priority around one": (ether() / Dot1Q(vlan=0) / Dot1Q(vlan=7) / ip4() / tcp(), 7, IPV4),
    "a priority within one": (ether() / Dot1Q(vlan=7) / Dot1Q(vlan=0) / ip4() / tcp(), 7, IPV4),
    "a provider's around a frame": (
        ether() / Dot1AD(vlan=9) / Dot1AH(isid=3) / ether() / Dot1Q(vlan=4) / ip4() / tcp(), 4, IPV4,
    ),
    "of a customer without": (ether() / Dot1AD(vlan=9) / Dot1AH() / ether() / ip4() / tcp(), 0, IPV4),
    "before labels": (ether() / Dot1Q(vlan=8, type=0x8847) / MPLS4 / ip4() / tcp(), 8, 0x8847),
    "in a pseudowire": (
        ether(type=0x8847) / MPLS4 / EoMCW() / ether() / Dot1Q(vlan=3) / ip4() / tcp(), 3, IPV4,
    ),
    "before PPPoE": (ether() / Dot1Q(vlan=8) / PPPoE() / PPP(proto=0x21) / ip4() / tcp(), 8, 0x8864),
    "of ARP": (ether() / Dot1Q(vlan=12) / ARP(), 12, 0x0806),
    "of spanning tree": (ether() / Dot1Q(vlan=12, type=38) / LLC() / STP(), 12, 0x42),
    "with snap": (
        ether() / Dot1Q(vlan=12, type=60) / LLC() / SNAP(code=IPV4) / ip4() / tcp(), 12, IPV4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VLANS)
def test_the_ids_of_the_two_outer_tags_and_the_ethertype_are_kept(name: str) -> None:
    frame, vlan, ethertype = VLANS[name]
    found = row(frame)
    assert (found["vlan"], found["ethertype"]) == (vlan, ethertype)
    assert (found["src_mac"], found["dst_mac"]) == (SRC_MAC, DST_MAC)


def test_tags_of_cooked_frames_are_kept() -> None:
    assert row(CookedLinux(proto=0x8100) / Dot1Q(vlan=77) / ip4() / tcp(), 113)["vlan"] == 77
    sll2 = struct.pack(">HHIHBB8s", 0x8100, 0, 2, 1, 0, 6, b"\2\0\0\0\0\1") + b"\0\x4d\x08\0"
    assert row(sll2 + bytes(ip4() / tcp()), 276)["vlan"] == 77


def test_a_frame_says_nothing_of_the_one_before_it() -> None:
    tagged, plain = bytes(ether() / Dot1Q(vlan=5) / ARP()), bytes(ip4() / tcp())
    assert row(tagged)["vlan"] == 5
    raw = row(plain, 101)
    assert (raw["vlan"], raw["ethertype"], raw["sport"]) == (0, 0, 1234)


def test_a_frame_in_a_tunnel_has_its_own_tags_and_a_packet_in_one_those_of_the_frame_around_it() -> None:
    outer = ether() / Dot1Q(vlan=100) / IP()
    inside = ether() / Dot1Q(vlan=3) / ip6() / tcp()
    every = DecodeConfig(tunnels=("vxlan", "gre"))
    for packet, vlan, ethertype in (
        (outer / UDP(dport=4789) / VXLAN(vni=1) / inside, 3, IPV6),
        (outer / UDP(dport=4789) / VXLAN(vni=1) / ether() / ip4() / tcp(), 0, IPV4),
        (outer / GRE() / ip4() / tcp(), 100, IPV4),
    ):
        found = row(packet, config=every)
        assert found["kind"] & KIND_INNER
        assert (found["vlan"], found["ethertype"]) == (vlan, ethertype)
        assert row(packet)["vlan"] == 100


OTHERS = {
    "lldp": (ether(type=0x88CC) / LLDPDUChassisID(subtype=4, id=b"\2\0\0\0\0\1"), 0x88CC),
    "profinet": (ether(type=0x8892) / Raw(b"\xfe\xfe" + b"\0" * 44), 0x8892),
    "eapol": (ether(type=0x888E) / Raw(b"\1\1\0\0"), 0x888E),
    "ipx": (ether(type=0x8137) / Raw(b"\xff\xff" + b"\0" * 40), 0x8137),
    "a tagged goose": (ether(type=0x8100) / Raw(b"\x80\x05\x88\xb8" + b"\0" * 40), 0x88B8),
    "spanning tree": (Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / LLC() / STP(), 0x42),
    "netbeui": (
        Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / LLC(dsap=0xF0, ssap=0xF0, ctrl=3), 0xF0,
    ),
    "cdp": (
        Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / LLC() / SNAP(OUI=0xC, code=0x2000), 0xAA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_frame_that_is_not_ip_keeps_both_macs_and_its_ethertype(name: str) -> None:
    frame, ethertype = OTHERS[name]
    found = row(frame)
    assert (found["kind"], found["reason"]) == (Kind.LINK, Reason.LINK_PROTOCOL)
    assert (found["src_mac"], found["dst_mac"], found["ethertype"]) == (SRC_MAC, DST_MAC, ethertype)
    assert (found["src_lo"], found["dst_lo"], found["proto"]) == (0, 0, 0)


@pytest.mark.parametrize("operation", [1, 2, 3, 8])
def test_arp_has_its_operation_and_both_addresses(operation: int) -> None:
    found = row(ether() / ARP(op=operation, psrc="10.0.0.1", pdst="10.0.0.2"))
    assert (found["kind"], found["ethertype"], found["sport"], found["dport"]) == (
        Kind.ARP,
        0x0806,
        operation,
        0,
    )
    assert (found["src_lo"], found["dst_lo"]) == (V4_SRC, V4_DST)
    assert (found["src_mac"], found["dst_mac"]) == (SRC_MAC, DST_MAC)


def test_a_frame_too_short_for_its_logical_link_header_has_no_ethertype() -> None:
    found = row(bytes(ether(type=2)) + b"\xaa\xaa")
    assert (found["reason"], found["ethertype"]) == (Reason.LINK_TRUNCATED, 0)
