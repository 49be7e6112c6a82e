"""Rewritten frames against scapy, which computes their checksums from scratch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from probing.corpus.rewriting import CHECKSUM, Change, rewritten

A, B, OTHER = "10.0.0.10", "10.0.0.1", "10.0.0.99"
NEW_A, NEW_B = "192.168.7.255", "203.0.113.1"
PROTO = {TCP: 6, UDP: 17}
MAC_A, MAC_B, NEW_MAC = "02:77:00:00:00:0a", "02:77:00:00:00:01", "aa:bb:cc:dd:ee:ff"


def octets(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def mac(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


CHANGE = Change(
    {octets(A): octets(NEW_A), octets(B): octets(NEW_B)}, {mac(MAC_A): mac(NEW_MAC)},
    {(octets(A), 40000, 6): 1234, (octets(A), 40000, 17): 4321},
)  # fmt: skip


def ether(*layers: Packet, up: bool = True) -> bytes:
    src, dst = (MAC_A, MAC_B) if up else (MAC_B, MAC_A)
    packet: Any = Ether(src=src, dst=dst)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def afresh(frame: bytes) -> bytes:
    """A frame with all of its checksums computed again."""
    packet = Ether(frame)
    layer: Any = packet
    while layer:
        if "chksum" in layer.fields and not (isinstance(layer, UDP) and layer.chksum == 0):
            del layer.chksum
        layer = layer.payload
    return bytes(packet)


@given(
    st.binary(max_size=60),
    st.booleans(),
    st.sampled_from([TCP, UDP]),
    st.integers(0, 65535),
    st.integers(0, 65535),
)
def test_intact_frames_have_the_checksums_of_a_peer(
    data: bytes, up: bool, kind: Any, port: int, ip_id: int
) -> None:
    ports = {"sport": 40000, "dport": port} if up else {"sport": port, "dport": 40000}
    src, dst = (A, B) if up else (B, A)
    frame = ether(IP(id=ip_id, src=src, dst=dst), kind(**ports), Raw(data), up=up)
    out = rewritten(frame, CHANGE)
    assert out == afresh(out)
    packet = Ether(out)
    assert ({packet[IP].src, packet[IP].dst}, packet[Ether].src if up else packet[Ether].dst) == (
        {NEW_A, NEW_B},
        NEW_MAC,
    )
    assert (packet[kind].sport if up else packet[kind].dport) == (1234 if kind is TCP else 4321)
    assert (packet[kind].dport if up else packet[kind].sport) == port
    assert bytes(packet[kind].payload) == data


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_a_frame_cut_behind_its_headers_has_the_checksum_of_the_intact_one(kind: Any) -> None:
    frame = ether(IP(src=A, dst=B), kind(sport=40000, dport=80), Raw(b"x" * 333))
    intact = rewritten(frame, CHANGE)
    for size in set(range(34, len(frame))) - {
        35,
        37,
        34 + CHECKSUM[PROTO[kind]] + 1,
    }:  # half a word stays as it is
        assert rewritten(frame[:size], CHANGE) == intact[:size]
    for size in range(34):  # without an address there is nothing to follow
        assert rewritten(frame[:size], CHANGE)[14:] == frame[14:size]


def test_a_wrong_checksum_stays_as_wrong_as_it_was() -> None:
    right = ether(IP(src=A, dst=B), TCP(sport=40000, dport=80), Raw(b"x"))
    wrong = bytearray(right)
    wrong[-1] ^= 1  # as a damaged bit
    out = rewritten(bytes(wrong), CHANGE)
    assert out[:-1] == rewritten(right, CHANGE)[:-1]
    assert out != afresh(out)


def test_a_missing_udp_checksum_stays_missing_and_one_that_becomes_zero_is_all_ones() -> None:
    out = rewritten(ether(IP(src=A, dst=B), UDP(sport=40000, dport=53, chksum=0), Raw(b"x")), CHANGE)
    assert Ether(out)[UDP].chksum == 0
    data = bytearray(ether(IP(src=A, dst=B), UDP(sport=40000, dport=53, chksum=1), Raw(b"xx")))
    change = (
        int.from_bytes(rewritten(bytes(data), CHANGE)[40:42], "big") - 1
    )  # in one's complement, of any checksum
    data[40:42] = (-change % 0xFFFF).to_bytes(2, "big")
    assert rewritten(bytes(data), CHANGE)[40:42] == b"\xff\xff"


@pytest.mark.parametrize(("kind", "port"), [(TCP, 1234), (UDP, 4321)])
def test_the_packet_that_an_icmp_error_quotes_is_rewritten_too(kind: Any, port: int) -> None:
    quoted = IP(bytes(IP(src=A, dst=B) / kind(sport=40000, dport=80) / Raw(b"12345")))
    out = rewritten(ether(IP(src=B, dst=A), ICMP(type=3, code=3), quoted, up=False), CHANGE)
    packet = Ether(out)
    assert (packet[IPerror].src, packet[IPerror].dst) == (NEW_A, NEW_B)
    inner = packet[TCPerror if kind is TCP else UDPerror]
    assert inner.sport == port
    whole = bytes(packet[ICMP])
    assert (
        sum(int.from_bytes((whole + b"\0")[k : k + 2], "big") for k in range(0, len(whole), 2)) % 0xFFFF == 0
    )
    assert out == afresh_outer(out)
    assert bytes(IP(bytes(packet[IPerror])))[:20] == fresh_header(bytes(packet[IPerror]))


def afresh_outer(frame: bytes) -> bytes:
    packet = Ether(frame)
    del packet[IP].chksum
    del packet[ICMP].chksum
    return bytes(packet)


def fresh_header(packet: bytes) -> bytes:
    again = IP(packet)
    del again.chksum
    return bytes(again)[:20]


def test_an_icmp_request_has_other_addresses_and_the_same_message() -> None:
    frame = ether(IP(src=A, dst=B), ICMP(type=8, id=7), Raw(b"ping"))
    out = rewritten(frame, CHANGE)
    assert out == afresh(out)
    assert out[34:] == frame[34:]


def test_later_fragments_have_no_ports_to_change() -> None:
    frame = ether(IP(src=A, dst=B, proto=6, frag=185), Raw(bytes.fromhex("9c400050") + b"x" * 40))
    out = rewritten(frame, CHANGE)
    assert out[34:] == frame[34:]
    assert Ether(out)[IP].src == NEW_A


def test_arp_and_vlan_tags_are_followed() -> None:
    arp = Ether(rewritten(ether(ARP(op=2, hwsrc=MAC_A, psrc=A, hwdst=MAC_B, pdst=OTHER)), CHANGE))
    assert (arp.src, arp[ARP].hwsrc, arp[ARP].psrc, arp[ARP].pdst) == (NEW_MAC, NEW_MAC, NEW_A, OTHER)
    out = rewritten(ether(Dot1Q(vlan=5), IP(src=A, dst=B), UDP(sport=40000, dport=53), Raw(b"x")), CHANGE)
    assert (Ether(out)[IP].src, Ether(out)[UDP].sport) == (NEW_A, 4321)
    assert out == afresh(out)


@given(st.binary(max_size=120))
def test_frames_of_nobody_stay_as_they_are(frame: bytes) -> None:
    assert rewritten(frame, Change()) == frame
