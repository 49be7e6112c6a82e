"""Headers that the snaplen cut: whatever is there of them counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.l2 import Dot1AD, Dot1Q
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from engine.commands.reading import read_connections
from engine.types import KIND_MASK, KIND_TRANSPORT, Kind, Reason
from tests.support.capture_bytes import pcap
from tests.support.decoding import MPLS4, TCP4, TCP6, ether, ip4, ip6, row, tcp

STACKS: dict[str, tuple[Packet, int, dict[str, Any]]] = {
    "ethernet": (ether() / ip4(), 34, TCP4),
    "vlan": (ether() / Dot1Q(vlan=5) / ip4(), 38, TCP4),
    "qinq": (ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / ip4(), 42, TCP4),
    "mpls": (ether(type=0x8847) / MPLS4 / ip4(), 42, TCP4),
    "options": (ether() / ip4(options=[IPOption_NOP()] * 4), 38, TCP4 | {"ip_size": 55}),
    "ipv6": (ether() / ip6(), 54, TCP6),
    "ipv6 in a vlan": (ether() / Dot1Q(vlan=5) / ip6(), 58, TCP6),
}
FIELDS = ("seq", "ack", "window", "tcp_flags")


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("options", [[], [("NOP", None)] * 8])
def test_of_a_tcp_header_the_flags_and_all_before_them_are_enough(name: str, options: list[Any]) -> None:
    outer, size, want = STACKS[name]
    segment = TCP(sport=1234, dport=80, seq=111, ack=222, flags="PA", window=333, options=options)
    frame = bytes(outer / segment / Raw(b"x" * 11))
    want = want | {"ip_size": want["ip_size"] + len(options)}
    for have in range(16, 20 + len(options) + 1):
        assert row(frame[: size + have], wire=len(frame)).items() >= want.items(), have
    for have in (14, 15):
        found = row(frame[: size + have], wire=len(frame))
        unsure = {"window": 0, "reason": Reason.TRANSPORT_TRUNCATED}
        assert found.items() >= (want | unsure).items(), have
    for have in range(4, 14):
        found = row(frame[: size + have], wire=len(frame))
        assert found["reason"] == Reason.TRANSPORT_TRUNCATED
        assert not found["kind"] & KIND_TRANSPORT
        assert (found["sport"], found["dport"], *(found[field] for field in FIELDS)) == (1234, 80, 0, 0, 0, 0)


@pytest.mark.parametrize("have", range(14, 20))
def test_a_wrong_data_offset_is_found_in_a_cut_header(have: int) -> None:
    for offset in (4, 9):
        frame = bytes(ether() / ip4() / TCP(dataofs=offset) / Raw(b"x" * 11))
        found = row(frame[: 34 + have], wire=len(frame))
        assert (found["reason"], found["tcp_flags"]) == (Reason.TRANSPORT_LENGTH, 0)


def test_a_tcp_packet_that_ends_in_its_header_on_the_wire_is_truncated() -> None:
    for have in range(20):
        frame = bytes(ether() / ip4(proto=6) / Raw(bytes(tcp())[:have]))
        found = row(frame)
        assert found["reason"] == Reason.TRANSPORT_TRUNCATED
        assert found["kind"] == Kind.IPV4


@pytest.mark.parametrize(
    ("layer", "need", "ports"),
    [
        (UDP(sport=7, dport=9), 6, (7, 9)),
        (ICMP(type=8, code=1), 2, (8, 1)),
        (SCTP(sport=7, dport=9), 4, (7, 9)),
    ],
)
def test_of_other_headers_the_ports_are_enough(layer: Packet, need: int, ports: tuple[int, int]) -> None:
    frame = bytes(ether() / Dot1Q(vlan=5) / ip4() / layer / Raw(b"x" * 100))
    whole = row(frame)
    assert whole["payload"] == 100
    for have in range(need, 12):
        place = 2 if need == 2 else 6
        checksum = whole["checksum"] if have >= place + 2 else 0
        assert row(frame[: 38 + have], wire=len(frame)) == whole | {"checksum": checksum}, have
    short = row(frame[: 38 + need - 1], wire=len(frame))
    assert (short["reason"], short["payload"]) == (Reason.TRANSPORT_TRUNCATED, 0)
    assert (short["kind"] & KIND_MASK, short["kind"] & KIND_TRANSPORT) == (Kind.IPV4, 0)
    assert (whole["sport"], whole["dport"]) == ports


def test_a_wrong_udp_length_is_found_in_a_cut_header() -> None:
    frame = bytes(ether() / ip4() / UDP(len=7) / Raw(b"x" * 100))
    for have in (6, 7):
        assert row(frame[: 34 + have], wire=len(frame))["reason"] == Reason.TRANSPORT_LENGTH


def conversation(outer: Packet, back: Packet) -> list[bytes]:
    """A whole connection: 100 bytes asked, 1,000 answered."""

    def there(flags: str, seq: int, ack: int, size: int = 0) -> bytes:
        return bytes(outer / TCP(sport=40000, dport=80, flags=flags, seq=seq, ack=ack) / Raw(b"x" * size))

    def here(flags: str, seq: int, ack: int, size: int = 0) -> bytes:
        return bytes(back / TCP(sport=80, dport=40000, flags=flags, seq=seq, ack=ack) / Raw(b"x" * size))

    return [
        there("S", 1, 0), here("SA", 5, 2), there("A", 2, 6), there("PA", 2, 6, 100), here("A", 6, 102, 1000),
        there("A", 102, 1006), there("FA", 102, 1006), here("FA", 1006, 103), there("A", 103, 1007),
    ]  # fmt: skip


def swapped(packet: Packet) -> Packet:
    """The same headers the other way."""
    back = packet.copy()
    layer: Any = back.getlayer("IP") or back.getlayer("IPv6")
    layer.src, layer.dst = layer.dst, layer.src
    return back


@pytest.mark.parametrize(
    ("name", "snaplen"),
    [("vlan", 54), ("qinq", 58), ("mpls", 58), ("ipv6 in a vlan", 74), ("ethernet", 48), ("ipv6", 69)],
)
def test_a_connection_in_a_cut_capture_is_whole(tmp_path: Path, name: str, snaplen: int) -> None:
    outer = STACKS[name][0]
    frames = conversation(outer, swapped(outer))
    records = [(k * 1000, frame[:snaplen], len(frame)) for k, frame in enumerate(frames)]
    (tmp_path / "c.pcap").write_bytes(pcap(records))
    [found] = read_connections([tmp_path / "c.pcap"]).to_pylist()
    assert (found["conn_state"], found["history"]) == ("SF", "ShADdFf")
    assert (found["orig_bytes"], found["resp_bytes"], found["missed_bytes"]) == (100, 1000, 0)
    assert (found["orig_zero_window"], found["resp_zero_window"]) == (0, 0)
