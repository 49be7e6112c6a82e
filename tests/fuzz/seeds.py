"""Frames to begin with: one of every link header, extension and tunnel that the unit tests know."""

from __future__ import annotations

from tests.unit.engine.headers import (
    test_cooked,
    test_decode,
    test_link_columns,
    test_rare,
    test_tunnels,
    test_wireless,
)

Seeds = list[tuple[int, bytes]]  # link type and frame


def seeds() -> Seeds:
    """All of them, shortest first, each once."""
    found = {(number, bytes(frame)) for number, frame in test_decode.LINKS.values()}
    for tests in (test_cooked, test_rare, test_wireless):
        found |= {(number, frame) for number, frame, _ in tests.READ.values()}
    found |= {(number, frame) for number, frame, *_ in test_wireless.OTHERS.values()}
    found |= {(1, bytes(frame)) for frame, *_ in test_link_columns.VLANS.values()}
    found |= {(1, bytes(frame)) for frame, _ in test_link_columns.OTHERS.values()}
    around = bytes.fromhex("0200000000020200000000010800")
    found |= {
        (1, around[:12] + type_of(packet) + bytes(packet)) for _, packet, _ in test_tunnels.TUNNELS.values()
    }
    found |= {(1, around[:12] + b"\x81\0\0\5" * depth + b"\x08\0" + bytes(60)) for depth in (4, 8, 9)}
    found |= {(1, around[:12] + b"\x88\x8e" + bytes(40)), (147, bytes(60))}
    return sorted(found, key=lambda seed: (len(seed[1]), seed))


def type_of(packet: object) -> bytes:
    """The EtherType of an IP packet."""
    return b"\x86\xdd" if bytes(packet)[0] >> 4 == 6 else b"\x08\x00"  # type: ignore[call-overload]
