"""What the tracker says of a written conversation."""

from __future__ import annotations

from typing import Any

from engine.connections.bounds import TrackerConfig
from engine.connections.layout import PACKET_IN_RECOVERY, Segment
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.types import join_rows
from tests.support.conversation import Conversation


def tracked(
    c: Conversation, config: TrackerConfig | None = None
) -> tuple[list[Segment], list[bool], list[dict[str, Any]]]:
    """Segment and in-recovery of each packet, and the records in the order in which connections ended."""
    tracker = Tracker(config or TrackerConfig(capacity=64))
    segments: list[Segment] = []
    recovery: list[bool] = []
    parts = []
    for step in tracker.track(c.packets()):
        segments += [Segment(s) for s in step.segment]
        recovery += ((step.flags & PACKET_IN_RECOVERY) != 0).tolist()
        parts.append(tracker.rows(step.closed))
    parts += [tracker.rows(slots) for slots in tracker.flush()]
    rows, sides = (join_rows(list(part)) for part in zip(*parts))
    table = connection_table(rows, sides).drop_columns(["ts"])
    return segments, recovery, table.to_pylist()


def only(c: Conversation) -> dict[str, Any]:
    """The one record of a conversation."""
    _, _, records = tracked(c)
    assert len(records) == 1
    return records[0]


def kinds(c: Conversation) -> list[Segment]:
    """The Segment of each packet."""
    return tracked(c)[0]
