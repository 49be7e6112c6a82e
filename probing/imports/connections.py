"""Label rows for the connections of a capture, each from its first packet to its very last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.commands.reading import read_packets
from engine.config import Config
from engine.connections.bounds import SPARE
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker

Times = NDArray[np.int64]
NEVER = np.iinfo(np.int64)


def connection_rows(path: Path) -> Iterator[dict[str, Any]]:
    """A row with keys alone for each connection, in the order of their ends.

    A record's duration ends where both sides have closed; a row's time also has the last ACK and what else came after,
    and begins with the earliest packet even if it was captured late. Raises InputError for a damaged capture, after the
    connections before the damage.
    """
    tracker = Tracker(Config().connections, SPARE)
    first = np.full(tracker.table.rows.size, NEVER.max)
    last = np.full(tracker.table.rows.size, NEVER.min)
    problem: Exception | None = None
    try:
        for p in read_packets([path]):
            for step in tracker.track(p):
                known = step.slot >= 0
                slots, ts = step.slot[known], p.ts[step.begin : step.end][known]
                np.minimum.at(first, slots, ts)
                np.maximum.at(last, slots, ts)
                yield from _rows(tracker, step.closed, first, last)
    except Exception as error:  # raised again below
        problem = error
    for slots in tracker.flush():
        yield from _rows(tracker, slots, first, last)
    if problem is not None:
        raise problem


def _rows(tracker: Tracker, slots: NDArray[np.int32], first: Times, last: Times) -> Iterator[dict[str, Any]]:
    """The rows of connections that ended; their places in ``first`` and ``last`` are cleared."""
    if not slots.size:
        return
    table = connection_table(*tracker.rows(slots))
    times = first[slots].tolist(), last[slots].tolist()
    first[slots], last[slots] = NEVER.max, NEVER.min
    names = ("id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto", "ip_proto")
    for start, end, src, sport, dst, dport, proto, number in zip(
        *times, *(table.column(name).to_pylist() for name in names)
    ):
        ports = proto in ("tcp", "udp")
        yield {
            "src": src, "dst": dst, "sport": sport if ports else None, "dport": dport if ports else None,
            "proto": proto if ports or proto == "icmp" else str(number), "start": start, "end": end,
        }  # fmt: skip
