"""Headers that are broken, cut short or claim what is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, STP, Dot3
from scapy.packet import Raw

from connectors.files.frames import FrameBlock
from engine.headers.decode import DecodeConfig, decode
from engine.types import KIND_TRANSPORT, Kind, Reason
from tests.support.decoding import DST_MAC, SRC_MAC, TCP4, V4_DST, V4_SRC, block, ether, ip4, ip6, row, tcp

E, I4, I6 = bytes(ether(type=0x0800)), bytes(ip4() / tcp()), bytes(ip6() / tcp())
E6 = bytes(ether(type=0x86DD))


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


BROKEN: dict[str, tuple[int, bytes, Reason, int]] = {
    "link type": (147, b"x" * 60, Reason.LINK_TYPE, Kind.UNREAD),
    "empty": (1, b"", Reason.LINK_TRUNCATED, Kind.UNREAD),
    "ethernet": (1, E[:13], Reason.LINK_TRUNCATED, Kind.UNREAD),
    "sll": (113, b"\0" * 15, Reason.LINK_TRUNCATED, Kind.UNREAD),
    "sll2": (276, b"\0" * 19, Reason.LINK_TRUNCATED, Kind.UNREAD),
    "null": (0, b"\2\0\0", Reason.LINK_TRUNCATED, Kind.UNREAD),
    "null family": (0, b"\7\0\0\0", Reason.LINK_PROTOCOL, Kind.UNREAD),
    "ppp": (9, b"\xff\x03", Reason.LINK_TRUNCATED, Kind.UNREAD),
    "lcp": (9, b"\xff\x03\xc0\x21", Reason.LINK_PROTOCOL, Kind.UNREAD),
    "chdlc": (104, b"\x0f\0\x20\0", Reason.LINK_PROTOCOL, Kind.UNREAD),
    "netlink": (113, b"\0\0\3\x38\0\0" + b"\0" * 8 + b"\x08\0" + I4, Reason.LINK_PROTOCOL, Kind.UNREAD),
    "lldp": (1, changed(E, 12, b"\x88\xcc"), Reason.LINK_PROTOCOL, Kind.LINK),
    "stp": (1, bytes(Dot3() / LLC() / STP()), Reason.LINK_PROTOCOL, Kind.LINK),
    "llc": (1, changed(E, 12, b"\0\2") + b"\xaa\xaa", Reason.LINK_TRUNCATED, Kind.LINK),
    "snap": (1, changed(E, 12, b"\0\7") + b"\xaa\xaa\3\0\0\0\x08", Reason.LINK_TRUNCATED, Kind.LINK),
    "snap of an organisation": (
        1, changed(E, 12, b"\0\x3b") + b"\xaa\xaa\3\0\0\1\x08\0" + I4, Reason.LINK_PROTOCOL, Kind.LINK,
    ),
    "vlan": (1, changed(E, 12, b"\x81\0") + b"\0\5\x08", Reason.ENCAPSULATION, Kind.LINK),
    "mpls": (1, changed(E, 12, b"\x88\x47") + b"\0\0\0", Reason.ENCAPSULATION, Kind.LINK),
    "mpls without a bottom": (1, changed(E, 12, b"\x88\x47") + b"\0" * 40, Reason.ENCAPSULATION, Kind.LINK),
    "pppoe": (1, changed(E, 12, b"\x88\x64") + b"\x11\0\0\1\0", Reason.ENCAPSULATION, Kind.LINK),
    "pppoe version": (1, changed(E, 12, b"\x88\x64") + b"\x12" * 9, Reason.ENCAPSULATION, Kind.LINK),
    "nsh length": (1, changed(E, 12, b"\x89\x4f") + b"\0\1\1\1" + I4, Reason.ENCAPSULATION, Kind.LINK),
    "encrypted macsec": (1, changed(E, 12, b"\x88\xe5") + b"\x0c" * 60, Reason.LINK_PROTOCOL, Kind.LINK),
    "arp": (1, bytes(ether() / ARP())[:21], Reason.ARP_TRUNCATED, Kind.LINK),
    "arp addresses": (1, bytes(ether() / ARP())[:41], Reason.ARP_TRUNCATED, Kind.ARP),
    "ip": (1, E + I4[:19], Reason.IP_TRUNCATED, Kind.LINK),
    "ip version": (1, E + I6, Reason.IP_VERSION, Kind.LINK),
    "ip6 version": (1, E6 + I4, Reason.IP_VERSION, Kind.LINK),
    "raw version": (101, b"\x55" * 60, Reason.IP_VERSION, Kind.UNREAD),
    "raw nothing": (101, b"", Reason.IP_TRUNCATED, Kind.UNREAD),
    "ip header length": (1, E + changed(I4, 0, b"\x44"), Reason.IP_LENGTH, Kind.LINK),
    "ip total length": (1, E + changed(I4, 2, b"\0\x13"), Reason.IP_LENGTH, Kind.LINK),
    "ip options": (1, E + changed(I4, 0, b"\x4f"), Reason.IP_LENGTH, Kind.LINK),
    "ip6": (1, E6 + I6[:39], Reason.IP_TRUNCATED, Kind.LINK),
    "tcp": (1, E + changed(I4[:39], 2, b"\0\x27"), Reason.TRANSPORT_TRUNCATED, Kind.IPV4),
    "tcp offset small": (1, E + changed(I4, 32, b"\x40"), Reason.TRANSPORT_LENGTH, Kind.IPV4),
    "tcp offset large": (1, E + changed(I4, 32, b"\xf0"), Reason.TRANSPORT_LENGTH, Kind.IPV4),
    "udp": (1, E + bytes(ip4(proto=17) / Raw(b"1234567")), Reason.TRANSPORT_TRUNCATED, Kind.IPV4),
    "udp length small": (
        1, E + bytes(ip4() / UDP(len=7)), Reason.TRANSPORT_LENGTH, Kind.IPV4 | KIND_TRANSPORT,
    ),
    "udp length large": (
        1, E + bytes(ip4() / UDP(len=9)), Reason.TRANSPORT_LENGTH, Kind.IPV4 | KIND_TRANSPORT,
    ),
    "icmp": (1, E + bytes(ip4(proto=1) / Raw(b"1234567")), Reason.TRANSPORT_TRUNCATED, Kind.IPV4),
    "extension": (1, E6 + bytes(ip6(nh=0) / Raw(b"\6\0\0\0")), Reason.IP_EXTENSION, Kind.IPV6),
    "extension length": (1, E6 + bytes(ip6(nh=0) / Raw(b"\6\2" + b"\0" * 9)), Reason.IP_EXTENSION, Kind.IPV6),
    "extensions without end": (
        1, E6 + bytes(ip6(nh=60) / Raw(b"\x3c\0\0\0\0\0\0\0" * 40)), Reason.IP_EXTENSION, Kind.IPV6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_gives_a_reason_and_keeps_what_stood_before(name: str) -> None:
    link_type, frame, reason, kind = BROKEN[name]
    found = row(frame, link_type)
    assert (found["reason"], found["kind"]) == (reason, kind)
    if kind and link_type == 1 and name != "stp":
        assert (found["src_mac"], found["dst_mac"]) == (SRC_MAC, DST_MAC)
    if kind & Kind.IPV6 == Kind.IPV4:
        assert (found["src_lo"], found["dst_lo"], found["ttl"]) == (V4_SRC, V4_DST, 61)
    assert (found["seq"], found["tcp_flags"]) == (0, 0)
    assert found["ts"] == 1_700_000_000_000_000_000
    assert found["size"] == len(frame)


def test_a_header_cut_by_the_snaplen_is_truncated_not_broken() -> None:
    for data, cut, reason in (
        (E + I4, 30, Reason.IP_TRUNCATED),
        (E + I4, 47, Reason.TRANSPORT_TRUNCATED),
        (E6 + bytes(ip6() / IPv6ExtHdrHopByHop() / tcp()), 58, Reason.IP_TRUNCATED),
        (E + bytes(ip4(options=[IPOption_NOP()] * 8) / tcp()), 38, Reason.IP_TRUNCATED),
    ):
        assert row(data[:cut], wire=len(data))["reason"] == reason


def test_a_packet_longer_than_its_frame_is_noted_and_read_as_far_as_it_is_there() -> None:
    frame = bytes(ether() / ip4(len=1500) / tcp())
    assert (
        row(frame).items() >= (TCP4 | {"reason": Reason.IP_LENGTH, "ip_size": 1500, "payload": 1460}).items()
    )


def test_frames_that_claim_to_lie_outside_the_buffer_are_cut_to_it() -> None:
    frame = bytes(ether() / ip4() / tcp())
    good = block([frame, frame, frame])
    bad = FrameBlock(
        good.buffer,
        np.array([-5, 10**12, len(frame) * 2], np.int64),
        good.captured + np.uint32(2**31),
        good.wire,
        good.ts,
        good.link_type,
    )
    assert decode(bad).reason[1:].tolist() == [Reason.LINK_TRUNCATED, Reason.OK]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tunnels": ("l2tp",)}, r"tunnels \['l2tp'\] must be among"),
        ({"vxlan_port": 0}, "vxlan_port 0 must be in 1..65535"),
        ({"max_depth": 0}, "max_depth 0 must be in 1..64"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DecodeConfig(**fields)
