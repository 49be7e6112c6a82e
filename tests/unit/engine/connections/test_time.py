"""Connections where time goes back, and ids where a key and a start come again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.types import Packets, concatenate
from tests.support.conversation import MS, T0, Conversation
from tests.support.datagrams import udp
from tests.support.tracking import only

SECOND = 1000 * MS
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR


def records(p: Packets, config: TrackerConfig | None = None) -> tuple[list[dict[str, Any]], dict[str, int]]:
    tracker = Tracker(config or TrackerConfig(capacity=512))
    tables = [connection_table(*tracker.rows(step.closed)) for step in tracker.track(p)]
    tables += [connection_table(*tracker.rows(slots)) for slots in tracker.flush()]
    rows = [row for table in tables for row in table.drop_columns(["ts"]).to_pylist()]
    return rows, tracker.counters


def questions(n: int, begin: int = T0, apart: int = 61 * SECOND) -> Packets:
    """Datagrams on one pair of ports, further apart than UDP's timeout."""
    return udp([begin + k * apart for k in range(n)], [5] * n)


@pytest.mark.parametrize("ahead", [HOUR + SECOND, 24 * HOUR, YEAR, 30 * YEAR])
@pytest.mark.parametrize("wrong", [1, 2, 20])
def test_behind_a_clock_that_was_ahead_connections_end_in_time(ahead: int, wrong: int) -> None:
    p = concatenate([questions(wrong, T0 + ahead, SECOND), questions(60)])
    found, counters = records(p)
    assert len(found) == 61
    assert sorted(r["orig_pkts"] for r in found) == [1] * 60 + [wrong]
    assert counters["steps_back"] == (wrong > 1)
    assert len({r["uid"] for r in found}) == 61


@pytest.mark.parametrize("back", [30 * SECOND, 10 * 60 * SECOND, HOUR, 2 * HOUR])
def test_a_clock_that_is_set_back_splits_what_its_timeout_splits(back: int) -> None:
    before, after = questions(100, T0, SECOND), questions(100, T0 + 100 * SECOND - back, SECOND)
    found, counters = records(concatenate([before, after]))
    assert counters["steps_back"] == 1
    assert sum(r["orig_pkts"] for r in found) == 200
    strays = 7 if back > 60 * SECOND else 0  # before eight packets have shown it
    assert sorted(r["orig_pkts"] for r in found) == ([1] * strays + [93, 100] if strays else [200])


@pytest.mark.parametrize("wrong", [-30 * YEAR, -2 * HOUR, -75 * SECOND])
@pytest.mark.parametrize("place", [2, 50, 99])
def test_one_packet_far_behind_changes_no_other_record(wrong: int, place: int) -> None:
    p = questions(100, T0, SECOND)
    p.ts[place] += wrong
    found, counters = records(p)
    assert counters["steps_back"] == 0
    assert sorted(r["orig_pkts"] for r in found) == [1, 99]
    (whole,) = (r for r in found if r["orig_pkts"] == 99)
    assert whole["duration"] == (98 if place == 99 else 99)
    assert [r["late_packets"] for r in found if r["orig_pkts"] == 1] == [True]


@pytest.mark.parametrize("wrong", [-30 * YEAR, -2 * HOUR])
def test_one_segment_far_behind_stays_in_its_connection(wrong: int) -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "PA", 1, 101, 500).send("a", "A", 101, 501)
    c.rows[4]["ts"] += wrong
    record = only(c.close(101, 501))
    assert (record["conn_state"], record["orig_bytes"], record["resp_bytes"]) == ("SF", 100, 500)
    assert record["late_packets"]


def test_a_tcp_connection_survives_a_clock_that_is_set_back() -> None:
    c = Conversation().open()
    for k in range(40):
        c.send("a", "PA", 1 + 100 * k, 1, 100, after=100).send("b", "A", 1, 101 + 100 * k)
        if k == 20:
            c.now -= HOUR
    record = only(c.close(4001, 1))
    assert (record["conn_state"], record["orig_bytes"], record["orig_retransmitted"]) == ("SF", 4000, 0)


