"""What a block says of losses, and what the records of the connections open then say."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.layout import FLAG_DROPPED
from engine.scoring.batch import ScoreBatch
from engine.scoring.building import build_detector
from engine.scoring.detector import Detector
from engine.types import (
    KIND_MASK,
    Kind,
    PacketBlock,
    Packets,
    Rows,
    concatenate,
    empty_packets,
    join_rows,
    take,
)
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector, kitsune
from tests.support.streams import stream

SECOND = 10**9


def lost(p: Packets, dropped: int, loss: bool, *, beats: bool) -> dict[int, bool]:
    """By originator port, whether a record says that packets were lost: of one flow before the block, others in it."""
    d = detector()
    d.process(PacketBlock("s", 0, 0, udp([T0], [1]), T0))
    d.process(PacketBlock("s", 0, 1, empty_packets() if beats else p, T0, dropped, loss))
    if beats:
        d.process(PacketBlock("s", 0, 1, p, T0))
    (said,) = d.flush()
    assert d.dropped == dropped
    ports, flags = said.rows["a_port"].tolist(), said.rows["flags"].tolist()
    return {port: bool(flag & FLAG_DROPPED) for port, flag in zip(ports, flags)}


@pytest.mark.parametrize("beats", [False, True], ids=["with packets", "a heartbeat"])
@pytest.mark.parametrize(("dropped", "loss"), [(3, False), (0, True), (3, True)])
def test_a_block_that_tells_of_a_loss_marks_what_is_open_and_nothing_that_begins_later(
    dropped: int, loss: bool, beats: bool
) -> None:
    later = udp([T0 + SECOND, T0 + 2 * SECOND], [1, 2])
    assert lost(later, dropped, loss, beats=beats) == {1: True, 2: False}


@pytest.mark.parametrize("beats", [False, True], ids=["with packets", "a heartbeat"])
def test_without_a_loss_nothing_is_marked(beats: bool) -> None:
    assert lost(udp([T0 + SECOND, T0 + 2 * SECOND], [1, 2]), 0, False, beats=beats) == {1: False, 2: False}


def test_a_block_that_comes_again_loses_nothing_again() -> None:
    d = detector()
    block = PacketBlock("s", 0, 0, udp([T0, T0 + 1], [1, 2]), T0 + 1, dropped=5, loss=True)
    for _ in range(3):
        d.process(block)
    assert (d.dropped, d.repeated_packets) == (5, 4)


YEAR = 365 * 24 * 3600 * SECOND


def test_a_damaged_time_stamp_at_the_end_of_a_block_does_not_confirm_itself() -> None:
    d = detector()
    p = udp([T0, T0 + SECOND, T0 + YEAR], [1, 2, 3])
    assert d.process(PacketBlock("s", 0, 0, p, T0 + YEAR)) == []
    assert d.process(PacketBlock("s", 0, 3, udp([T0 + 2 * SECOND], [1]), T0 + 2 * SECOND)) == []
    (said,) = d.flush()
    assert said.rows["start"].tolist() == [T0, T0 + SECOND, T0 + YEAR]


def test_a_heartbeat_before_a_leap_says_nothing_against_it_and_one_behind_it_confirms_it() -> None:
    for beat, ended in ((T0 + 2 * SECOND, 0), (T0 + YEAR, 1)):
        d = detector()
        d.process(PacketBlock("s", 0, 0, udp([T0, T0 + YEAR], [1, 2]), T0 + YEAR))
        said = d.process(PacketBlock("s", 0, 2, empty_packets(), beat))
        assert sum(map(len, said)) == ended
        said = d.process(PacketBlock("s", 0, 2, udp([T0 + YEAR + 1], [2]), T0 + YEAR + 1))
        assert sum(map(len, said)) == 1 - ended
        (last,) = d.flush()
        assert last.sides["packets"].sum() == 2


def twice(p: Packets, delay: int) -> Packets:
    """Every packet of p and a copy of it, in order of time."""
    both = concatenate([p, p._replace(ts=p.ts + delay)])
    return take(both, np.argsort(both.ts, kind="stable"))


def final(found: list[ScoreBatch]) -> list[Rows]:
    return [b.scores for b in found if b.scores["final"].all()]


def scored(p: Packets, size: int, copies: Literal["drop", "keep"] = "drop") -> tuple[list[Rows], Detector]:
    """SCORE rows of all connections that ended, in blocks of a size."""
    d = build_detector(0, TrackerConfig(capacity=4096, copies=copies), [kitsune()])
    found = []
    for begin in range(0, p.ts.size, size):
        part = take(p, slice(begin, begin + size))
        found += d.process(PacketBlock("s", 0, begin, part, int(part.ts.max())))
    found += d.flush()
    return final(found), d


@pytest.mark.compiled
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_capture_with_every_packet_twice_has_the_scores_of_the_capture_with_each_once(size: int) -> None:
    p = stream(5, 400, ordered=True)
    p.ip_id[:] = 1 + np.arange(400)
    p = take(p, np.flatnonzero((p.kind & KIND_MASK) >= Kind.IPV4))
    p.ts[:] += np.arange(p.ts.size) * 50_000
    once, _ = scored(p, 1000)
    both, d = scored(twice(p, 20_000), size)
    assert d.tracker.counters["copies"] == p.ts.size
    assert d.packets == 2 * p.ts.size
    assert join_rows(once).size > 20
    for name in ("score", "peak", "mean", "scored", "alarm", "final", "peak_at", "known_orig"):
        assert np.array_equal(
            join_rows(once)[name], join_rows(both)[name], equal_nan=name in ("score", "peak", "mean")
        )
    kept, _ = scored(twice(p, 20_000), size, "keep")
    assert join_rows(kept)["scored"].sum() > join_rows(once)["scored"].sum()


@pytest.mark.compiled
def test_a_detector_that_goes_on_from_its_state_knows_copies_and_hosts_as_before() -> None:
    p = stream(5, 400, ordered=True)
    p.ip_id[:] = 1 + np.arange(400)
    p = twice(p, 20_000)
    whole, _ = scored(p, 300)
    first, rest = take(p, slice(300)), take(p, slice(300, None))
    one, two = (build_detector(0, TrackerConfig(capacity=4096), [kitsune()]) for _ in range(2))
    found = one.process(PacketBlock("s", 0, 0, first, int(first.ts.max())))
    two.restore(one.state())
    found += two.process(PacketBlock("s", 0, 300, rest, int(rest.ts.max()))) + two.flush()
    for name in ("score", "scored", "alarm", "known_orig", "known_resp"):
        mine = join_rows(final(found))[name]
        assert np.array_equal(mine, join_rows(whole)[name], equal_nan=name == "score")


@pytest.mark.compiled
def test_an_interim_row_alerts_nobody_and_is_not_final() -> None:
    p = udp([T0 + k * SECOND for k in range(300)], [1] * 300)
    d = build_detector(0, TrackerConfig(capacity=64, interim_seconds=20), [kitsune()])
    found = d.process(PacketBlock("s", 0, 0, p, int(p.ts[-1])))
    (interim,) = (b for b in found if not b.scores["final"].any() and not b.scores["begins"].any())
    assert interim.rows["ending"].tolist() == [0]
    assert interim.sides["packets"].sum() == 300
    assert sum(b.scores["final"].sum() for b in d.flush()) == 1


@pytest.mark.compiled
@pytest.mark.parametrize("begin", [0, 1])
def test_where_copies_are_dropped_more_connections_may_end_at_once_than_are_handed_over(begin: int) -> None:
    flows = 20_000
    p = udp([T0 + k * 1000 for k in range(flows)] + [T0 + 100 * SECOND], [*range(1, flows + 1), 65_000])
    p.ip_id[:] = 1 + np.arange(flows + 1)
    p = twice(p, 10_000)
    d = build_detector(0, TrackerConfig(capacity=30_000), [kitsune(mapping=1 << 20)])
    at = p.ts.size - 2 + begin
    said = d.process(PacketBlock("s", 0, 0, take(p, slice(0, at)), int(p.ts[at - 1])))
    said += d.process(PacketBlock("s", 0, at, take(p, slice(at, None)), int(p.ts[-1])))
    said += d.process(PacketBlock("s", 0, p.ts.size, p._replace(ts=p.ts + 300 * SECOND), 0))
    said += d.flush()
    assert sum(b.scores.size for b in said if b.scores["final"].all()) == 2 * flows + 2
