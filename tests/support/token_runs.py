"""Tokens of a stream as the kernel and as the naive twin give them, in blocks, with heartbeats and restarts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from engine.clock import new_clock, run_noting
from engine.connections.bounds import TrackerConfig
from engine.connections.tracker import Tracked, Tracker
from engine.features.tokens import TokenConfig, Tokens
from engine.scoring.detector import slots_needed
from engine.scoring.token_pass import TokenPass
from engine.types import Packets, take
from tests.support.naive_stream import NaiveStream, Token

import numpy as np  # isort: skip

SMALL = TrackerConfig(capacity=64)


class Row(NamedTuple):
    """A token in plain values."""

    slot: int
    number: int
    ts: int
    at: int  # number of the packet that let it through, or of the one before its connection's end
    entries: tuple[tuple[int, float], ...]  # sorted; values rounded to six places


def plain(tokens: Tokens, begin: int) -> list[Row]:
    """Tokens of a block that begins with packet ``begin``; valid for good."""
    out = []
    for m in range(tokens.slot.size):
        entries = []
        for row, value in zip(tokens.rows[m].tolist(), tokens.values[m].tolist()):
            if row < 0:
                break
            entries.append((row, round(value, 6)))
        first = (int(tokens.slot[m]), int(tokens.number[m]), int(tokens.ts[m]), begin + int(tokens.at[m]))
        out.append(Row(*first, tuple(sorted(entries))))
    return out


def plain_naive(tokens: Iterable[Token], begin: int) -> list[Row]:
    """The same of naive tokens."""
    return [
        Row(
            t.slot, t.number, t.ts, begin + t.at,
            tuple(sorted((row, round(float(np.float32(value)), 6)) for row, value in t.entries().items())),
        )
        for t in tokens
    ]  # fmt: skip


def steps(tracker: Tracker, p: Packets, cuts: Sequence[int] = ()) -> Iterator[tuple[Packets, Tracked]]:
    """Packets with what the tracker says of them, cut there and where the tracker hands over."""
    edges = [0, *sorted({min(c, p.ts.size) for c in cuts} - {0, p.ts.size}), p.ts.size]
    for a, b in pairwise(edges):
        part = take(p, slice(a, b))
        for t in tracker.track(part, a):
            yield take(part, slice(t.begin, t.end)), t


def kernel_run(
    p: Packets, config: TokenConfig, cuts: Sequence[int] = (), *, tracking: TrackerConfig = SMALL,
    restored: bool = False, ticks: bool = False,
) -> tuple[list[Row], dict[str, int]]:  # fmt: skip
    """Tokens of packets p, and what was counted.

    restored: a new pass goes on from the state behind every block. ticks: heartbeats between all packets, of times that
    do not change event time at any packet.
    """
    tracker, one = Tracker(tracking), TokenPass(config, None, slots_needed(tracking))
    out: list[Row] = []
    now = np.zeros(p.ts.size, np.int64)
    with np.errstate(over="ignore"):
        run_noting(new_clock(), p.ts, now)
    for part, t in steps(tracker, p, cuts):
        if ticks and t.number and now[t.number] > now[t.number - 1]:
            before, after = int(now[t.number - 1]), int(now[t.number])
            for k in range(1, 4):
                out += plain(one.tick(before + (after - before) * k // 4), t.number)
        out += plain(one.update(part, t), t.number)
        if restored:
            saved, one = one.state(), TokenPass(config, None, slots_needed(tracking))
            one.restore(saved)
            again = one.state()
            assert saved.keys() == again.keys()
            assert all(np.array_equal(saved[name], again[name]) for name in saved)
    for slots in tracker.flush():
        out += plain(one.close(slots), p.ts.size)
    return out, dict(one.counters())


def naive_run(
    p: Packets, config: TokenConfig, tracking: TrackerConfig = SMALL
) -> tuple[list[Row], NaiveStream]:
    """Tokens of packets p from the definition."""
    tracker, one = Tracker(tracking), NaiveStream(config)
    out: list[Row] = []
    for part, t in steps(tracker, p):
        out += plain_naive(one.update(part, t), t.number)
    for slots in tracker.flush():
        out += plain_naive(one.close(slots.tolist()), p.ts.size)
    return out, one


def by_ends(
    rows: list[Row], p: Packets
) -> dict[tuple[int, ...], list[tuple[int, tuple[tuple[int, float], ...]]]]:
    """Numbers and entries of tokens in order, by the ends of their packets."""
    out: dict[tuple[int, ...], list[tuple[int, tuple[tuple[int, float], ...]]]] = defaultdict(list)
    for row in rows:
        i = row.number
        ends = sorted([(int(p.src_lo[i]), int(p.sport[i])), (int(p.dst_lo[i]), int(p.dport[i]))])
        out[*ends[0], *ends[1]].append((i, row.entries))
    return dict(out)
