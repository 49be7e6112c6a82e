from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.contrib.macsec import MACsec
from scapy.contrib.mpls import EoMCW
from scapy.layers.eap import MACsecSCI
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, LLC, SNAP, CookedLinux, Dot1AD, Dot1AH, Dot1Q, Dot3
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from engine.headers.decode import decode
from engine.types import (
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_TRANSPORT,
    PACKET_DTYPES,
    Kind,
    Packets,
    Reason,
)
from tests.support.decoding import (
    DST_MAC,
    MPLS4,
    SRC_MAC,
    TCP4,
    TCP6,
    V4_DST,
    V4_SRC,
    block,
    ether,
    ip4,
    ip6,
    row,
    tcp,
)


def test_a_tcp_segment_over_ipv4_fills_every_column() -> None:
    frame = bytes(ether() / ip4() / tcp())
    link = {"ts": 1_700_000_000_000_000_000, "src_mac": SRC_MAC, "dst_mac": DST_MAC, "size": len(frame)}
    checksum = int.from_bytes(frame[50:52], "big")
    assert checksum
    assert row(frame) == TCP4 | link | {"probe": 0, "vlan": 0, "ethertype": 0x0800, "checksum": checksum}


CHECKSUMS: dict[str, tuple[Packet, int]] = {
    "TCP": (ether() / ip4() / TCP(chksum=0x1234), 0x1234), "UDP": (ether() / ip4() / UDP(chksum=0x2345), 0x2345),
    "UDP without one": (ether() / ip4() / UDP(chksum=0), 0), "UDP over IPv6": (ether() / ip6() / UDP(chksum=7), 7),
    "ICMP": (ether() / ip4() / ICMP(chksum=0x3456), 0x3456), "SCTP has a longer one": (ether() / ip4() / SCTP(), 0),
    "a later fragment": (ether() / ip4(frag=185, proto=17) / Raw(b"x" * 40), 185),
    "the last fragment": (ether() / ip4(frag=370, proto=6) / Raw(b"x" * 40), 370),
    "a later fragment of IPv6": (ether() / ip6() / IPv6ExtHdrFragment(offset=9, m=1, nh=17) / Raw(b"x" * 40), 9),
    "ARP": (ether() / ARP(), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKSUMS)
def test_checksums_are_kept_and_the_offsets_of_fragments(name: str) -> None:
    frame, checksum = CHECKSUMS[name]
    assert row(frame)["checksum"] == checksum


def test_a_tcp_segment_over_ipv6_fills_every_column() -> None:
    assert row(ether() / ip6() / tcp()).items() >= TCP6.items()


def test_columns_have_the_declared_types_and_are_read_only() -> None:
    p = decode(block([bytes(ether() / ip4() / tcp())] * 3))
    assert isinstance(p, Packets)
    assert {name: column.dtype for name, column in p._asdict().items()} == PACKET_DTYPES
    assert all(column.size == 3 and not column.flags.writeable for column in p)
    assert p.probe.tolist() == [0, 0, 0]
    assert decode(block([])).ts.size == 0


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
