"""The laws of blocks (engine/types.py), each on made-up streams."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.bus.memory import MemoryBus
from engine import wire
from engine.clock import NOW, new_clock, run
from engine.connections.bounds import TrackerConfig
from engine.connections.tracker import Tracker
from engine.headers.decode import DecodeConfig
from engine.partition import partitions
from engine.scoring.batch import ScoreBatch
from engine.scoring.building import build_detector
from engine.scoring.detector import Detector
from engine.sensor.publisher import Publisher, Sensor
from engine.types import PacketBlock, Packets, Rows, empty_packets, join_rows, take
from tests.support.detectors import kitsune
from tests.support.frames import frames_of
from tests.support.streams import stream

SMALL = TrackerConfig(capacity=6)
ROOMY = TrackerConfig(capacity=4096)
seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(0, 400), max_size=12)


def detector(config: TrackerConfig, partition: int = 0) -> Detector:
    """A detector that has learned and calibrated before half of 400 packets have passed."""
    return build_detector(partition, config, [kitsune()])


def blocks(p: Packets, at: list[int]) -> list[PacketBlock]:
    """Parts of p, cut at the given rows."""
    edges = [0, *sorted(min(c, p.ts.size) for c in at), p.ts.size]
    out, clock = [], new_clock()
    for a, b in pairwise(edges):
        part = take(p, slice(a, b))
        run(clock, part.ts)
        out.append(PacketBlock("s", 0, a, part, int(part.ts.max()) if b > a else int(clock[NOW])))
    return out


def outcome(d: Detector, stream_blocks: list[PacketBlock]) -> list[ScoreBatch]:
    """All batches that a detector gives for a stream."""
    said = [batch for block in stream_blocks for batch in d.process(block)]
    return said + d.flush()


def bits(rows: Rows) -> bytes:
    """All fields of rows, without the padding between them."""
    return b"".join(rows[name].tobytes() for name in rows.dtype.names or ())


def flat(said: list[ScoreBatch]) -> bytes:
    """Ended connections and beginnings of alarms with their scores, bit for bit, in order."""
    final = [b for b in said if b.scores["final"].all()]
    begun = [b for b in said if not b.scores["final"].any()]
    assert len(final) + len(begun) == len(said)
    out = b"".join(bits(join_rows([getattr(b, name) for b in final])) for name in ("rows", "sides", "scores"))
    if begun:
        rows, scores = (join_rows([getattr(b, name) for b in begun]) for name in ("rows", "scores"))
        out += bits(scores) + rows["a_lo"].tobytes() + rows["start"].tobytes()
    return out


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans(), at=cuts)
@settings(max_examples=30, deadline=None)
def test_cutting_a_stream_elsewhere_changes_no_connection_and_no_score(
    seed: int, leaps: bool, at: list[int]
) -> None:
    p = stream(seed, 400, leaps=leaps)
    whole, cut = outcome(detector(SMALL), blocks(p, [])), outcome(detector(SMALL), blocks(p, at))
    assert sum(map(len, whole)) > 0
    assert flat(whole) == flat(cut)


def connection_rows(said: list[ScoreBatch]) -> list[bytes]:
    """Final connection rows, sorted, without the fields that depend on the partition."""
    final = [b for b in said if b.scores["final"].all()]
    return sorted(bits(b.rows[k : k + 1]) + bits(b.sides[k]) for b in final for k in range(len(b)))


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans(), count=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_one_partition_or_several_give_the_same_connections(seed: int, leaps: bool, count: int) -> None:
    p = stream(seed, 400, ordered=True, leaps=leaps)
    one = outcome(detector(ROOMY), blocks(p, [100, 200]))
    goes = partitions(p, count)
    several: list[ScoreBatch] = []
    for k in range(count):
        mine = take(p, goes == k)
        heartbeat = PacketBlock("s", 0, mine.ts.size, empty_packets(), int(p.ts.max()))
        several += outcome(detector(ROOMY, k), [PacketBlock("s", 0, 0, mine, int(p.ts[0])), heartbeat])
    assert connection_rows(one) == connection_rows(several)


@given(seed=seeds, count=st.integers(2, 7))
def test_both_directions_of_a_host_pair_go_to_one_partition(seed: int, count: int) -> None:
    p = stream(seed, 300)
    back = p._replace(
        src_hi=p.dst_hi,
        src_lo=p.dst_lo,
        dst_hi=p.src_hi,
        dst_lo=p.src_lo,
        src_mac=p.dst_mac,
        dst_mac=p.src_mac,
    )
    goes = partitions(p, count)
    assert (goes == partitions(back, count)).all()
    assert goes.min() >= 0
    assert goes.max() < count


@pytest.mark.compiled
def test_a_gap_in_the_numbers_of_packets_is_counted_and_marks_open_connections() -> None:
    p = stream(1, 300, ordered=True)
    d = detector(ROOMY)
    first, _, third = blocks(p, [100, 200])
    d.process(first)
    said = d.process(third) + d.flush()
    assert d.lost_packets == 100
    flags = np.concatenate([b.rows["flags"] for b in said])
    starts = np.concatenate([b.rows["start"] for b in said])
    lived_through = starts <= first.packets.ts.max()
    assert lived_through.any()
    assert ((flags & 8 != 0) == lived_through).all()


@pytest.mark.compiled
def test_a_block_that_comes_again_is_skipped_and_counted() -> None:
    p = stream(2, 300)
    once, twice = detector(ROOMY), detector(ROOMY)
    first, second = blocks(p, [150])
    said_once = outcome(once, [first, second])
    said_twice = outcome(twice, [first, first, second, second])
    assert twice.repeated_packets == 300
    assert flat(said_once) == flat(said_twice)


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans(), at=cuts, again=cuts)
@settings(max_examples=20, deadline=None)
def test_a_stream_published_again_in_other_blocks_changes_nothing(
    seed: int, leaps: bool, at: list[int], again: list[int]
) -> None:
    p = stream(seed, 400, leaps=leaps)
    first, second = blocks(p, at), blocks(p, again)
    known, resumed = detector(SMALL), detector(SMALL)
    half = len(first) // 2
    assert flat(outcome(known, first)) == flat(outcome(resumed, first[:half] + second))
    assert resumed.repeated_packets == sum(map(len, first[:half]))
    assert resumed.lost_packets == 0


def test_rows_of_blocks_cannot_be_changed_in_place() -> None:
    block = wire.decode(wire.encode(PacketBlock("s", 0, 0, stream(3, 10), 0)))
    with pytest.raises(ValueError, match="read-only"):
        block.packets.ts[0] = 0


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_tracker_that_hands_over_few_connections_at_a_time_gives_the_same_rows(
    seed: int, leaps: bool
) -> None:
    p = stream(seed, 400, leaps=leaps)

    def ended(spare: int) -> list[bytes]:
        tracker = Tracker(SMALL, spare)
        out = [bits(rows) for tracked in tracker.track(p) for rows in tracker.rows(tracked.closed)[1]]
        return out + [bits(rows) for slots in tracker.flush() for rows in tracker.rows(slots)[1]]

    assert ended(8) == ended(4096)


def published(p: Packets, config: TrackerConfig, count: int, block: int, read: int) -> list[list[ScoreBatch]]:
    """Rows of the detectors of all partitions for a stream through publisher and bus, read ``read`` packets at a time,
    in blocks of at least ``block``."""
    bus = MemoryBus(count, 2 * p.ts.size + 10)
    publisher = Publisher(Sensor("s", 0, block, DecodeConfig()), bus)
    for begin in range(0, p.ts.size, read):
        publisher.add(frames_of(take(p, slice(begin, begin + read))))
    publisher.finish()
    bus.end()
    detectors = [detector(config, k) for k in range(count)]
    said: list[list[ScoreBatch]] = [[] for _ in detectors]
    while (messages := bus.poll()) is not None:
        for m in messages:
            said[m.partition] += detectors[m.partition].process(wire.decode(m.value))
    assert sum(d.packets for d in detectors) == p.ts.size
    assert not any(d.lost_packets or d.repeated_packets for d in detectors)
    return [some + d.flush() for some, d in zip(said, detectors)]


cutting = st.tuples(
    st.sampled_from([1, 7, 64, 150, 1000]), st.sampled_from([1, 7, 20, 100, 400])
)  # block, read


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans(), count=st.integers(1, 4), one=cutting, other=cutting)
@example(
    seed=22, leaps=False, count=3, one=(1, 7), other=(64, 20)
)  # differed when a block's time was the sensor's
@settings(max_examples=25, deadline=None)
def test_blocks_of_any_size_through_publisher_and_bus_give_equal_rows_on_as_many_partitions(
    seed: int, leaps: bool, count: int, one: tuple[int, int], other: tuple[int, int]
) -> None:
    p = stream(seed, 400, ordered=True, leaps=leaps)
    first, second = published(p, SMALL, count, *one), published(p, SMALL, count, *other)
    assert sum(len(batch) for said in first for batch in said) > 0
    assert [flat(said) if said else b"" for said in first] == [flat(said) if said else b"" for said in second]


@pytest.mark.compiled
@given(seed=seeds, leaps=st.booleans(), count=st.integers(2, 4), one=cutting, other=cutting)
@example(seed=1, leaps=False, count=4, one=(64, 20), other=(64, 20))  # differed without a last heartbeat
@settings(max_examples=25, deadline=None)
def test_one_partition_or_several_behind_a_publisher_give_the_same_connections(
    seed: int, leaps: bool, count: int, one: tuple[int, int], other: tuple[int, int]
) -> None:
    p = stream(seed, 400, ordered=True, leaps=leaps)
    single, several = published(p, ROOMY, 1, *one), published(p, ROOMY, count, *other)
    assert connection_rows(single[0]) == connection_rows([batch for said in several for batch in said])
