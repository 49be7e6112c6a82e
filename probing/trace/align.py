"""Places of packets on an axis that several connections share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.types import Floats
from probing.corpus.columns import Ints
from probing.trace.connection import TracedConnection

ADDS = frozenset({"new", "reordered", "retransmitted", "partial", "none"})  # segments that bring new bytes
EDGE = 0.05  # share of the axis for packets before the first byte, and for those after the last


class Band(NamedTuple):
    """A part of an axis."""

    begin: float  # share of the axis, 0 to 1
    end: float
    name: str


class Axis(NamedTuple):
    """Where the packets of some connections stand."""

    kind: str  # time, phase or bytes
    note: str  # how they are aligned, a sentence
    places: list[Floats]  # of each connection: (n,) from 0 to 1
    bands: list[list[Band]]  # of each connection
    spans: list[
        list[float]
    ]  # of each connection: seconds that each band lasted; of time: that the axis lasts


def by_time(connections: Sequence[TracedConnection]) -> Axis:
    """Each connection on an axis of its own, from its first packet to its last."""
    places, bands, spans = [], [], []
    for one in connections:
        first, length = one.ts[0], max(1, int(one.ts.max() - one.ts[0]))
        places.append(np.clip((one.ts - first) / length, 0.0, 1.0))
        starts = [min(1.0, max(0.0, (mark.ts - int(first)) / length)) for mark in one.marks]
        bands.append([Band(a, b, m.phase) for a, b, m in zip(starts, [*starts[1:], 1.0], one.marks)])
        spans.append([length / 1e9])
    return Axis("time", "x: time since the connection's first packet", places, bands, spans)


def aligned(connections: Sequence[TracedConnection]) -> Axis:
    """Twins by their phases, or, where they share none, by their bytes."""
    common = 0
    while (
        all(len(s.marks) > common for s in connections)
        and len({s.marks[common].phase for s in connections}) == 1
    ):
        common += 1
    return by_phase(connections, common) if common else by_bytes(connections)


def by_phase(connections: Sequence[TracedConnection], common: int) -> Axis:
    """Each phase stretched to the same width; within it, packets stand by time.

    common: number of phases, from the first, that are the same in all. What comes after them is one more part.
    """
    names = [mark.phase for mark in connections[0].marks[:common]]
    before = any(int(s.ts.min()) < s.marks[0].ts for s in connections)
    after = any(len(s.marks) > common for s in connections)
    names = ["before"] * before + names + ["after"] * after
    places, bands, spans = [], [], []
    edges = np.linspace(0.0, 1.0, len(names) + 1)
    for one in connections:
        at = _edges(one, common, before, after)
        places.append(_within(one.ts, at, edges))
        bands.append([Band(a, b, name) for a, b, name in zip(edges.tolist(), edges[1:].tolist(), names)])
        spans.append((np.diff(at) / 1e9).tolist())
    phases = f"{common} phase{'s' if common > 1 else ''}"
    differ = f"; phases differ after the first {common}" if after else ""
    return Axis(
        "phase", f"x: aligned by {phases}, each stretched to the same width{differ}", places, bands, spans
    )


def _edges(one: TracedConnection, common: int, before: bool, after: bool) -> Ints:
    """Times in ns at which the parts of an axis begin, and the end of the last."""
    first, last = int(one.ts.min()), int(one.ts.max())
    starts = [max(first, mark.ts) for mark in one.marks[:common]]
    at = [first] * before + starts
    if after:
        at.append(one.marks[common].ts if len(one.marks) > common else last)
    return np.array([*at, max(last, at[-1])], np.int64)


def _within(ts: Ints, at: Ints, edges: Floats) -> Floats:
    """Places of times: a part of no length holds none, or, if it is the last, those at its beginning."""
    k = np.clip(np.searchsorted(at, ts, side="right") - 1, 0, at.size - 2)
    share = np.clip((ts - at[k]) / np.maximum(1, at[k + 1] - at[k]), 0.0, 1.0)
    places: Floats = edges[k] + share * (edges[k + 1] - edges[k])
    return places


def by_bytes(connections: Sequence[TracedConnection]) -> Axis:
    """Packets by the share of payload bytes so far: the mean of both directions' shares.

    Bytes sent again do not count. Packets between two that bring bytes are spread evenly.
    """
    note = "x: no common phases; aligned by the share of payload bytes so far, the mean of both directions"
    return Axis(
        "bytes",
        note,
        [_by_bytes(s) for s in connections],
        [[] for _ in connections],
        [[] for _ in connections],
    )


def _by_bytes(one: TracedConnection) -> Floats:
    adds = np.array([segment in ADDS for segment in one.segment], bool)
    shares = []
    for side in (one.up, ~one.up):
        so_far = np.cumsum(np.where(side & adds, one.payload, 0)).astype(np.float64)
        if so_far[-1]:
            shares.append(so_far / so_far[-1])
    n = one.ts.size
    if not shares:
        return (np.arange(n) + 0.5) / n
    share = np.mean(shares, axis=0)
    _, first, group = np.unique(share, return_index=True, return_inverse=True)
    count = np.diff([*first.tolist(), n])
    left = np.where(share[first] == 0.0, 0.0, EDGE + (1 - 2 * EDGE) * share[first])
    right = np.append(left[1:], 1.0)
    within = (np.arange(n) - first[group]) / count[group]
    places: Floats = left[group] + within * (right - left)[group]
    return places