def test_files_out_of_order_are_followed() -> None:
    late, early = questions(50, T0 + 24 * HOUR), questions(50, T0)
    found, counters = records(concatenate([late, early]))
    assert (len(found), counters["steps_back"]) == (100, 1)
    assert sum(r["ending"] == "timeout" for r in found) >= 98


def test_ids_come_once_although_a_capture_is_read_twice() -> None:
    p = concatenate([questions(50), questions(50), questions(50)])
    found, _ = records(p)
    assert len({r["uid"] for r in found}) == len(found) >= 150


def test_ids_come_once_although_ports_are_reused_within_one_tick_of_the_clock() -> None:
    parts = []
    for k in range(40):
        c = Conversation(isn_a=1000 + 5000 * k).send("a", "S", 0).send("b", "RA", -7_000_000, 1)
        parts.append(c.packets())
    p = concatenate(parts)
    p.ts[:] = T0  # a clock of seconds
    found, _ = records(p)
    assert len(found) == 40
    assert len({r["uid"] for r in found}) == 40


def test_the_ids_of_a_run_are_those_of_its_repeat() -> None:
    p = concatenate([questions(50), questions(50)])
    assert [r["uid"] for r in records(p)[0]] == [r["uid"] for r in records(p)[0]]


@pytest.mark.parametrize("cut", [1, 7, 55, 60])
def test_state_goes_on_over_a_step_back(cut: int) -> None:
    p = concatenate([questions(50, T0 + 2 * HOUR, SECOND), questions(60)])
    whole, _ = records(p)
    first, rest = (Packets._make(column[part] for column in p) for part in (slice(cut), slice(cut, None)))
    one = Tracker(TrackerConfig(capacity=512))
    rows = [
        r for step in one.track(first) for r in connection_table(*one.rows(step.closed))["uid"].to_pylist()
    ]
    two = Tracker(TrackerConfig(capacity=512))
    two.restore(one.state())
    rows += [
        r for step in two.track(rest) for r in connection_table(*two.rows(step.closed))["uid"].to_pylist()
    ]
    rows += [r for slots in two.flush() for r in connection_table(*two.rows(slots))["uid"].to_pylist()]
    assert rows == [r["uid"] for r in whole]


def test_an_interim_row_is_due_as_often_as_is_asked_for_and_changes_no_other() -> None:
    p = questions(100, T0, SECOND)
    config = TrackerConfig(capacity=8, interim_seconds=30.0)
    tracker = Tracker(config)
    seen = [int(slot) for step in tracker.track(p) for slot in step.interim]
    assert len(seen) == 3
    assert records(p, config)[0] == records(p)[0]


def test_no_interim_row_is_due_of_a_connection_that_has_ended_meanwhile() -> None:
    p = concatenate([questions(40, T0, SECOND), questions(1, T0 + 200 * SECOND)])
    (step,) = Tracker(TrackerConfig(capacity=8, interim_seconds=30.0)).track(p)
    assert step.interim.size == 1
    assert step.going_on().size == 0
    assert np.isin(step.interim, step.closed).all()


def test_the_id_of_a_syn_that_waited_is_not_that_of_a_connection_with_its_start() -> None:
    c = Conversation().send("b", "PA", 1, 1, 10).send("a", "A", 1, 11, after=0)
    c.isn = {"a": 2_000_000_000, "b": 5}
    c.send("a", "S", 0, after=0).send("b", "SA", 0, 1)
    found, _ = records(c.packets())
    assert [r["conn_state"] for r in found] == ["OTH", "S1"]
    assert len({r["uid"] for r in found}) == 2


def test_a_syn_that_waited_and_is_answered_before_its_time_has_no_negative_duration() -> None:
    c = Conversation().open()
    c.isn = {"a": 2_000_000_000, "b": 5}
    c.send("a", "S", 0).send("b", "SA", 0, 1, after=-2000).send("a", "A", 1, 1)
    found, _ = records(c.packets())
    assert [r["duration"] for r in found][1] is None
