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

from engine.headers.cursor import TUNNELS as TUNNELS_NAMED
from engine.headers.decode import DecodeConfig
from engine.types import KIND_INNER, KIND_TRANSPORT, Kind, Reason, unopened_tunnels
from tests.support.decoding import MPLS4, SRC_MAC, TCP4, TCP6, V4_SRC, ether, ip4, ip6, row, tcp
from tests.support.link_headers import SNAP4, avs, prism, wifi

EVERY_TUNNEL = ("gre", "ipip", "6in4", "vxlan", "vxlan_gpe", "gtp", "geneve", "teredo", "ayiya", "tzsp")
ALL = DecodeConfig(tunnels=EVERY_TUNNEL)


INNER = {"kind": Kind.IPV4 | KIND_TRANSPORT | KIND_INNER}
SIX = TCP6 | {"kind": TCP6["kind"] | KIND_INNER}
AYIYA = b"\x41\x52\x11"  # an identity of 16 bytes, a signature of 20, forward


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
    "6in4": ("6in4", IP(src="1.1.1.1") / ip6() / tcp(), SIX),
    "vxlan": ("vxlan", IP() / UDP(dport=4789) / VXLAN(vni=3) / ether() / ip4() / tcp(), {"src_mac": SRC_MAC}),
    "gtp": ("gtp", gtp("30ff000000000007"), {}),
    "gtp from the port": (
        "gtp",
        IP() / UDP(sport=2152, dport=40000) / gtp("30ff000000000007")[UDP].payload,
        {},
    ),
    "gtp with a sequence number": ("gtp", gtp("32ff00000000000700050000"), {}),
    "gtp with extensions": ("gtp", gtp("34ff0000000000070000008501100040011234c001100000"), {}),
    "gre in udp": ("gre", IP() / UDP(dport=4754) / GRE() / ip4() / tcp(), {}),
    "gre in udp, with a key and a frame": (
        "gre",
        IP() / UDP(dport=4754) / GRE(key_present=1, proto=0x6558) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "pptp": (
        "gre",
        IP(proto=47) / Raw(bytes.fromhex("3001880b0037001000000001") + b"\xff\3\0\x21") / ip4() / tcp(),
        {},
    ),
    "pptp with an acknowledgement": (
        "gre",
        IP(proto=47) / Raw(bytes.fromhex("3081880b003700100000000100000002") + b"\x21") / ip4() / tcp(),
        {},
    ),
    "aruba": ("gre", IP() / GRE(proto=0x8200) / Raw(wifi(SNAP4 + bytes(ip4() / tcp()))), {"src_mac": SRC_MAC}),
    "erspan 3 with a platform's header": (
        "gre",
        IP() / GRE(proto=0x22EB, seqnum_present=1)
        / Raw(bytes.fromhex("200000000000000000000001" + "00" * 8)) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "erspan 3 of a packet": (
        "gre",
        IP() / GRE(proto=0x22EB) / Raw(bytes.fromhex("200000000000000000000800")) / ip4() / tcp(),
        {},
    ),
    "vxlan with a group policy": (
        "vxlan",
        IP() / UDP(dport=4789) / Raw(bytes.fromhex("8848000700000300")) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "vxlan-gpe": (
        "vxlan_gpe", IP() / UDP(dport=4790) / Raw(bytes.fromhex("0c00000100000300")) / ip4() / tcp(), {},
    ),
    "vxlan-gpe, IPv6": (
        "vxlan_gpe",
        IP() / UDP(dport=4790) / Raw(bytes.fromhex("0c00000200000300")) / ip6() / tcp(),
        SIX,
    ),
    "vxlan-gpe, a frame": (
        "vxlan_gpe",
        IP() / UDP(dport=4790) / Raw(bytes.fromhex("0c00000300000300")) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "vxlan-gpe without a number": (
        "vxlan_gpe",
        IP() / UDP(dport=4790) / Raw(bytes.fromhex("0800000000000300")) / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "vxlan-gpe, nsh": (
        "vxlan_gpe",
        IP() / UDP(dport=4790) / Raw(bytes.fromhex("0c00000400000300" + "0fc20201" + "00" * 4)) / ip4() / tcp(),
        {},
    ),
    "vxlan-gpe, mpls": (
        "vxlan_gpe", IP() / UDP(dport=4790) / Raw(bytes.fromhex("0c00000500000300")) / MPLS4 / ip4() / tcp(), {},
    ),
    "teredo": ("teredo", IP() / UDP(dport=3544) / ip6() / tcp(), SIX),
    "teredo from the port": ("teredo", IP() / UDP(sport=3544, dport=50000) / ip6() / tcp(), SIX),
    "teredo with its origin": (
        "teredo", IP() / UDP(dport=3544) / Raw(bytes.fromhex("0000abcd12345678")) / ip6() / tcp(), SIX,
    ),
    "teredo with authentication": (
        "teredo", IP() / UDP(dport=3544) / Raw(b"\0\1\2\3" + bytes(14)) / ip6() / tcp(), SIX,
    ),
    "teredo with both": (
        "teredo",
        IP() / UDP(dport=3544) / Raw(b"\0\1\0\0" + bytes(9) + bytes.fromhex("0000abcd12345678")) / ip6() / tcp(),
        SIX,
    ),
    "ayiya": ("ayiya", IP() / UDP(sport=5072, dport=40000) / Raw(AYIYA + b"\x29" + bytes(40)) / ip6() / tcp(), SIX),
    "ayiya, IPv4": ("ayiya", IP() / UDP(dport=5072) / Raw(AYIYA + b"\4" + bytes(40)) / ip4() / tcp(), {}),
    "ayiya without a signature": (
        "ayiya", IP() / UDP(dport=5072) / Raw(b"\x41\2\x11\x29" + bytes(20)) / ip6() / tcp(), SIX,
    ),
    "tzsp": ("tzsp", IP() / UDP(dport=37008) / Raw(b"\1\0\0\1\1") / ether() / ip4() / tcp(), {"src_mac": SRC_MAC}),
    "tzsp with tags": (
        "tzsp",
        IP() / UDP(dport=37008) / Raw(b"\1\1\0\1\0\0\x0a\1\xc8\x12\1\6\1") / ether() / ip4() / tcp(),
        {"src_mac": SRC_MAC},
    ),
    "tzsp, 802.11": (
        "tzsp",
        IP() / UDP(dport=37008) / Raw(b"\1\0\0\x12\1" + wifi(SNAP4 + bytes(ip4() / tcp()))),
        {"src_mac": SRC_MAC},
    ),
    "tzsp, prism": (
        "tzsp",
        IP() / UDP(dport=37008) / Raw(b"\1\0\0\x77\1" + prism(wifi(SNAP4 + bytes(ip4() / tcp())))),
        {"src_mac": SRC_MAC},
    ),
    "tzsp, avs": (
        "tzsp",
        IP() / UDP(dport=37008) / Raw(b"\1\0\0\x7f\1" + avs(wifi(SNAP4 + bytes(ip4() / tcp())))),
        {"src_mac": SRC_MAC},
    ),
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
}  # fmt: skip


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
        assert outer["proto"] == (17 if UDP in packet else {"gre": 47, "ipip": 4, "6in4": 41}[tunnel])
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


F, I4, I6 = bytes(ether() / ip4() / tcp()), bytes(ip4() / tcp()), bytes(ip6() / tcp())
ORDINARY: dict[str, tuple[int, bytes]] = {
    "zeros for vxlan": (4789, bytes(80)),
    "vxlan without its flag": (4789, bytes(8) + F),
    "vxlan with reserved bits": (4789, b"\x18\0\0\0\0\0\3\0" + F),
    "vxlan with reserved bytes": (4789, b"\x08\0\1\0\0\0\3\0" + F),
    "vxlan with a reserved end": (4789, b"\x08\0\0\0\0\0\3\1" + F),
    "vxlan without a frame": (4789, b"\x08\0\0\0\0\0\3\0" + F[:13]),
    "vxlan with text": (4789, b"\x08\0\0\0\0\0\3\0" + b"GET / HTTP/1.1 Host: example.com"),
    "vxlan with a frame that a group sent": (4789, b"\x08\0\0\0\0\0\3\0" + F[:6] + b"\1" + F[7:]),
    "text for vxlan-gpe": (4790, b"GET / HTTP/1.1"),
    "vxlan-gpe of another version": (4790, b"\x1c\0\0\1\0\0\3\0" + I4),
    "vxlan-gpe, signalling": (4790, b"\x0d\0\0\1\0\0\3\0" + I4),
    "vxlan-gpe of another packet": (4790, b"\x0c\0\0\2\0\0\3\0" + I4),
    "vxlan-gpe of an unknown number": (4790, b"\x0c\0\0\x09\0\0\3\0" + I4),
    "vxlan-gpe, short": (4790, b"\x0c\0\0\1\0\0\3"),
    "gre in udp with a version": (4754, b"\0\1\x08\0" + I4),
    "gre in udp with reserved bits": (4754, b"\x0c\0\x08\0" + I4),
    "gre in udp of another protocol": (4754, b"\0\0\x12\x34" + I4),
    "gre in udp without a packet": (4754, b"\0\0\x08\0" + b"text that is no packet at all"),
    "gtp with another length": (2152, b"\x30\xff\xff\xff\0\0\0\7" + I4),
    "gtp without a packet": (2152, b"\x30\xff\0\x20\0\0\0\7" + b"\x77" * 32),
    "geneve with reserved bits": (6081, b"\0\1\x08\0\0\0\3\0" + I4),
    "geneve with a reserved end": (6081, b"\0\0\x08\0\0\0\3\1" + I4),
    "geneve of another version": (6081, b"\x40\0\x08\0\0\0\3\0" + I4),
    "geneve without a packet": (6081, b"\0\0\x08\0\0\0\3\0" + b"\x46" + bytes(30)),
    "text for teredo": (3544, b"five or six words of a text that begin with a letter"),
    "teredo with another length": (3544, I6[:4] + b"\0\x09" + I6[6:]),
    "teredo longer than its datagram": (3544, I6[:4] + b"\0\xff" + I6[6:]),
    "teredo of no length": (3544, I6[:4] + b"\0\0" + I6[6:]),
    "teredo, short": (3544, I6[:39]),
    "teredo with endless authentication": (3544, b"\0\1\xff\xff" + I6),
    "ayiya that does not forward": (5072, b"\x41\x52\x10\x29" + bytes(40) + I6),
    "ayiya of something else": (5072, b"\x41\x52\x11\x3b" + bytes(40) + I6),
    "ayiya without its packet": (5072, b"\x41\x52\x11\x29" + bytes(40) + I4),
    "ayiya with a long identity": (5072, b"\xf1\xf2\x11\x29" + bytes(40) + I6),
    "tzsp of another version": (37008, b"\2\0\0\1\1" + F),
    "tzsp, keepalive": (37008, b"\1\4\0\1\1" + F),
    "tzsp of something else": (37008, b"\1\0\0\2\1" + F),
    "tzsp without an end of its tags": (37008, b"\1\0\0\1" + b"\x0a\1" * 40),
    "tzsp with a tag cut": (37008, b"\1\0\0\1\x0a"),
    "tzsp without a frame": (37008, b"\1\0\0\1\1" + b"text that is no frame"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_other_traffic_on_the_port_of_a_tunnel_is_not_counted(name: str) -> None:
    port, payload = ORDINARY[name]
    frame = bytes(ether() / ip4(proto=17) / UDP(sport=9, dport=port) / Raw(payload))
    found = row(frame)
    assert (found["reason"], found["kind"], found["dport"]) == (Reason.OK, Kind.IPV4 | KIND_TRANSPORT, port)
    assert found["payload"] == len(payload)


@pytest.mark.parametrize(
    "name", [name for name, (port, _) in ORDINARY.items() if port in (4790, 4754, 3544, 5072, 37008)]
)
def test_tunnels_that_only_their_packets_tell_are_not_opened_without_one(name: str) -> None:
    port, payload = ORDINARY[name]
    frame = bytes(ether() / ip4(proto=17) / UDP(sport=9, dport=port) / Raw(payload))
    found = row(frame, config=ALL)
    if name == "gre in udp without a packet":  # by its header it is GRE, as under protocol 47
        assert found["reason"] == Reason.IP_VERSION
    else:
        assert found["reason"] == Reason.OK
    assert (found["kind"], found["dport"]) == (Kind.IPV4 | KIND_TRANSPORT, port)


@pytest.mark.parametrize(
    ("proto", "inside"), [(4, b"\x55" * 40), (41, I4), (47, b"\0\0\x08\0" + b"\x55" * 40)]
)
def test_an_ip_protocol_without_its_packet_is_not_counted(proto: int, inside: bytes) -> None:
    found = row(ether() / ip4(proto=proto) / Raw(inside))
    assert (found["reason"], found["proto"], found["kind"]) == (Reason.OK, proto, Kind.IPV4)


def test_teredo_with_a_trailer_needs_an_address_of_teredos() -> None:
    def datagram(src: str) -> Any:
        return (
            ether()
            / ip4()
            / UDP(dport=3544)
            / IPv6(src=src, dst="2001:db8::2", plen=20)
            / tcp(0)
            / Raw(b"\1\2\3\4")
        )

    assert row(datagram("2001:0:1::1"))["reason"] == Reason.TUNNEL_TEREDO
    assert row(datagram("2001:db8::1"))["reason"] == Reason.OK


def test_teredos_peers_are_known_by_their_addresses_on_any_port() -> None:
    def datagram(src: str) -> Any:
        return ether() / ip4() / UDP(sport=3797, dport=32900) / IPv6(src=src, dst="2001:db8::2") / tcp()

    assert row(datagram("2001:0:1::1"))["reason"] == Reason.TUNNEL_TEREDO
    assert row(datagram("2001:0:1::1"), config=ALL)["kind"] == Kind.IPV6 | KIND_TRANSPORT | KIND_INNER
    assert row(datagram("2001:1::1"))["reason"] == Reason.OK
    assert row(bytes(datagram("2001:0:1::1"))[:-1])["reason"] == Reason.IP_LENGTH


def test_a_bubble_of_teredo_is_one() -> None:
    bubble = ether() / ip4() / UDP(dport=3544) / ip6(nh=59, plen=0)
    assert row(bubble)["reason"] == Reason.TUNNEL_TEREDO
    found = row(bubble, config=ALL)
    assert (found["kind"], found["proto"], found["reason"]) == (Kind.IPV6 | KIND_INNER, 59, Reason.OK)


def test_a_tunnel_in_an_opened_one_is_counted() -> None:
    frame = ether() / IP() / UDP(dport=4789) / VXLAN(vni=3) / ether() / ip4() / GRE() / ip6() / tcp()
    assert row(frame)["reason"] == Reason.TUNNEL_VXLAN
    found = row(frame, config=DecodeConfig(tunnels=("vxlan",)))
    assert found.items() >= {"reason": Reason.TUNNEL_GRE, "proto": 47, "kind": Kind.IPV4 | KIND_INNER}.items()


def test_every_tunnel_has_a_reason_of_its_name() -> None:
    assert set(TUNNELS_NAMED) == set(EVERY_TUNNEL)
    unread = {f"tunnel_{name}": k for k, name in enumerate(EVERY_TUNNEL)}
    others = {"tunnel_depth": 5, "ip_length": 6}
    assert unopened_tunnels(unread | others) == dict(zip(EVERY_TUNNEL[1:], range(1, len(EVERY_TUNNEL))))
