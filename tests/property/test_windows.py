"""Forged segments, losses of the capture and cuts against the honest conversation they were put into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.connections.bounds import TrackerConfig
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.connections.window import AHEAD, BEHIND
from engine.types import Packets, take
from tests.fuzz.windows import soak
from tests.support.conversation import Conversation
from tests.support.streams import odd_stream

Step = tuple[str, str, int, int, int]  # side, flags, seq, ack, payload

HANDSHAKE: list[Step] = [("a", "S", 0, 0, 0), ("b", "SA", 0, 1, 0), ("a", "A", 1, 1, 0)]
COUNTS = ("pkts", "ip_bytes", "out_of_window")  # what a forged segment may change


def exchange(sizes: list[tuple[int, int]]) -> list[Step]:
    """Requests and answers of the given sizes, each acknowledged, and an orderly close."""
    steps, a, b = [], 1, 1
    for asked, answered in sizes:
        steps += [("a", "PA", a, b, asked), ("b", "PA", b, a + asked, answered)]
        a, b = a + asked, b + answered
        steps.append(("a", "A", a, b, 0))
    return [*steps, ("a", "FA", a, b, 0), ("b", "FA", b, a + 1, 0), ("a", "A", a + 1, b + 1, 0)]


def cut_to(kind: str, steps: list[Step]) -> list[Step]:
    """What is captured of a conversation with a handshake."""
    match kind:
        case "midstream":
            return steps[3:]
        case "a" | "b":
            return [step for step in steps if step[0] == kind]
        case "reset":
            return [*steps[:-3], ("b", "R", steps[-2][2], 0, 0)]
        case _:
            return steps


def written(steps: list[Step], isn: tuple[int, int]) -> Conversation:
    c = Conversation(*isn)
    for side, flags, seq, ack, payload in steps:
        c.send(side, flags, seq, ack, payload)
    return c


def records(p: Packets) -> list[dict[str, Any]]:
    tracker = Tracker(TrackerConfig(capacity=64))
    tables = [connection_table(*tracker.rows(step.closed)) for step in tracker.track(p)]
    tables += [connection_table(*tracker.rows(slots)) for slots in tracker.flush()]
    return [row for table in tables for row in table.drop_columns(["ts"]).to_pylist()]


def without_counts(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.endswith(COUNTS)}


sizes = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(1, 30_000)), min_size=1, max_size=4
)  # of requests and answers
isns = st.tuples(*[st.sampled_from([0, 1000, 2**31 - 500, 2**32 - 700, 2**32 - 1])] * 2)
HALF = 1 << 31
far = st.one_of(  # from the numbers of a side
    st.integers(BEHIND + 200_000, 2**31), st.integers(AHEAD + 200_000, 2**31).map(lambda n: -n)
).map(lambda n: -n)


@given(
    sizes=sizes,
    isn=isns,
    kind=st.sampled_from(["whole", "midstream", "a", "b", "reset"]),
    side=st.sampled_from("ab"),
    flags=st.lists(st.sampled_from(["R", "RA", "F", "FA", "S", "SA", "A", "PA", "FPA", "SF", "FR", ""]), max_size=6),
    away=st.lists(far, min_size=6, max_size=6),
    places=st.lists(st.floats(0, 0.999), min_size=6, max_size=6),  # 1: behind the last FIN, where a SYN begins anew
    wild_ack=st.booleans(),
)  # fmt: skip
@example([(100, 500)], (1000, 7), "whole", "a", ["S"], [10**9] * 6, [0.0] * 6, False)
@example([(100, 500)], (1000, 7), "whole", "b", ["PA"], [10**9] * 6, [0.0] * 6, True)
@example([(100, 500)], (1000, 7), "a", "a", ["FA"], [10**9] * 6, [0.5] * 6, False)
@example([(100, 500)], (1000, 7), "b", "a", ["S"], [10**9] * 6, [0.5] * 6, False)
@example([(100, 500)], (1000, 7), "midstream", "b", ["SA"], [10**9] * 6, [0.0] * 6, False)
@settings(max_examples=300)
def test_what_one_side_forges_changes_nothing_but_counts(
    sizes: list[tuple[int, int]],
    isn: tuple[int, int],
    kind: str,
    side: str,
    flags: list[str],
    away: list[int],
    places: list[float],
    wild_ack: bool,
) -> None:
    """Every forgery lies in a place of its own: a run in one place is another matter (docs/connections.md)."""
    steps = cut_to(kind, HANDSHAKE + exchange(sizes))
    last = len(steps) - (
        3 if kind in ("whole", "midstream") else 1
    )  # behind a close, a SYN begins a connection
    (honest,) = records(written(steps, isn).packets())
    where = sorted((1 + int(place * (last - 1)), k) for k, place in enumerate(places[: len(flags)]))
    used: set[int] = set()
    forged, c = 0, Conversation(*isn)
    for i, step in enumerate(steps):
        for at, k in where:
            if at != i or any(abs((away[k] - u + HALF) % (2 * HALF) - HALF) < 4 * AHEAD for u in used):
                continue
            before = steps[:i]
            mine = max((s[2] for s in before if s[0] == side), default=0)
            ack = max((s[3] for s in before if s[0] == side), default=0)
            if not any(s[0] == side for s in before) and "A" in flags[k]:
                ack = away[k]  # a first answer is judged by what it acknowledges
            if wild_ack:
                ack = away[k]
            used.add(away[k])
            c.send(side, flags[k], mine + away[k], ack, 10 if "P" in flags[k] else 0, after=0)
            forged += 1
        c.send(*step)
    (record,) = records(c.packets())
    assert without_counts(record) == without_counts(honest)
    assert record["orig_out_of_window"] + record["resp_out_of_window"] == forged


@given(
    chunks=st.integers(20, 40),
    begin=st.integers(2, 8),
    lost=st.sampled_from([1448, 50_000, AHEAD, 3 * AHEAD, 10**8, 2**31 + 5000, 3 * 2**30]),
    both=st.booleans(),
    isn=isns,
)
@settings(max_examples=60)
def test_the_size_is_true_after_the_capture_lost_a_part(
    chunks: int, begin: int, lost: int, both: bool, isn: tuple[int, int]
) -> None:
    """Data of a, acknowledged by b; of a part, the capture missed the data, or the acknowledgements too."""
    c = written(HANDSHAKE, isn)
    a, b, gone = 1, 1, False
    for k in range(chunks):
        if k == begin:
            a, gone = a + lost, True
            if not both:  # what was acknowledged meanwhile, in steps below the window of a receiver
                for ack in range(a - lost, a, AHEAD // 2) if lost <= 10**8 else ():
                    c.send("b", "A", b, ack + 1, after=0.01)
        c.send("a", "A", a, b, 1448)
        a += 1448
        if k % 2 or k == chunks - 1:
            c.send("b", "A", b, a)
    assert gone
    c.send("b", "PA", b, a, 700).send("a", "A", a, b + 700)
    c.close(a, b + 700)
    (record,) = records(c.packets())
    assert (record["orig_bytes"], record["resp_bytes"]) == (a - 1, 700)
    assert record["missed_bytes"] == lost
    assert record["conn_state"] == "SF"
    assert record["orig_out_of_window"] + record["resp_out_of_window"] == 0


@given(at=st.integers(1, 3), lost=st.sampled_from([AHEAD + 1, 10**8, 10**9, 2**31 - 10**6]), isn=isns)
def test_where_one_direction_is_captured_the_fin_tells_the_size(
    at: int, lost: int, isn: tuple[int, int]
) -> None:
    c = Conversation(*isn).send("a", "S", 0).send("a", "A", 1, 1)
    for k in range(at):
        c.send("a", "PA", 1 + 100 * k, 1, 100)
    c.send("a", "FA", 1 + 100 * at + lost, 1)
    (record,) = records(c.packets())
    assert (record["orig_bytes"], record["conn_state"]) == (100 * at + lost, "SH")


def rows_of(tracker: Tracker, p: Packets) -> Iterator[bytes]:
    for step in tracker.track(p):
        yield step.flags.tobytes() + step.segment.tobytes()
        yield from ended(tracker, step.closed)


def ended(tracker: Tracker, slots: Any) -> Iterator[bytes]:
    rows, sides = tracker.rows(slots)
    yield from (
        b"".join(part[k][name].tobytes() for part in (rows, sides) for name in part.dtype.names or ())
        for k in range(rows.size)
    )


CONFIGS = [TrackerConfig(capacity=5), TrackerConfig(capacity=64, vlans=True, interim_seconds=1.0),
           TrackerConfig(capacity=9, copies="keep")]  # fmt: skip


@given(seed=st.integers(0, 2**32 - 1), config=st.sampled_from(CONFIGS))
@settings(max_examples=20)
@pytest.mark.compiled
def test_a_tracker_restored_behind_every_packet_goes_on_to_the_last_bit(
    seed: int, config: TrackerConfig
) -> None:
    p = odd_stream(seed, 250)
    whole = Tracker(config)
    expected, flags = [], b""
    for step in whole.track(p):
        flags += step.flags.tobytes() + step.segment.tobytes()
        expected += list(ended(whole, step.closed))
    expected += [row for slots in whole.flush() for row in ended(whole, slots)]
    one, found = Tracker(config), []
    for i in range(p.ts.size):
        for step in one.track(take(p, slice(i, i + 1))):
            found += list(ended(one, step.closed))
        state, one = one.state(), Tracker(config)
        one.restore(state)
        again = one.state()
        assert state.keys() == again.keys()
        assert all(np.array_equal(state[name], again[name]) for name in state)
    found += [row for slots in one.flush() for row in ended(one, slots)]
    assert found == expected


@given(seed=st.integers(0, 2**32 - 1), config=st.sampled_from(CONFIGS), cut=st.integers(1, 399))
@settings(max_examples=40)
@pytest.mark.compiled
def test_ids_come_once_and_cuts_change_none(seed: int, config: TrackerConfig, cut: int) -> None:
    p = odd_stream(seed, 400)

    def ids(parts: list[Packets]) -> list[str]:
        tracker = Tracker(config)
        out = []
        for part in parts:
            for step in tracker.track(part):
                out += connection_table(*tracker.rows(step.closed))["uid"].to_pylist()
        for slots in tracker.flush():
            out += connection_table(*tracker.rows(slots))["uid"].to_pylist()
        return out

    whole = ids([p])
    assert len(set(whole)) == len(whole)
    assert ids([take(p, slice(0, cut)), take(p, slice(cut, None))]) == whole


@pytest.mark.compiled
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("copies", ["drop", "keep"])
def test_a_table_full_of_wild_segments_stays_within_its_bounds(
    seed: int, copies: Literal["drop", "keep"]
) -> None:
    config = TrackerConfig(capacity=64, holes=4, copies=copies, attempt_timeout=1.0)
    found, memory = soak(150_000, seed, config)
    assert found == []
    assert len(memory) == 15
