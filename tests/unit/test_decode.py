from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III
from scapy.contrib.geneve import GENEVE
from scapy.contrib.macsec import MACsec
from scapy.contrib.mpls import MPLS, EoMCW
from scapy.layers.eap import MACsecSCI
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, CookedLinux, Dot1AD, Dot1AH, Dot1Q, Dot3, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from connectors.frames import FrameBlock
from engine.decode import DecodeConfig, decode
from engine.types import (
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_INNER,
    KIND_TRANSPORT,
    PACKET_DTYPES,
    Kind,
    Packets,
    Reason,
)

EVERY_TUNNEL = ("gre", "ipip", "6in4", "vxlan", "gtp", "geneve")
ALL = DecodeConfig(tunnels=EVERY_TUNNEL)
SRC_MAC, DST_MAC = 0x020000000001, 0x020000000002
V4_SRC, V4_DST = 0xFFFF_0A00_0001, 0xFFFF_0A00_0002
V6_HIGH, V6_SRC, V6_DST = 0x2001_0DB8_0000_0000, 1, 2


def block(frames: list[bytes], wire: list[int] | None = None, link_type: int = 1) -> FrameBlock:
    sizes = [len(frame) for frame in frames]
    return FrameBlock(
        np.frombuffer(b"".join(frames), np.uint8),
        np.cumsum([0, *sizes])[:-1].astype(np.int64),
        np.array(sizes, np.uint32),
        np.array(wire or sizes, np.uint32),
        np.arange(len(frames), dtype=np.int64) + 1_700_000_000_000_000_000,
        np.full(len(frames), link_type, np.uint16),
    )


def row(
    frame: bytes | Packet, link_type: int = 1, config: DecodeConfig | None = None, wire: int = 0
) -> dict[str, Any]:
    """The columns of a single frame, as Python integers; kind and reason as their enumerations."""
    raw = bytes(frame)
    p = decode(block([raw], [wire] if wire else None, link_type), config or DecodeConfig())
    found: dict[str, Any] = {name: int(column[0]) for name, column in p._asdict().items()}
    return found | {"reason": Reason(found["reason"])}


def ether(**fields: Any) -> Packet:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def ip4(**fields: Any) -> Packet:
    return IP(src="10.0.0.1", dst="10.0.0.2", ttl=61, id=77, **fields)


def ip6(**fields: Any) -> Packet:
    return IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=62, **fields)


def tcp(size: int = 11) -> Packet:
    return TCP(sport=1234, dport=80, seq=111, ack=222, flags="PA", window=333) / Raw(b"x" * size)


TCP4 = {
    "src_hi": 0, "src_lo": V4_SRC, "dst_hi": 0, "dst_lo": V4_DST, "sport": 1234, "dport": 80, "proto": 6,
    "ttl": 61, "ip_id": 77, "tcp_flags": 0x18, "kind": Kind.IPV4 | KIND_TRANSPORT, "reason": Reason.OK,
    "ip_size": 51, "payload": 11, "seq": 111, "ack": 222, "window": 333,
}  # fmt: skip
TCP6 = TCP4 | {
    "src_hi": V6_HIGH, "src_lo": V6_SRC, "dst_hi": V6_HIGH, "dst_lo": V6_DST, "ttl": 62, "ip_id": 0,
    "kind": Kind.IPV6 | KIND_TRANSPORT, "ip_size": 71,
}  # fmt: skip


def test_a_tcp_segment_over_ipv4_fills_every_column() -> None:
    frame = bytes(ether() / ip4() / tcp())
    link = {"ts": 1_700_000_000_000_000_000, "src_mac": SRC_MAC, "dst_mac": DST_MAC, "size": len(frame)}
    assert row(frame) == TCP4 | link | {"probe": 0}


def test_a_tcp_segment_over_ipv6_fills_every_column() -> None:
    assert row(ether() / ip6() / tcp()).items() >= TCP6.items()


def test_columns_have_the_declared_types_and_are_read_only() -> None:
    p = decode(block([bytes(ether() / ip4() / tcp())] * 3), probe=9)
    assert isinstance(p, Packets)
    assert {name: column.dtype for name, column in p._asdict().items()} == PACKET_DTYPES
    assert all(column.size == 3 and not column.flags.writeable for column in p)
    assert p.probe.tolist() == [9, 9, 9]
    assert decode(block([b"", b""]), probe=np.array([1, 2], np.uint32)).probe.tolist() == [1, 2]
    assert decode(block([])).ts.size == 0


