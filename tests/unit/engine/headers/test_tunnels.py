"""Inner packets of tunnels, where the configuration asks for them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from engine.headers.decode import DecodeConfig
from engine.types import KIND_INNER, KIND_TRANSPORT, Kind, Reason
from tests.support.decoding import MPLS4, SRC_MAC, TCP4, TCP6, V4_SRC, ether, ip4, ip6, row, tcp

EVERY_TUNNEL = ("gre", "ipip", "6in4", "vxlan", "vxlan_gpe", "gtp", "geneve", "teredo", "ayiya", "tzsp")
ALL = DecodeConfig(tunnels=EVERY_TUNNEL)


INNER = {"kind": Kind.IPV4 | KIND_TRANSPORT | KIND_INNER}


def gtp(header: str) -> Any:
    return IP() / UDP(dport=2152) / Raw(bytes.fromhex(header)) / ip4() / tcp()


TUNNELS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "gre": ("gre", IP(src="1.1.1.1") / GRE() / ip4() / tcp(), {}),
    "gre with everything": (
        "gre",
        IP(src="1.1.1.1") / GRE(chksum_present=1, key_present=1, seqnum_present=1) / ip4() / tcp(),
        {},
    ),
    "gre with a frame": ("gre", IP() / GRE(proto=0x6558) / ether() / ip4() / tcp(), {"src_mac": SRC_MAC}),
    "gre with mpls": ("gre", IP() / GRE(proto=0x8847) / MPLS4 / ip4() / tcp(), {}),
    "erspan 1": ("gre", IP() / GRE(proto=0x88BE) / ether() / ip4() / tcp(), {"src_mac": SRC_MAC}),
    "erspan 2": (
        "gre",
        IP() / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II() / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "erspan 3": (
        "gre",
        IP() / GRE(proto=0x22EB, seqnum_present=1) / ERSPAN_III() / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "ipip": ("ipip", IP(src="1.1.1.1") / ip4() / tcp(), {}),
    "4in6": ("ipip", IPv6() / ip4() / tcp(), {}),
    "6in4": ("6in4", IP(src="1.1.1.1") / ip6() / tcp(), TCP6 | {"kind": TCP6["kind"] | KIND_INNER}),
    "vxlan": ("vxlan", IP() / UDP(dport=4789) / VXLAN(vni=3) / ether() / ip4() / tcp(), {"src_mac": SRC_MAC}),
    "gtp": ("gtp", gtp("30ff000000000007"), {}),
    "gtp from the port": (
        "gtp",
        IP() / UDP(sport=2152, dport=40000) / gtp("30ff000000000007")[UDP].payload,
        {},
    ),
    "gtp with a sequence number": ("gtp", gtp("32ff00000000000700050000"), {}),
    "gtp with extensions": ("gtp", gtp("34ff0000000000070000008501100040011234c001100000"), {}),
    "geneve": (
        "geneve",
        IP() / UDP(dport=6081) / GENEVE(vni=3) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "geneve with options and no frame": (
        "geneve",
        IP() / UDP(dport=6081) / Raw(bytes.fromhex("02000800000003000102800100000009")) / ip4() / tcp(),
        {},
    ),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_a_tunnel_shows_the_inner_packet_only_where_configured(name: str) -> None:
    tunnel, packet, also = TUNNELS[name]
    frame = bytes(Ether(src="06:00:00:00:00:09") / packet)
    inner = row(frame, config=DecodeConfig(tunnels=(tunnel,)))
    assert inner.items() >= (TCP4 | INNER | also | {"size": len(frame)}).items()
    others = tuple(set(EVERY_TUNNEL) - {tunnel})
    closed = Reason[f"TUNNEL_{tunnel.upper()}"]
    for config in (DecodeConfig(), DecodeConfig(tunnels=others)):
        outer = row(frame, config=config)
        assert outer["proto"] == {"gre": 47, "ipip": 4, "6in4": 41}.get(tunnel, 17)
        assert not outer["kind"] & KIND_INNER
        assert (outer["src_mac"], outer["reason"]) == (0x060000000009, closed)


@pytest.mark.parametrize("header", ["30fe000000000007", "20ff000000000007", "70ff000000000007"])
def test_gtp_that_carries_no_users_packet_is_its_outer_packet(header: str) -> None:
    found = row(ether() / gtp(header), config=ALL)
    assert (found["kind"], found["dport"]) == (Kind.IPV4 | KIND_TRANSPORT, 2152)
    assert found["reason"] == Reason.OK


def test_geneve_with_a_protocol_we_do_not_read_is_its_outer_packet() -> None:
    found = row(ether() / IP() / UDP(dport=6081) / Raw(bytes.fromhex("00008847000003000000")), config=ALL)
    assert (found["kind"], found["reason"]) == (Kind.IPV4 | KIND_TRANSPORT, Reason.OK)


@pytest.mark.parametrize(
    "inside",
    [
        UDP(dport=2152) / Raw(bytes.fromhex("30")),  # shorter than its header
        UDP(dport=2152) / Raw(bytes.fromhex("34ff0000000000070000008500000000")),  # an extension of no length
        UDP(dport=2152) / Raw(bytes.fromhex("34ff000000000007000000850110004001")),  # cut within extensions
        UDP(dport=2152) / Raw(bytes.fromhex("30ff000000000007")),  # nothing inside
        UDP(dport=6081) / Raw(bytes.fromhex("0000")),
        UDP(dport=6081) / Raw(bytes.fromhex("4000080000000300")),  # version 1
    ],
)
def test_a_broken_tunnel_over_udp_leaves_the_outer_packet_and_a_reason(inside: Any) -> None:
    found = row(ether() / ip4(proto=17) / inside, config=ALL)
    assert (found["kind"], found["src_lo"]) == (Kind.IPV4 | KIND_TRANSPORT, V4_SRC)
    assert found["reason"] == Reason.ENCAPSULATION


def test_vxlan_is_found_on_the_configured_port() -> None:
    frame = ether() / IP() / UDP(dport=8472) / VXLAN() / ether() / ip4() / tcp()
    assert not row(frame, config=ALL)["kind"] & KIND_INNER
    assert row(frame, config=DecodeConfig(tunnels=("vxlan",), vxlan_port=8472))["kind"] & KIND_INNER


def test_a_broken_tunnel_leaves_the_outer_packet_and_a_reason() -> None:
    for inside, reason in (
        (GRE(proto=0x0800) / Raw(b""), Reason.IP_TRUNCATED),
        (GRE(proto=0x0800) / Raw(b"\x60" * 40), Reason.IP_VERSION),
        (Raw(b"\0\0"), Reason.ENCAPSULATION),
        (Raw(b"\xb0\0\x08\0"), Reason.ENCAPSULATION),
    ):
        found = row(ether() / ip4(proto=47) / inside, config=ALL)
        assert (found["kind"], found["src_lo"], found["proto"]) == (Kind.IPV4, V4_SRC, 47)
        assert found["reason"] == reason


def test_gre_with_a_protocol_we_do_not_read_is_its_outer_packet() -> None:
    for flags, proto in ((0, 0x880B), (1, 0x880B), (0x4000, 0x0800)):
        found = row(ether() / ip4(proto=47) / Raw(struct.pack(">HH", flags, proto) + b"\0" * 40), config=ALL)
        assert (found["proto"], found["reason"]) == (47, Reason.OK)


def test_headers_nested_deeper_than_the_limit_are_not_followed() -> None:
    def tagged(n: int) -> bytes:
        return bytes(ether(type=0x8100)) + b"\0\5\x81\0" * (n - 1) + b"\0\5\x08\0" + bytes(ip4() / tcp())

    assert row(tagged(8)).items() >= TCP4.items()
    assert (
        row(tagged(9)).items()
        >= {"kind": Kind.LINK, "src_mac": SRC_MAC, "reason": Reason.TUNNEL_DEPTH}.items()
    )
    assert row(tagged(9), config=DecodeConfig(max_depth=9)).items() >= TCP4.items()
