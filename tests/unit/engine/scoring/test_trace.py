"""What a tracer keeps of each packet, and how much of all."""

from __future__ import annotations

import pytest

from engine.connections.record import uids
from engine.connections.tracker import Tracker
from engine.scoring import trace as tracers
from engine.scoring.scorer import Ended
from engine.scoring.trace import Selection, Tracer
from engine.types import Packets
from tests.support.conversation import Conversation


def begun(tracker: Tracker, p: Packets, tracer: Tracer) -> None:
    """Give a tracer the packets of one connection, and its end."""
    for step in tracker.track(p):
        tracer.packets(p, step, tracker.table.rows)
    for closed in tracker.flush():
        tracer.end(Ended(closed, *tracker.rows(closed)))


def tracer_of(*conversations: Packets, waits: bool = False) -> Tracer:
    """A tracer that has seen these conversations one after the other."""
    known = []
    for p in conversations:
        tracker = Tracker()
        for step in tracker.track(p):
            known += uids(tracker.table.rows[step.slot[:1]])
    tracker, tracer = Tracker(), Tracer(Selection(frozenset(known)), [], waits=waits)
    tracer.allocate(tracker.table.rows.size)
    for p in conversations:
        begun(tracker, p, tracer)
    return tracer


def test_packets_from_a_retransmission_to_the_ack_of_all_data_are_in_recovery() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("a", "PA", 101, 1, 100)
    c.send("a", "PA", 1, 1, 100, after=300).send("b", "A", 1, 101).send("b", "A", 1, 201, after=20)
    rows = tracer_of(c.send("a", "PA", 201, 1, 100).packets()).drain().to_pylist()
    assert [row["segment"] for row in rows][3:6] == ["new", "new", "duplicate"]
    assert [row["recovery"] for row in rows] == [False] * 5 + [True, True] + [False] * 2


@pytest.mark.parametrize(("waits", "kept"), [(False, 6), (True, 4)])
def test_where_nobody_drains_ended_connections_count_for_the_bound(
    monkeypatch: pytest.MonkeyPatch, waits: bool, kept: int
) -> None:
    monkeypatch.setattr(tracers, "MOST_ROWS", 4)
    other = Conversation()
    other.now += 10**9
    tracer = tracer_of(Conversation().open().packets(), other.open().packets(), waits=waits)
    assert tracer.drain().num_rows == kept
    assert tracer.skipped == 6 - kept
