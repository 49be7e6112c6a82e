"""802.11 data frames behind every radio header."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.l2 import ARP

from engine.headers.decode import decode
from engine.types import KIND_FRAGMENT, KIND_INNER, KIND_MASK, Kind, Reason
from tests.support.decoding import DST_MAC, SRC_MAC, TCP4, TCP6, block, ip4, ip6, row, tcp
from tests.support.link_headers import (
    AP,
    OTHER,
    SNAP4,
    SNAP6,
    STATION,
    avs,
    ppi,
    prism,
    radiotap,
    subframe,
    wifi,
)

BARE, PRISM, RADIOTAP, AVS, PPI = 105, 119, 127, 163, 192
I4, I6 = bytes(ip4() / tcp()), bytes(ip6() / tcp())
DATA = wifi(SNAP4 + I4)
FCS = b"\xde\xad\xbe\xef"
SEEN = {"src_mac": SRC_MAC, "dst_mac": DST_MAC, "ethertype": 0x0800, "vlan": 0}

READ: dict[str, tuple[int, bytes, dict[str, Any]]] = {
    "to the distribution system": (BARE, DATA, TCP4),
    "from it": (BARE, wifi(SNAP4 + I4, ds=2), TCP4),
    "between stations": (BARE, wifi(SNAP4 + I4, ds=0), TCP4),
    "four addresses": (BARE, wifi(SNAP4 + I4, ds=3), TCP4),
    "qos": (BARE, wifi(SNAP4 + I4, subtype=8, qos=b"\5\0"), TCP4),
    "qos, four addresses": (BARE, wifi(SNAP4 + I4, ds=3, subtype=8, qos=b"\0\0"), TCP4),
    "qos, HT control": (BARE, wifi(SNAP4 + I4, subtype=8, flags=0x80, qos=b"\0\0\1\2\3\4"), TCP4),
    "order without qos": (BARE, wifi(SNAP4 + I4, flags=0x80), TCP4),
    "data with an acknowledgement": (BARE, wifi(SNAP4 + I4, subtype=1), TCP4),
    "a repetition": (BARE, wifi(SNAP4 + I4, flags=0x08, sequence=0x1230), TCP4),
    "IPv6": (BARE, wifi(SNAP6 + I6, ds=2), TCP6 | {"ethertype": 0x86DD}),
    "with a check sequence": (BARE, DATA + FCS, TCP4),
    "one packet in an A-MSDU": (BARE, wifi(subframe(SNAP4 + I4), subtype=8, qos=b"\x80\0"), TCP4),
    "decrypted by the driver": (BARE, wifi(SNAP4 + I4, flags=0x40), TCP4),
    "decrypted, its vector left": (BARE, wifi(b"\1\0\0\x20\0\0\0\0" + SNAP4 + I4 + bytes(8), flags=0x40), TCP4),
    "radiotap": (RADIOTAP, radiotap(DATA), TCP4),
    "radiotap, flags": (RADIOTAP, radiotap(DATA, 0), TCP4),
    "radiotap, a check sequence": (RADIOTAP, radiotap(DATA + FCS, 0x10), TCP4),
    "radiotap, time before the flags": (RADIOTAP, radiotap(DATA + FCS, 0x10, time=True), TCP4),
    "radiotap, three words of bits": (RADIOTAP, radiotap(DATA + FCS, 0x10, time=True, words=3), TCP4),
    "radiotap, two words, time": (
        RADIOTAP, radiotap(wifi(SNAP4 + I4, subtype=8, qos=b"\0\0", pad=True), 0x20, time=True, words=2), TCP4,
    ),
    "radiotap, padded": (
        RADIOTAP, radiotap(wifi(SNAP4 + I4, ds=2, subtype=8, qos=b"\0\0", pad=True) + FCS, 0x30), TCP4,
    ),
    "radiotap, padded, four addresses": (RADIOTAP, radiotap(wifi(SNAP4 + I4, ds=3, pad=True), 0x20), TCP4),
    "ppi": (PPI, ppi(DATA), TCP4),
    "ppi, flags": (PPI, ppi(DATA + FCS, flags=1), TCP4),
    "ppi, raw IP": (PPI, ppi(I4, 12), TCP4 | {"src_mac": 0, "dst_mac": 0, "ethertype": 0}),
    "avs": (AVS, avs(DATA), TCP4),
    "prism, little endian": (PRISM, prism(DATA), TCP4),
    "prism, big endian": (PRISM, prism(DATA, ">"), TCP4),
    "avs under prism's number": (PRISM, avs(DATA), TCP4),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_packet_in_a_data_frame_is_read(name: str) -> None:
    link_type, frame, want = READ[name]
    assert row(frame, link_type).items() >= (SEEN | want | {"size": len(frame)}).items()


def test_padding_is_known_only_from_radiotap() -> None:
    padded = wifi(SNAP4 + I4, subtype=8, qos=b"\0\0", pad=True)
    p = decode(block([radiotap(padded, 0x20), radiotap(padded, 0), radiotap(padded)], link_type=RADIOTAP))
    assert (p.kind & KIND_MASK).tolist() == [Kind.IPV4, Kind.LINK, Kind.LINK]


def test_the_check_sequence_is_no_payload_of_a_packet_that_fills_its_frame() -> None:
    unsized = I4[:2] + b"\0\0" + I4[4:]  # a total length of 0: that of the frame is taken
    assert row(radiotap(wifi(SNAP4 + unsized) + FCS, 0x10), RADIOTAP)["payload"] == 11
    assert row(radiotap(wifi(SNAP4 + unsized) + FCS, 0), RADIOTAP)["payload"] == 15
    assert row(ppi(wifi(SNAP4 + unsized) + FCS, flags=1), PPI)["payload"] == 11


ARRIVED = {"src_mac": SRC_MAC, "dst_mac": DST_MAC, "kind": Kind.LINK}
BEACON = b"\x80\0\0\0" + OTHER + STATION + AP + b"\0\0" + b"\0" * 30
OTHERS: dict[str, tuple[int, bytes, Reason, dict[str, Any]]] = {
    "a beacon": (BARE, BEACON, Reason.LINK_PROTOCOL, ARRIVED),
    "a beacon that sets bits of data frames": (BARE, b"\x80\3" + BEACON[2:], Reason.LINK_PROTOCOL, ARRIVED),
    "no data": (BARE, wifi(b"", subtype=4), Reason.LINK_PROTOCOL, ARRIVED),
    "qos without data": (BARE, wifi(b"", subtype=12, qos=b"\0\0"), Reason.LINK_PROTOCOL, ARRIVED),
    "a key exchange": (
        BARE, wifi(SNAP4[:6] + b"\x88\x8e\1\3"), Reason.LINK_PROTOCOL, ARRIVED | {"ethertype": 0x888E},
    ),
    "an acknowledgement": (BARE, b"\xd4\0\0\0" + OTHER, Reason.LINK_PROTOCOL, {"kind": 0}),
    "a reserved type": (BARE, b"\x0c\0" + DATA[2:], Reason.LINK_PROTOCOL, {"kind": 0}),
    "encrypted": (BARE, wifi(b"\x11" * 80, flags=0x40), Reason.ENCRYPTED, ARRIVED),
    "encrypted, qos": (BARE, wifi(b"\x11" * 80, flags=0x40, subtype=8, qos=b"\0\0"), Reason.ENCRYPTED, ARRIVED),
    "encrypted, nothing left": (BARE, wifi(b"", flags=0x40), Reason.ENCRYPTED, ARRIVED),
    "encrypted, several": (
        BARE, wifi(b"\x11" * 80, flags=0x40, subtype=8, qos=b"\x80\0"), Reason.ENCRYPTED, ARRIVED,
    ),
    "a later fragment": (BARE, wifi(I4, sequence=0x1231), Reason.LINK_PARTIAL, ARRIVED),
    "received damaged": (RADIOTAP, radiotap(DATA + FCS, 0x50), Reason.CORRUPT, {"kind": 0}),
    "received damaged, ppi": (PPI, ppi(DATA + FCS, flags=5), Reason.CORRUPT, {"kind": 0}),
    "another version": (BARE, b"\x09" + DATA[1:], Reason.ENCAPSULATION, {"kind": 0}),
    "no frame control": (BARE, b"\x08", Reason.LINK_TRUNCATED, {"kind": 0}),
    "three addresses cut": (BARE, DATA[:23], Reason.LINK_TRUNCATED, {"kind": 0}),
    "four addresses cut": (BARE, wifi(b"", ds=3)[:29], Reason.LINK_TRUNCATED, {"kind": 0}),
    "qos cut": (BARE, wifi(b"", subtype=8, qos=b"\0"), Reason.LINK_TRUNCATED, ARRIVED),
    "llc cut": (BARE, wifi(SNAP4[:7]), Reason.LINK_TRUNCATED, ARRIVED),
    "a subframe cut": (BARE, wifi(b"\0" * 13, subtype=8, qos=b"\x80\0"), Reason.LINK_TRUNCATED, ARRIVED),
    "a subframe beyond its frame": (
        BARE, wifi(subframe(SNAP4 + I4)[:-1], subtype=8, qos=b"\x80\0"), Reason.ENCAPSULATION, ARRIVED,
    ),
    "radiotap of another version": (RADIOTAP, b"\1" + radiotap(DATA)[1:], Reason.ENCAPSULATION, {"kind": 0}),
    "radiotap, too short a length": (RADIOTAP, b"\0\0\7\0" + bytes(60), Reason.ENCAPSULATION, {"kind": 0}),
    "radiotap beyond the end": (RADIOTAP, b"\0\0\xff\0" + bytes(60), Reason.LINK_TRUNCATED, {"kind": 0}),
    "radiotap, bits without end": (
        RADIOTAP, b"\0\0\x20\0" + b"\xff" * 60, Reason.ENCAPSULATION, {"kind": 0},
    ),
    "radiotap, no room for its flags": (
        RADIOTAP, b"\0\0\x08\0\2\0\0\0" + DATA, Reason.ENCAPSULATION, {"kind": 0},
    ),
    "radiotap alone": (RADIOTAP, radiotap(b"", 0x10), Reason.LINK_TRUNCATED, {"kind": 0}),
    "ppi of another version": (PPI, b"\1" + ppi(DATA)[1:], Reason.ENCAPSULATION, {"kind": 0}),
    "ppi, too short a length": (PPI, b"\0\0\7\0" + bytes(60), Reason.ENCAPSULATION, {"kind": 0}),
    "ppi of a link type without a decoder": (PPI, ppi(DATA, 195), Reason.LINK_TYPE, {"kind": 0}),
    "avs, an absurd length": (AVS, b"\x80\x21\x10\1\xff\xff\xff\xff" + bytes(99), Reason.ENCAPSULATION, {"kind": 0}),
    "prism, no length": (PRISM, bytes(200), Reason.ENCAPSULATION, {"kind": 0}),
    "prism beyond the end": (PRISM, prism(b"")[:140], Reason.LINK_TRUNCATED, {"kind": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_frame_without_a_packet_gives_its_addresses_and_a_reason(name: str) -> None:
    link_type, frame, reason, want = OTHERS[name]
    found = row(frame, link_type)
    assert found["reason"] == reason
    assert found.items() >= want.items()
    assert (found["src_lo"], found["proto"]) == (0, 0)


def test_of_several_packets_in_a_frame_the_first_is_read_and_the_frame_counted() -> None:
    other = SNAP4 + bytes(ip4(tos=9) / tcp(300))
    several = subframe(SNAP4 + I4, last=False) + subframe(other, dst=b"\6" * 6)
    found = row(radiotap(wifi(several, subtype=8, qos=b"\x80\0") + FCS, 0x10), RADIOTAP)
    assert found.items() >= (TCP4 | SEEN | {"reason": Reason.LINK_PARTIAL}).items()


def test_a_packet_in_an_aggregate_ends_where_its_length_says() -> None:
    unsized = I4[:2] + b"\0\0" + I4[4:]
    several = subframe(SNAP4 + unsized, last=False) + subframe(SNAP4 + I4)
    assert row(wifi(several, subtype=8, qos=b"\x80\0"), BARE)["payload"] == 11


def test_a_first_fragment_of_a_frame_is_read_as_far_as_it_goes() -> None:
    found = row(wifi(SNAP4 + bytes(ip4() / tcp(1000))[:200], flags=0x04), BARE)
    assert found.items() >= {"reason": Reason.IP_LENGTH, "payload": 1000, "seq": 111}.items()
    assert not found["kind"] & (KIND_FRAGMENT | KIND_INNER)


def test_arp_in_a_data_frame_is_read() -> None:
    frame = wifi(SNAP4[:6] + b"\x08\x06" + bytes(ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2")))
    found = row(frame, BARE)
    assert (found["kind"], found["sport"], found["src_mac"]) == (Kind.ARP, 2, SRC_MAC)


def test_radiotap_fields_beyond_the_flags_are_stepped_over() -> None:
    head = struct.pack("<BBHI", 0, 0, 25, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3) + bytes(8) + b"\x10\2" + bytes(7)
    assert row(head + DATA + FCS, RADIOTAP).items() >= (TCP4 | SEEN).items()
