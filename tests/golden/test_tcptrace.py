"""Segments seen again or too late: our counts by direction against tcptrace's and tshark's.

Neither peer has our classes, so what is compared is their sum: every segment that takes sequence space of
which some had been seen (a copy made by the capture too, as both peers count it), and every one that fills a
hole. WIRESONDE_UPDATE_DOCS=1 puts the differences found into docs/retransmission-differences.md, where
a new row fails until it has a reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.commands.reading import read_packets
from engine.config import Config
from engine.connections.bounds import TrackerConfig
from engine.connections.layout import Segment
from engine.connections.tracker import Tracker
from engine.headers.decode import DecodeConfig
from engine.notation import address_text
from engine.types import KIND_FRAGMENT, KIND_TRANSPORT, TCP, Packets, concatenate, take
from tests.support.captures import CAPTURES, capture_files, needs_captures
from tests.support.peers import (
    Direction,
    TcptraceCounts,
    read_table,
    tcptrace_counts,
    tshark_events,
    write_table,
)

pytestmark = [pytest.mark.captures, pytest.mark.compiled, needs_captures]

PAGE = Path(__file__).parents[2] / "docs" / "retransmission-differences.md"
AGAIN_OR_LATE = (
    Segment.DUPLICATE,
    Segment.SPURIOUS,
    Segment.REORDERED,
    Segment.RETRANSMITTED,
    Segment.PARTIAL,
)
TSHARK_EVENTS = {"retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order"}
SYN_OR_FIN = 3
FOREVER = 1e7  # seconds; the peers wait for an answer, and go on after the end, as long as a capture lasts

Row = tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """How far a peer and we count the same."""

    directions: int
    equal: int  # directions with the same count
    segments: int  # the greater count of each direction, summed
    shared: int  # the lesser

    @classmethod
    def of(cls, pairs: list[tuple[int, int]]) -> Agreement:
        """Of (peer's count, our count), one a direction."""
        same = sum(theirs == mine for theirs, mine in pairs)
        return cls(len(pairs), same, sum(max(pair) for pair in pairs), sum(min(pair) for pair in pairs))

    def __str__(self) -> str:
        return (
            f"{self.equal} of {self.directions} directions ({100 * self.equal / self.directions:.1f} %), "
            f"{self.shared} of {self.segments} segments ({100 * self.shared / self.segments:.1f} %)"
        )


@dataclass(frozen=True)
class Comparison:
    """What came out."""

    rows: list[Row]  # capture, direction, tcptrace, tshark, ours
    tcptrace: Agreement
    tshark: Agreement


def _analysed(capture: Path) -> tuple[Packets, NDArray[np.uint8]]:
    """The packets of a capture, row i for frame i + 1, and what each segment was to its connection."""
    connections = TrackerConfig(
        capacity=8192, attempt_timeout=FOREVER, closing_delay=FOREVER, tcp_timeout=FOREVER, copies="keep"
    )
    decoding = DecodeConfig(tunnels=("gre", "ipip", "6in4", "vxlan"))
    config = Config(decode=decoding, connections=connections)
    packets = concatenate(list(read_packets([capture], config)))
    segments = np.zeros(packets.ts.size, np.uint8)
    for tracked in Tracker(config.connections, spare=1024).track(packets):
        segments[tracked.begin : tracked.end] = tracked.segment
    return packets, segments


def _directions(name: str, p: Packets) -> tuple[list[Direction], NDArray[np.intp]]:
    """The directions of the packets, and the place of each packet's direction among them."""
    columns = (p.src_hi, p.src_lo, p.sport, p.dst_hi, p.dst_lo, p.dport)
    keys = np.stack([column.astype(np.uint64) for column in columns], axis=1)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    some = take(p, first)
    sources = zip(address_text(some.src_hi, some.src_lo), some.sport.tolist())
    targets = zip(address_text(some.dst_hi, some.dst_lo), some.dport.tolist())
    return [Direction(name, a, b) for a, b in zip(sources, targets)], place.reshape(-1)


def _counts(capture: Path, events: dict[int, frozenset[str]]) -> Iterator[tuple[Direction, int, int]]:
    """Direction, tshark's count and ours, for every TCP direction of a capture."""
    packets, segments = _analysed(capture)
    tcp = (packets.proto == TCP) & (packets.kind & (KIND_TRANSPORT | KIND_FRAGMENT) == KIND_TRANSPORT)
    rows = np.flatnonzero(tcp)
    if not rows.size:
        return
    p = take(packets, rows)
    copy = (segments[rows] == Segment.CAPTURE_DUPLICATE) & ((p.payload > 0) | (p.tcp_flags & SYN_OR_FIN > 0))
    mine = np.isin(segments[rows], AGAIN_OR_LATE) | copy
    theirs = np.array([bool(TSHARK_EVENTS & events.get(frame, frozenset())) for frame in (rows + 1).tolist()])
    directions, place = _directions(capture.relative_to(CAPTURES).as_posix(), p)
    our_sums, their_sums = (np.bincount(place, weights=mask).astype(int).tolist() for mask in (mine, theirs))
    yield from zip(directions, their_sums, our_sums)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """All captures with answers of both peers compared."""
    tcptrace, events = tcptrace_counts(CAPTURES), tshark_events(CAPTURES)
    captures = {file.relative_to(CAPTURES).as_posix(): file for file in capture_files("conn", "attack")}
    tshark: dict[Direction, int] = {}
    ours: dict[Direction, int] = {}
    for name, capture in captures.items():
        for direction, theirs, mine in _counts(capture, events.get(name, {})):
            tshark[direction], ours[direction] = theirs, mine
    known = {d: _again_or_late(count) for d, count in tcptrace.items() if d.file in captures}
    rows: list[Row] = []
    for d in sorted(tshark.keys() | known.keys()):
        mine = ours.get(d, 0)
        if known.get(d, mine) != mine or tshark.get(d, mine) != mine:
            way = f"{d.source[0]} {d.source[1]} > {d.target[0]} {d.target[1]}"
            rows.append((d.file, way, str(known.get(d, "-")), str(tshark.get(d, "-")), str(mine)))
    return Comparison(
        rows,
        Agreement.of([(theirs, ours.get(d, 0)) for d, theirs in known.items()]),
        Agreement.of([(theirs, ours[d]) for d, theirs in tshark.items()]),
    )


def _again_or_late(count: TcptraceCounts) -> int:
    return count.retransmitted + count.reordered


def test_retransmitted_and_reordered_segments_equal_tcptraces_to_95_percent(comparison: Comparison) -> None:
    found = comparison.tcptrace
    assert found.directions > 9000
    assert found.equal >= 0.95 * found.directions, found
    assert found.shared >= 0.95 * found.segments, found


def test_retransmitted_and_reordered_segments_equal_tsharks_to_95_percent(comparison: Comparison) -> None:
    found = comparison.tshark
    assert found.directions > 6000
    assert found.equal >= 0.95 * found.directions, found
    assert found.shared >= 0.95 * found.segments, found


def test_every_difference_to_a_peer_is_documented_and_every_documented_one_exists(
    comparison: Comparison,
) -> None:
    if os.environ.get("WIRESONDE_UPDATE_DOCS"):
        write_table(PAGE, comparison.rows)
    table = read_table(PAGE)
    assert sorted(row[:-1] for row in table.rows) == sorted(comparison.rows)
    assert {row[-1] for row in table.rows} == table.reasons


def test_the_page_says_how_many_directions_equal_each_peers(comparison: Comparison) -> None:
    text = PAGE.read_text()
    assert f"tcptrace: {comparison.tcptrace}" in text
    assert f"tshark: {comparison.tshark}" in text
