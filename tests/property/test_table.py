"""The connection table against a twin made of a dict: the connection of each packet, and its end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.connections.bounds import TrackerConfig
from engine.connections.tracker import Tracker
from engine.types import KIND_TRANSPORT, Kind, Packets, empty_packets

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


def datagrams(seed: int, n: int) -> Packets:
    """n UDP packets in both directions among 300 flows, with pauses that let some of them time out."""
    rng = np.random.default_rng(seed)
    p = empty_packets(n)
    p.ts[:] = T0 + np.cumsum(rng.choice([0, SECOND // 10, 20 * SECOND], n, p=[0.3, 0.6, 0.1]))
    flow, back = rng.integers(0, 300, n), rng.random(n) < 0.5
    a, b = (0xFFFF << 32 | 10) + flow // 60, np.full(n, 0xFFFF << 32 | 99)
    p.src_lo[:], p.dst_lo[:] = np.where(back, b, a), np.where(back, a, b)
    p.sport[:], p.dport[:] = np.where(back, 7, 40_000 + flow % 60), np.where(back, 40_000 + flow % 60, 7)
    p.proto[:], p.kind[:] = 17, Kind.IPV4 | KIND_TRANSPORT
    return p


def naive(p: Packets, timeout: int) -> list[tuple[frozenset[tuple[int, int]], int, int, int]]:
    """(endpoints, first time, last time, packets) of every connection: a packet joins the last connection of its
    endpoints unless it was silent for the timeout."""
    found: dict[frozenset[tuple[int, int]], list[list[int]]] = {}
    for ts, a, sport, b, dport in zip(*(c.tolist() for c in (p.ts, p.src_lo, p.sport, p.dst_lo, p.dport))):
        ends = frozenset(((a, sport), (b, dport)))
        mine = found.setdefault(ends, [])
        if mine and mine[-1][1] + timeout > ts:
            mine[-1][1] = ts
            mine[-1][2] += 1
        else:
            mine.append([ts, ts, 1])
    rows = [(ends, first, last, n) for ends, mine in found.items() for first, last, n in mine]
    return sorted(rows, key=lambda row: (sorted(row[0]), row[1]))


@given(seed=st.integers(0, 2**32 - 1))
def test_packets_are_grouped_as_by_a_dict(seed: int) -> None:
    p = datagrams(seed, 1500)
    tracker = Tracker(TrackerConfig(capacity=300, udp_timeout=60))  # as full as it can be without eviction
    out = []
    batches = [tracker.rows(step.closed.copy()) for step in tracker.track(p)]
    batches += [tracker.rows(slots) for slots in tracker.flush()]
    for rows, sides in batches:
        for row, pair in zip(rows, sides):
            ends = frozenset(((int(row["a_lo"]), int(row["a_port"])), (int(row["b_lo"]), int(row["b_port"]))))
            out.append((ends, int(row["start"]), int(row["last"]), int(pair["packets"].sum())))
    assert sorted(out, key=lambda r: (sorted(r[0]), r[1])) == naive(p, 60 * SECOND)
    assert tracker.counters["evicted"] == 0
