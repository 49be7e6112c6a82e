"""The sequence analysis against a twin that remembers every byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.connections.bounds import TrackerConfig
from engine.connections.layout import Segment
from engine.connections.tracker import Tracker
from tests.support.conversation import Conversation

GIVEN = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 25), st.sampled_from([0.5, 2.0, 30.0])),
    min_size=1,
    max_size=40,
)
TRIP = 10.0  # ms of a round trip


def naive(segments: list[tuple[int, int, float]]) -> list[Segment]:
    """The class of each segment (start, length, ms after the one before) from sets of single bytes.

    A byte is either seen, or missing since a byte above it was first seen.
    """
    seen: set[int] = set()
    missing: dict[int, float] = {}
    high, now = 0, 0.0
    out = []
    for start, length, after in segments:
        now += after
        mine = set(range(start, start + length))
        old, late, new = mine & seen, mine & missing.keys(), {b for b in mine if b >= high}
        if old and not late and not new:
            out.append(Segment.DUPLICATE)
        elif old:
            out.append(Segment.PARTIAL)
        elif late:
            age = now - min(missing[b] for b in late)
            out.append(Segment.REORDERED if age < TRIP else Segment.RETRANSMITTED)
        else:
            out.append(Segment.NEW)
        for byte in range(high, start):
            missing[byte] = now
        for byte in mine:
            missing.pop(byte, None)
        seen |= mine
        high = max(high, start + length)
    return out


@given(segments=GIVEN, isn=st.sampled_from([0, 1000, 2**31 - 20, 2**32 - 30]))
def test_classes_are_those_of_a_twin_that_remembers_every_byte(
    segments: list[tuple[int, int, float]], isn: int
) -> None:
    c = Conversation(isn_a=isn).open(trip=TRIP)
    for start, length, after in segments:
        c.send("a", "A", 1 + start, 1, length, after=after)
    tracker = Tracker(TrackerConfig(capacity=2, holes=64))
    (step,) = tracker.track(c.packets())
    assert [Segment(s) for s in step.segment[3:]] == naive(segments)
    _, sides = tracker.rows(step.slot[:1])
    everything = {b for start, length, _ in segments for b in range(start, start + length)}
    total = sum(length for _, length, _ in segments)
    assert sides["again_bytes"][0, 0] == total - len(everything)
    assert sides["high"][0, 0] == 1 + max(start + length for start, length, _ in segments)


@given(segments=GIVEN, holes=st.integers(1, 4))
def test_few_holes_never_grow_and_never_lose_the_end(
    segments: list[tuple[int, int, float]], holes: int
) -> None:
    c = Conversation().open()
    for start, length, after in segments:
        c.send("a", "A", 1 + start, 1, length, after=after)
    tracker = Tracker(TrackerConfig(capacity=2, holes=holes))
    (step,) = tracker.track(c.packets())
    _, sides = tracker.rows(step.slot[:1])
    assert sides["holes"].max() <= holes
    assert sides["high"][0, 0] == 1 + max(start + length for start, length, _ in segments)
