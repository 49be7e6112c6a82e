"""The queue in front of a rate or of a delivery trace: drop-tail or CoDel, shared with unseen cross traffic.

A queue is brought up to date before a frame enters it and when its event on the heap is due; in between nothing about
it can change. Its times are those at which things should have happened, however late the loop looks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.kernels import kernel
from probing.lab.link.account import dropped
from probing.lab.link.forward import forward
from probing.lab.link.heap import schedule
from probing.lab.link.tables import (
    BEGAN,
    CODEL,
    CROSS,
    ETHERNET,
    FAR,
    OPPORTUNITY,
    OVERFLOW,
    STEP,
    State,
    exponential,
    occupies,
    parse,
)  # fmt: skip

TARGET_NS = 5_000_000  # ns of standing delay that CoDel accepts (RFC 8289, section 4.2)
INTERVAL_NS = 100_000_000  # ns that the delay must stay above the target before CoDel drops (section 4.3)


@kernel
def _opportunity(s: State, q: Any, number: int) -> int:
    """The time in ns of a trace's opportunity; the trace repeats."""
    cycle, k = number // q["n"], number % q["n"]
    return int(s.control[BEGAN] + cycle * q["period"] + s.traces[q["first"] + k])


@kernel
def _next_opportunity(s: State, q: Any, ts: int) -> int:
    """The number of the first unused opportunity that is not before a time."""
    unused = int(q["at"]) + 1
    if _opportunity(s, q, unused) >= ts:
        return unused
    cycle = max(unused // q["n"], (ts - s.control[BEGAN]) // q["period"] - 1)
    while _opportunity(s, q, (cycle + 1) * q["n"] - 1) < ts:
        cycle += 1
    low, high = max(unused, cycle * q["n"]), (cycle + 1) * q["n"] - 1
    while low < high:
        middle = (low + high) // 2
        if _opportunity(s, q, middle) < ts:
            low = middle + 1
        else:
            high = middle
    return int(low)


@kernel
def _starts(s: State, port: int, d: int) -> int:
    """The time at which the first waiting frame can be taken out; FAR when none waits."""
    q = s.queues[port, d]
    if q["head"] == q["tail"]:
        return FAR
    ts = s.slots[port, d, q["head"] % s.slots.shape[2]]["ts"]
    if q["n"] == 0:
        return int(max(q["busy"], ts))
    if q["left"] > 0 and ts <= q["busy"]:  # there already when the opportunity came: it shares it
        return int(q["busy"])
    return _opportunity(s, q, _next_opportunity(s, q, ts))


@kernel
def _send(s: State, q: Any, size: int, now: int) -> int:
    """Take the time or the opportunities that a frame needs from now on; returns the time at which it has left."""
    if q["n"] == 0:
        q["busy"] = now + int(size * 8e9 / q["rate"])
        return int(q["busy"])
    left = size - ETHERNET
    if q["left"] == 0 or q["busy"] != now:
        q["at"], q["left"] = _next_opportunity(s, q, now), OPPORTUNITY
    while left > q["left"]:
        left -= q["left"]
        q["at"], q["left"] = q["at"] + 1, OPPORTUNITY
    q["left"] -= left
    q["busy"] = _opportunity(s, q, int(q["at"]))
    return int(q["busy"])


@kernel
def _take(s: State, port: int, d: int, now: int) -> tuple[int, bool]:
    """The place of the frame that is taken out (-1: none waits), and whether CoDel may drop it."""
    q = s.queues[port, d]
    if q["head"] == q["tail"]:
        q["above"] = 0
        return -1, False
    place = int(q["head"] % s.slots.shape[2])
    slot = s.slots[port, d, place]
    q["head"] += 1
    q["bytes"] -= slot["size"]
    q["own"] -= slot["record"] >= 0
    if now - slot["ts"] < TARGET_NS or q["bytes"] <= q["most"]:
        q["above"] = 0
        return place, False
    if q["above"] == 0:
        q["above"] = now + INTERVAL_NS
        return place, False
    return place, now >= q["above"]


@kernel
def _drop(s: State, port: int, d: int, place: int) -> None:
    """Count a frame that CoDel drops."""
    number = s.slots[port, d, place]["record"]
    if number >= 0:
        r = s.records[number]
        dropped(r, s.flows[r["flow"]], CODEL, occupies(parse(s.store, r["start"], r["length"])))


@kernel
def _later(ts: int, count: int) -> int:
    """The time of CoDel's next drop."""
    return int(ts + INTERVAL_NS / np.sqrt(float(count)))


@kernel
def _chosen(s: State, port: int, d: int, now: int) -> int:
    """The place of the frame that leaves now, behind those that CoDel drops; -1: none is left (RFC 8289, section 5)."""
    q = s.queues[port, d]
    place, may = _take(s, port, d, now)
    if not q["codel"]:
        return place
    if q["dropping"]:
        if not may:
            q["dropping"] = 0
        while q["dropping"] and now >= q["next"]:
            _drop(s, port, d, place)
            q["count"] += 1
            place, may = _take(s, port, d, now)
            if may:
                q["next"] = _later(q["next"], q["count"])
            else:
                q["dropping"] = 0
    elif may:
        _drop(s, port, d, place)
        place, may = _take(s, port, d, now)
        q["dropping"] = 1
        since = q["count"] - q["last_count"]
        recent = now - q["next"] < 16 * INTERVAL_NS
        q["count"] = since if since > 1 and recent else 1
        q["next"] = _later(now, q["count"])
        q["last_count"] = q["count"]
    return place


@kernel
def _serve(s: State, port: int, d: int, now: int, waiting: int) -> int:
    """Take a frame out of a queue; returns the number of waiting entries."""
    place = _chosen(s, port, d, now)
    if place < 0:
        return waiting
    slot = s.slots[port, d, place]
    number, ts = int(slot["record"]), slot["ts"]
    leaves = _send(s, s.queues[port, d], int(slot["size"]), now)
    if number < 0:
        return waiting
    r = s.records[number]
    f, way = s.flows[r["flow"]], np.int64(r["direction"])
    f["queued"][way] += 1
    f["waited"][way] += now - ts
    return forward(s, number, leaves, waiting)


@kernel
def _put(s: State, port: int, d: int, number: int, size: int, now: int) -> bool:
    """Put a frame into a queue that is up to date; False when it is full. number: of its record; -1: cross traffic."""
    q = s.queues[port, d]
    room = s.slots.shape[2]
    if q["tail"] - q["head"] + (q["busy"] > now) >= min(q["limit"], room):  # the one on its way counts
        return False
    slot = s.slots[port, d, q["tail"] % room]
    slot["record"], slot["ts"], slot["size"] = number, now, size
    q["tail"] += 1
    q["bytes"] += size
    q["own"] += number >= 0
    return True


@kernel
def _compete(s: State, port: int, d: int) -> int:
    """The time of the next frame of cross traffic; FAR when there is none."""
    q = s.queues[port, d]
    if q["gap"] == 0.0:
        return FAR
    if q["cross"] < 0:
        q["rng"] += STEP
        q["cross"] = exponential(q["rng"], q["gap"])
    return int(s.control[BEGAN] + q["cross"])


@kernel
def advance(s: State, port: int, d: int, now: int, waiting: int) -> int:
    """Bring a queue up to date, as frames of cross traffic enter and frames leave; returns the number of entries."""
    q = s.queues[port, d]
    if q["head"] == q["tail"] and q["gap"] == 0.0:
        return waiting
    while True:
        starts, crosses = _starts(s, port, d), _compete(s, port, d)
        if min(starts, crosses) > now:
            return waiting
        if crosses <= starts:
            _put(s, port, d, -1, CROSS, crosses)
            q["rng"] += STEP
            q["cross"] += exponential(q["rng"], q["gap"])
        else:
            waiting = _serve(s, port, d, starts, waiting)


@kernel
def passes(q: Any, size: int, now: int) -> int:
    """The time at which a frame has left that need not wait; -1: it must enter the queue.

    Spares frames at an idle rate the queue: a call with the link's whole memory takes longer than this.
    """
    if q["head"] < q["tail"] or q["busy"] > now or q["n"] > 0 or q["gap"] > 0.0:
        return -1
    q["above"], q["dropping"] = 0, 0  # as CoDel's empty queue
    q["busy"] = now + int(size * 8e9 / q["rate"])
    return int(q["busy"])


@kernel
def arm(s: State, port: int, d: int, waiting: int) -> int:
    """Put a queue's event on the heap where a frame of ours waits; returns the number of waiting entries."""
    q = s.queues[port, d]
    if q["own"] == 0 or q["armed"] != 0:
        return waiting
    q["armed"] = _starts(s, port, d)
    return schedule(s, waiting, int(q["armed"]), -1 - (2 * port + d))


@kernel
def enter(s: State, port: int, d: int, number: int, now: int, waiting: int) -> int:
    """Let a frame of ours wait, or drop it where the queue is full; returns the number of waiting entries."""
    r = s.records[number]
    waiting = advance(s, port, d, now, waiting)
    if not _put(s, port, d, number, int(np.int64(r["length"])), now):
        dropped(r, s.flows[r["flow"]], OVERFLOW, occupies(parse(s.store, r["start"], r["length"])))
        return waiting
    return arm(s, port, d, advance(s, port, d, now, waiting))


@kernel
def event(s: State, number: int, now: int, waiting: int) -> int:
    """Act on a queue's event from the heap; returns the number of waiting entries."""
    index = -1 - number
    port, d = index // 2, index % 2
    s.queues[port, d]["armed"] = 0
    return arm(s, port, d, advance(s, port, d, now, waiting))
