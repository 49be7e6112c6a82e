"""Headers that a capture adds: NFLOG, PFLOG, PKTAP, and Linux's "any" device over radios."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.l2 import ARP

from engine.headers.link import first_layer
from engine.headers.link_types import NAMES, link_type_name
from engine.types import Kind, Reason
from tests.support.decoding import DST_MAC, SRC_MAC, TCP4, TCP6, ether, ip4, ip6, row, tcp
from tests.support.link_headers import SNAP4, nflog, pflog, pktap, radiotap, tlv, wifi

NFLOG, PFLOG, PKTAP, USER2 = 239, 117, 258, 149
I4, I6 = bytes(ip4() / tcp()), bytes(ip6() / tcp())
HARDWARE = struct.pack(">HH8s", 6, 0, b"\2\0\0\0\0\1\0\0")  # NFULA_HWADDR
HEADER = bytes(ether(type=0x0800))

READ = {
    "nflog, little endian": (NFLOG, nflog(I4), TCP4),
    "nflog, big endian": (NFLOG, nflog(I4, order=">"), TCP4),
    "nflog, IPv6": (NFLOG, nflog(I6, 10, what=0x86DD), TCP6),
    "nflog, IPv6, big endian": (NFLOG, nflog(I6, 10, ">", what=0x86DD), TCP6),
    "nflog with a padded prefix": (NFLOG, nflog(I4, before=tlv(10, b"drop\0")), TCP4),
    "nflog with a prefix, big endian": (NFLOG, nflog(I4, order=">", before=tlv(10, b"dropped\0\0", ">")), TCP4),
    "nflog with its sender": (NFLOG, nflog(I4, before=tlv(8, HARDWARE)), TCP4 | {"src_mac": SRC_MAC}),
    "nflog with a link header": (
        NFLOG, nflog(I4, before=tlv(15, b"\0\1") + tlv(17, b"\0\x0e") + tlv(16, HEADER)),
        TCP4 | {"src_mac": SRC_MAC, "dst_mac": DST_MAC},
    ),
    "nflog of a bridge": (NFLOG, nflog(I4, 7), TCP4 | {"ethertype": 0x0800}),
    "nflog with nested attributes first": (
        NFLOG, struct.pack(">BBH", 2, 0, 5) + tlv(0x8014, tlv(1, b"\x81\0")) + tlv(9, I4), TCP4,
    ),
    "pflog of OpenBSD, once": (PFLOG, pflog(I4, 61), TCP4),
    "pflog of OpenBSD": (PFLOG, pflog(I4, 100), TCP4),
    "pflog of FreeBSD": (PFLOG, pflog(I4, 64), TCP4),
    "pflog of FreeBSD 14": (PFLOG, pflog(I4, 72), TCP4),
    "pflog, IPv6 on OpenBSD": (PFLOG, pflog(I6, 100, 24), TCP6),
    "pflog, IPv6 on FreeBSD": (PFLOG, pflog(I6, 61, 28), TCP6),
    "pflog of a packet whose family is rewritten": (PFLOG, pflog(I6, 100, 2), TCP6),
    "pktap, ethernet": (PKTAP, pktap(HEADER + I4), TCP4 | {"src_mac": SRC_MAC, "ethertype": 0x0800}),
    "pktap, raw": (PKTAP, pktap(I6, 12), TCP6),
    "pktap, loopback": (PKTAP, pktap(b"\2\0\0\0" + I4, 0), TCP4),
    "pktap, a longer header": (PKTAP, pktap(I4, 12, length=156), TCP4),
    "pktap, big endian": (PKTAP, pktap(HEADER + I4, order=">"), TCP4),
    "pktap, a radio": (PKTAP, pktap(radiotap(wifi(SNAP4 + I4)), 127), TCP4 | {"dst_mac": DST_MAC}),
    "pktap under Apple's number": (USER2, pktap(HEADER + I4), TCP4),
    "the any device, radiotap": (
        113, struct.pack(">HHH8sH", 0, 803, 0, b"", 0x19) + radiotap(wifi(SNAP4 + I4)), TCP4,
    ),
    "the any device, 802.11": (113, struct.pack(">HHH8sH", 0, 801, 0, b"", 0x19) + wifi(SNAP4 + I4), TCP4),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_packet_behind_the_header_is_read(name: str) -> None:
    link_type, frame, want = READ[name]
    assert row(frame, link_type).items() >= (want | {"size": len(frame)}).items()


def test_a_packet_that_nflog_cut_is_read_as_far_as_it_is_there() -> None:
    found = row(nflog(bytes(ip4() / tcp(1000))[:60]), NFLOG)
    want = {"reason": Reason.IP_LENGTH, "ip_size": 1040, "payload": 1000, "tcp_flags": 0x18}
    assert found.items() >= want.items()


def test_bytes_behind_nflogs_payload_are_not_the_packets() -> None:
    found = row(nflog(I4[:52] + b"") + b"\xff" * 40, NFLOG)  # the payload attribute ends there
    assert found.items() >= (TCP4 | {"payload": 11, "reason": Reason.OK}).items()
    cut = row(nflog(I4[:30]) + b"\xff" * 40, NFLOG)  # 10 bytes of TCP: what follows is no part of it
    assert (cut["reason"], cut["seq"], cut["tcp_flags"]) == (Reason.IP_LENGTH, 0, 0)


def test_arp_of_a_bridge_is_read_from_nflog() -> None:
    arp = bytes(ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2"))
    found = row(nflog(arp, 7, what=0x0806), NFLOG)
    assert (found["kind"], found["sport"], found["reason"]) == (Kind.ARP, 2, Reason.OK)


CUT = {
    "nflog without a header": (NFLOG, nflog(I4)[:7], Reason.LINK_TRUNCATED),
    "nflog of another version": (NFLOG, b"\2\1" + nflog(I4)[2:], Reason.ENCAPSULATION),
    "nflog with an attribute of no length": (
        NFLOG, b"\2\0\0\0" + struct.pack("<HH", 0, 1) + b"\0" * 40, Reason.ENCAPSULATION,
    ),
    "nflog with an attribute beyond the end": (
        NFLOG, b"\2\0\0\0" + struct.pack("<HH", 90, 9) + b"\0" * 40, Reason.ENCAPSULATION,
    ),
    "nflog without a payload": (NFLOG, b"\2\0\0\0" + tlv(10, b"log\0"), Reason.LINK_PROTOCOL),
    "nflog of another family": (NFLOG, nflog(I4, 12, what=0), Reason.LINK_PROTOCOL),
    "nflog with a type of 0": (NFLOG, b"\2\0\0\0" + b"\0" * 40, Reason.ENCAPSULATION),
    "pflog, one byte": (PFLOG, b"\x3d", Reason.LINK_TRUNCATED),
    "pflog, too short a length": (PFLOG, b"\x20\2" + b"\0" * 60 + I4, Reason.ENCAPSULATION),
    "pflog, beyond the end": (PFLOG, b"\xff\2" + b"\0" * 60 + I4, Reason.LINK_TRUNCATED),
    "pflog, another family": (PFLOG, pflog(I4, 61, 18), Reason.LINK_PROTOCOL),
    "pktap, truncated": (PKTAP, pktap(I4, 12)[:11], Reason.LINK_TRUNCATED),
    "pktap, beyond the end": (PKTAP, pktap(I4, 12)[:100], Reason.ENCAPSULATION),
    "pktap, short": (PKTAP, struct.pack("<III", 40, 1, 1) + b"\0" * 200, Reason.ENCAPSULATION),
    "pktap without a packet": (PKTAP, pktap(I4, 12, kind=0), Reason.LINK_PROTOCOL),
    "pktap of a link type without a decoder": (PKTAP, pktap(I4, 189), Reason.LINK_TYPE),
    "pktap of a link type that is none": (PKTAP, pktap(I4, 0x10001), Reason.LINK_TYPE),
    "a private number": (USER2, b"\0" * 200, Reason.LINK_TYPE),
    "a private number, almost pktap": (USER2, pktap(I4, 189), Reason.LINK_TYPE),
    "a private number, short": (USER2, pktap(I4, 12)[:40], Reason.LINK_TYPE),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_a_broken_header_gives_a_reason_and_no_packet(name: str) -> None:
    link_type, frame, reason = CUT[name]
    found = row(frame, link_type)
    assert (found["reason"], found["kind"], found["src_lo"]) == (reason, Kind.UNREAD, 0)


def test_a_header_cut_by_the_snaplen_is_truncated() -> None:
    for link_type, frame, cut in (
        (NFLOG, nflog(I4), 12),
        (PKTAP, pktap(I4, 12), 100),
        (PFLOG, pflog(I4), 50),
    ):
        assert row(frame[:cut], link_type, wire=len(frame))["reason"] == Reason.LINK_TRUNCATED


def test_wrappers_in_wrappers_end_at_the_limit() -> None:
    frame = I4
    for _ in range(20):
        frame = pktap(frame, 258 if frame is not I4 else 12)
    assert row(frame, PKTAP)["reason"] == Reason.TUNNEL_DEPTH


def test_link_types_have_the_registrys_names() -> None:
    assert link_type_name(147) == "147 (USER0)"
    assert link_type_name(239) == "239 (NFLOG)"
    assert link_type_name(0xFFFF) == "65535"
    assert len(NAMES) > 200
    assert len(NAMES) - len(set(NAMES.values())) == 2  # RAW has two numbers of old systems beside its own


def test_every_link_type_that_is_decoded_has_a_name() -> None:
    unknown = first_layer(0xFFFF)
    read = [number for number in range(0x10000) if first_layer(number) != unknown]
    assert set(read) <= set(NAMES)
    assert set(read) >= {0, 1, 9, 101, 105, 108, 113, 117, 119, 127, 163, 192, 239, 258, 276}
