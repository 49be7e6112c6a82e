"""Byte ranges of one side's sequence space: new, seen before, and the holes between.

A side keeps the end of what it has seen and a bounded list of holes below it; tcptrace keeps the complement. When
there are too many holes, one that counts as missed is dropped, else the oldest, as missed or filled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.history import L_GAP, scaled_letter
from engine.connections.layout import FLAG_HOLES_OVERFLOW, Segment, State
from engine.kernels import Int, kernel

Holes = NDArray[np.int64]

CLOSED = int(State.CLOSED)
NEW, DUPLICATE, SPURIOUS = int(Segment.NEW), int(Segment.DUPLICATE), int(Segment.SPURIOUS)
REORDERED, RETRANSMITTED, PARTIAL = int(Segment.REORDERED), int(Segment.RETRANSMITTED), int(Segment.PARTIAL)

REORDER_DEFAULT = 3_000_000  # ns; longest reordering while no round trip is known, as in Wireshark
ACK_GUARD = 1_000_000  # ns; a tap may deliver an ACK this much earlier than the data it acknowledges
# bits of a hole
HOLE_MISSED = 1  # counted as missed
HOLE_SHOWN = 2  # shown by a bare ACK of its own side; no data beyond it yet
NO_GUARD = -(1 << 62)  # ns; no guard: nothing can arrive any more


@kernel
def open_hole(row: Any, me: Any, holes: Holes, s: Int, begin: Int, end: Int, ts: Int) -> None:
    """Keep an unseen range; when there are too many, the oldest is dropped, those counted as missed first."""
    n = me["holes"]
    if n == holes.shape[1]:
        oldest = 0
        while oldest < n and not holes[s, oldest, 3] & HOLE_MISSED:
            oldest += 1
        if oldest == n:
            row["flags"] |= FLAG_HOLES_OVERFLOW
            oldest = 0
            if holes[s, 0, 1] <= me["acked"]:  # the receiver has those bytes, the capture does not
                me["missed"] += np.uint64(holes[s, 0, 1] - holes[s, 0, 0])
        drop_hole(me, holes, s, oldest)
        n -= 1
    holes[s, n, 0] = begin
    holes[s, n, 1] = end
    holes[s, n, 2] = ts
    holes[s, n, 3] = 0
    me["holes"] = n + 1


@kernel
def drop_hole(me: Any, holes: Holes, s: Int, k: Int) -> None:
    """Drop hole k, keeping the order of the others."""
    n = me["holes"]
    for j in range(k + 1, n):
        for c in range(4):
            holes[s, j - 1, c] = holes[s, j, c]
    me["holes"] = n - 1


@kernel
def fill_holes(row: Any, me: Any, holes: Holes, s: Int, begin: Int, end: Int) -> tuple[Int, Int, bool]:
    """Take [begin, end) out of the holes.

    Gives the bytes that were unseen, when their hole opened, and whether no data was seen beyond it at that time.
    """
    filled, opened, quiet = 0, 0, True
    k = 0
    while k < me["holes"]:
        a, b, since = holes[s, k, 0], holes[s, k, 1], holes[s, k, 2]
        low, high = max(a, begin), min(b, end)
        if low >= high:
            k += 1
            continue
        if filled == 0 or since < opened:
            opened = since
        filled += high - low
        marks = holes[s, k, 3]
        quiet = quiet and marks & HOLE_SHOWN != 0
        if marks & HOLE_MISSED:  # they come after all
            me["missed"] -= np.uint64(high - low)
        if low == a and high == b:
            drop_hole(me, holes, s, k)
        elif low == a:
            holes[s, k, 0] = high
            k += 1
        elif high == b:
            holes[s, k, 1] = low
            k += 1
        else:
            holes[s, k, 1] = low
            open_hole(row, me, holes, s, high, b, since)
            holes[s, me["holes"] - 1, 3] = marks
            k += 1
    return filled, opened, quiet


@kernel
def reorder_bound(row: Any, me: Any, you: Any) -> Int:
    """Longest delay in ns that counts as reordering: the handshake's round trip, else the ACKs', else 3 ms."""
    handshake = row["handshake"]
    if handshake > 0:
        return handshake
    one, other = me["round_trip"], you["round_trip"]
    return one + other if one > 0 and other > 0 else REORDER_DEFAULT


@kernel
def place(
    row: Any, me: Any, you: Any, holes: Holes, s: Int, begin: Int, end: Int, ts: Int
) -> tuple[Int, Int]:
    """Put [begin, end) into the side's sequence space; gives its Segment class, and how much was seen before."""
    high = me["high"]
    if begin >= high:
        for k in range(me["holes"]):
            holes[s, k, 3] &= ~HOLE_SHOWN  # now data shows it, too
        if begin > high:
            open_hole(row, me, holes, s, high, begin, ts)
        me["high"] = end
        me["t_high"] = ts
        return NEW, np.int64(0)
    filled, opened, quiet = fill_holes(row, me, holes, s, begin, min(end, high))
    seen = min(end, high) - begin - filled
    me["again_bytes"] += seen
    if end > high:
        me["high"] = end
        me["t_high"] = ts
    if filled == 0 and end <= high:
        acked = me["acked"] >= end and ts - me["t_acked"] >= ACK_GUARD
        return SPURIOUS if acked else DUPLICATE, seen
    if seen > 0:
        return PARTIAL, seen
    if end <= me["acked"] and ts - opened < ACK_GUARD:
        return NEW, seen  # the tap delivered the ACK before its data
    if ts - opened >= reorder_bound(row, me, you):
        return RETRANSMITTED, seen
    return NEW if quiet else REORDERED, seen


@kernel
def count_losses(row: Any, me: Any, you: Any, holes: Holes, s: Int, d: Int, ts: Int, guard: Int) -> None:
    """Count holes that were acknowledged: the receiver has those bytes, the capture missed them.

    They are kept as long as there is room: bytes that come after all are late, not new, and no longer missed.
    """
    for k in range(me["holes"]):
        if (
            not holes[s, k, 3] & HOLE_MISSED
            and holes[s, k, 1] <= me["acked"]
            and ts - holes[s, k, 2] >= guard
        ):
            me["missed"] += np.uint64(holes[s, k, 1] - holes[s, k, 0])
            holes[s, k, 3] |= HOLE_MISSED
            if me["state"] <= CLOSED and you["state"] <= CLOSED:
                me["gaps"] += 1
                scaled_letter(row, d, me["gaps"], L_GAP)