MPLS4 = MPLS(label=16, s=0) / MPLS(label=17, s=1)
LINKS: dict[str, tuple[int, Any]] = {
    "vlan": (1, ether() / Dot1Q(vlan=5) / ip4() / tcp()),
    "qinq": (1, ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip4() / tcp()),
    "old qinq": (1, ether(type=0x9100) / Dot1Q(vlan=5, type=0x0800) / ip4() / tcp()),
    "mac in mac": (1, ether() / Dot1AH() / ether() / ip4() / tcp()),
    "vn-tag": (1, bytes(ether(type=0x8926)) + b"\0\0\0\0\x08\0" + bytes(ip4() / tcp())),
    "e-tag": (1, bytes(ether(type=0x893F)) + b"\0" * 6 + b"\x08\0" + bytes(ip4() / tcp())),
    "fabricpath": (1, bytes(ether(type=0x8903)) + b"\0\0" + bytes(ether() / ip4() / tcp())),
    "macsec": (1, ether() / MACsec(E=0, C=0, SC=1, SCI=MACsecSCI(), AN=0, type=0x0800) / ip4() / tcp()),
    "nsh": (1, bytes(ether(type=0x894F)) + b"\x0f\xc6\x01\x01" + b"\0" * 20 + bytes(ip4() / tcp())),
    "nsh with a frame": (
        1,
        bytes(ether(type=0x894F)) + b"\x0f\xc2\x02\x03" + b"\0" * 4 + bytes(ether() / ip4() / tcp()),
    ),
    "mpls": (1, ether(type=0x8847) / MPLS4 / ip4() / tcp()),
    "mpls pseudowire": (1, ether(type=0x8847) / MPLS4 / EoMCW() / ether() / ip4() / tcp()),
    "pppoe": (1, ether(type=0x8864) / PPPoE(sessionid=3) / PPP(proto=0x0021) / ip4() / tcp()),
    "802.3 with snap": (
        1,
        Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / LLC() / SNAP() / ip4() / tcp(),
    ),
    "802.3 with llc": (
        1,
        bytes(Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", len=54))
        + b"\6\6\3"
        + bytes(ip4() / tcp()),
    ),
    "raw 12": (12, ip4() / tcp()),
    "raw 14": (14, ip4() / tcp()),
    "raw 101": (101, ip4() / tcp()),
    "raw 228": (228, ip4() / tcp()),
    "null little": (0, b"\2\0\0\0" + bytes(ip4() / tcp())),
    "null big": (0, b"\0\0\0\2" + bytes(ip4() / tcp())),
    "loop": (108, b"\0\0\0\2" + bytes(ip4() / tcp())),
    "sll": (113, CookedLinux(src=b"\2\0\0\0\0\1\0\0", lladdrlen=6) / ip4() / tcp()),
    "sll2": (276, b"\x08\0\0\0\0\0\0\2\0\1\0\6\2\0\0\0\0\1\0\0" + bytes(ip4() / tcp())),
    "ppp": (9, PPP(proto=0x0021) / ip4() / tcp()),
    "ppp with hdlc": (9, HDLC() / PPP(proto=0x0021) / ip4() / tcp()),
    "ppp with a short protocol": (50, b"\xff\x03\x21" + bytes(ip4() / tcp())),
    "ppp that is chdlc": (50, b"\x0f\0\x08\0" + bytes(ip4() / tcp())),
    "ppp with mpls": (9, b"\xff\x03\x02\x81" + bytes(MPLS4 / ip4() / tcp())),
    "pppoe as a link": (51, PPPoE(sessionid=3) / PPP(proto=0x0021) / ip4() / tcp()),
    "chdlc": (104, b"\x0f\0\x08\0" + bytes(ip4() / tcp())),
}


@pytest.mark.parametrize("name", LINKS)
def test_every_link_header_leads_to_the_same_packet(name: str) -> None:
    link_type, frame = LINKS[name]
    found = row(bytes(frame), link_type)
    macs = (found["src_mac"], found["dst_mac"])
    assert found.items() >= TCP4.items()
    if link_type == 1:
        assert macs == (SRC_MAC, DST_MAC)
    else:
        assert macs == (SRC_MAC if name.startswith("sll") else 0, 0)


@pytest.mark.parametrize(
    ("link_type", "head"),
    [(229, b""), (101, b""), (9, b"\0\x57"), (104, b"\x0f\0\x86\xdd")]
    + [(0, struct.pack(order + "I", family)) for order in "<>" for family in (10, 24, 28, 30)],
)
def test_ipv6_is_found_behind_links_that_name_it_their_own_way(link_type: int, head: bytes) -> None:
    assert row(head + bytes(ip6() / tcp()), link_type).items() >= TCP6.items()


def test_ipv6_is_found_behind_mpls_and_pppoe() -> None:
    for between in (ether(type=0x8847) / MPLS4, ether(type=0x8864) / PPPoE() / PPP(proto=0x0057)):
        assert row(between / ip6() / tcp()).items() >= TCP6.items()


def test_arp_and_rarp_show_protocol_addresses() -> None:
    for kind in (0x0806, 0x8035):
        found = row(ether(type=kind) / ARP(psrc="10.0.0.1", pdst="10.0.0.2"))
        assert (found["kind"], found["reason"]) == (Kind.ARP, Reason.OK)
        assert (found["src_lo"], found["dst_lo"], found["proto"]) == (V4_SRC, V4_DST, 0)


def test_arp_for_another_protocol_has_no_addresses() -> None:
    found = row(bytes(ether(type=0x0806)) + b"\0\1\x86\xdd\6\x10\0\1" + b"x" * 44)
    assert (found["kind"], found["reason"], found["src_lo"]) == (Kind.ARP, Reason.OK, 0)


@pytest.mark.parametrize(
    ("transport", "proto", "sport", "dport", "payload"),
    [
        (UDP(sport=53, dport=5353) / Raw(b"12345"), 17, 53, 5353, 5),
        (ICMP(type=8, code=3) / Raw(b"12345"), 1, 8, 3, 5),
        (SCTP(sport=7, dport=9) / Raw(b"12345"), 132, 7, 9, 5),
        (Raw(struct.pack(">HHHH", 7, 9, 8, 0) + b"12345"), 136, 7, 9, 5),
        (Raw(struct.pack(">HHBBHI", 7, 9, 4, 0, 0, 0) + b"1234"), 33, 7, 9, 4),
    ],
)
def test_transport_protocols_with_ports_show_them(
    transport: Packet, proto: int, sport: int, dport: int, payload: int
) -> None:
    found = row(ether() / ip4(proto=proto) / transport)
    assert (found["proto"], found["sport"], found["dport"], found["payload"]) == (
        proto,
        sport,
        dport,
        payload,
    )
    assert (found["kind"], found["reason"]) == (Kind.IPV4 | KIND_TRANSPORT, Reason.OK)


def test_icmpv6_shows_type_and_code() -> None:
    found = row(ether() / ip6() / ICMPv6EchoRequest(data=b"abc"))
    assert (found["proto"], found["sport"], found["dport"], found["payload"]) == (58, 128, 0, 3)


def test_another_protocol_is_all_payload_and_has_no_ports() -> None:
    found = row(ether() / ip4(proto=89) / Raw(b"x" * 30))
    assert (found["proto"], found["sport"], found["dport"], found["payload"]) == (89, 0, 0, 30)
    assert (found["kind"], found["reason"]) == (Kind.IPV4, Reason.OK)


def test_padding_of_a_short_frame_is_no_payload() -> None:
    frame = bytes(ether() / ip4() / tcp(0)) + b"\xaa" * 6
    assert row(frame).items() >= (TCP4 | {"payload": 0, "ip_size": 40, "size": 60}).items()
    short = bytearray(bytes(ether() / ip4(len=30) / tcp(0)) + b"\xaa" * 6)  # TCP cut by the IP length
    found = row(bytes(short))
    assert (found["reason"], found["sport"], found["payload"]) == (Reason.TRANSPORT_TRUNCATED, 1234, 0)


def test_ip_and_tcp_options_are_stepped_over() -> None:
    options = [IPOption_NOP()] * 8
    segment = TCP(
        sport=1234, dport=80, seq=111, ack=222, flags="PA", window=333, options=[("NOP", 0)] * 12
    ) / Raw(b"x" * 11)
    assert row(ether() / ip4(options=options) / segment).items() >= (TCP4 | {"ip_size": 71}).items()


def test_bad_checksums_do_not_matter() -> None:
    frame = ether() / ip4(chksum=1) / TCP(sport=1234, dport=80, chksum=1)
    assert row(frame)["reason"] == Reason.OK


def test_a_total_length_of_zero_means_the_rest_of_the_frame() -> None:
    frame = bytes(ether() / ip4(len=0) / tcp(3000))
    assert row(frame).items() >= (TCP4 | {"payload": 3000, "ip_size": 3040}).items()
    frame = bytes(ether() / ip6(plen=0) / tcp(3000))
    assert row(frame).items() >= (TCP6 | {"payload": 3000, "ip_size": 3060}).items()


def test_an_empty_ipv6_packet_does_not_take_padding_for_payload() -> None:
    found = row(bytes(ether() / ip6(nh=59, plen=0)) + b"\0" * 6)
    assert (found["ip_size"], found["payload"], found["reason"]) == (40, 0, Reason.OK)


def test_a_snaplen_behind_the_headers_changes_nothing() -> None:
    frame = bytes(ether() / ip4() / tcp(1000))
    want = TCP4 | {"payload": 1000, "ip_size": 1040, "size": len(frame)}
    assert row(frame[:54], wire=len(frame)).items() >= want.items()


def test_tcp_options_need_not_be_captured() -> None:
    frame = bytes(ether() / ip4() / TCP(sport=1234, dport=80, options=[("NOP", 0)] * 12) / Raw(b"12345"))
    found = row(frame[:54], wire=len(frame))
    assert (found["reason"], found["payload"]) == (Reason.OK, 5)


def test_fragments_are_marked_and_only_the_first_has_ports() -> None:
    first = row(ether() / ip4(flags="MF") / UDP(sport=5, dport=6, len=2000) / Raw(b"x" * 100))
    assert first["kind"] == Kind.IPV4 | KIND_TRANSPORT | KIND_FIRST_FRAGMENT
    assert (first["sport"], first["dport"], first["payload"], first["reason"]) == (5, 6, 100, Reason.OK)
    for offset, flags in ((1, 0), (185, "MF"), (0x1FFF, 0)):
        later = row(ether() / ip4(frag=offset, flags=flags, proto=17) / Raw(b"x" * 100))
        assert later["kind"] == Kind.IPV4 | KIND_FRAGMENT
        assert (later["proto"], later["sport"], later["payload"], later["reason"]) == (17, 0, 100, Reason.OK)


def test_ipv6_fragments_are_marked_and_carry_their_identification() -> None:
    first = row(
        ether() / ip6() / IPv6ExtHdrFragment(id=0x12345, m=1, nh=17) / UDP(sport=5, dport=6) / Raw(b"x")
    )
    assert first["kind"] == Kind.IPV6 | KIND_TRANSPORT | KIND_FIRST_FRAGMENT
    assert (first["ip_id"], first["sport"], first["proto"]) == (0x2345, 5, 17)
    later = row(ether() / ip6() / IPv6ExtHdrFragment(id=1, offset=9, nh=60) / Raw(b"x" * 9))
    assert (later["kind"], later["proto"], later["payload"]) == (Kind.IPV6 | KIND_FRAGMENT, 60, 9)
    atomic = row(ether() / ip6() / IPv6ExtHdrFragment(id=1) / tcp())
    assert atomic.items() >= (TCP6 | {"ip_id": 1, "ip_size": 79}).items()


def test_ipv6_extension_headers_are_stepped_over() -> None:
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["::1"])
    chain /= AH(nh=6, icv=b"\0" * 12, payloadlen=4)
    found = row(ether() / ip6() / chain / tcp())
    assert found.items() >= (TCP6 | {"ip_size": found["ip_size"]}).items()


def test_an_authenticated_ipv4_packet_shows_what_it_carries() -> None:
    found = row(ether() / ip4() / AH(nh=6, icv=b"\0" * 12, payloadlen=4) / tcp())
    assert found.items() >= (TCP4 | {"ip_size": 75}).items()


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
    for config in (DecodeConfig(), DecodeConfig(tunnels=others)):
        outer = row(frame, config=config)
        assert outer["proto"] == {"gre": 47, "ipip": 4, "6in4": 41}.get(tunnel, 17)
        assert not outer["kind"] & KIND_INNER
        assert (outer["src_mac"], outer["reason"]) == (0x060000000009, Reason.OK)


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
        (E + I4, 50, Reason.TRANSPORT_TRUNCATED),
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
        ({"tunnels": ("teredo",)}, r"tunnels \['teredo'\] must be among"),
        ({"vxlan_port": 0}, "vxlan_port 0 must be in 1..65535"),
        ({"max_depth": 0}, "max_depth 0 must be in 1..64"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DecodeConfig(**fields)
