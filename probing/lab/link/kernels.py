"""The link's loop in one compiled function: read frames, decide their fate, release them when they are due.

Runs without the interpreter lock in a thread of its own, so neither the clients' Python nor garbage collection delays
a frame. System calls go through the C library by name. All memory is given by the caller; nothing is allocated here.

Every packet of a flow draws the same number of random numbers in the same order from a state that is seeded by the
flow's name (its hosts, its server port, its index among flows of the same kind), not by time or by drawn ports: the
k-th packet of a direction meets the same fate whenever the setting is repeated. Outages and cross traffic are the
link's, not a flow's: they follow from the seed and from the time since the link began.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from probing.lab.link.account import (
    arp_came_in,
    came_in,
    dropped,
    has_room,
    is_cut,
    largest,
    record,
    released,
    target_of,
)
from probing.lab.link.forward import copy_of, forward
from probing.lab.link.heap import pop, schedule
from probing.lab.link.queue import enter, event, passes
from probing.lab.link.system import POLLIN, monotonic, ppoll, read_fd, write_fd
from probing.lab.link.tables import (
    BEGAN,
    BURST,
    CUT,
    EARLY,
    FAILED,
    HEADER,
    LAW,
    LOST,
    OUTAGE,
    POLL_NS,
    STEP,
    STOP,
    UNSENT,
    USED,
    State,
    exponential,
    occupies,
    parse,
    unit,
)  # fmt: skip


@kernel
def _uniform(flow: Any, d: int) -> float:
    flow["rng"][d] += STEP
    return unit(flow["rng"][d])


@kernel
def _in_burst(f: Any, d: int, p: Any, u: float) -> bool:
    """Whether a flow's packet falls into a burst: the chain of Gilbert (Bell System Technical Journal 39, 1960).

    In a burst all packets are lost, outside none. The first packet draws from the chain's stationary law, so short
    flows lose the same share.
    """
    if f["packets"][d] == 1:
        f["bad"][d] = u < p["burst"]
    elif f["bad"][d]:
        f["bad"][d] = u >= p["burst_ends"]
    else:
        f["bad"][d] = u < p["burst_begins"]
    return bool(f["bad"][d])


@kernel
def _is_out(s: State, p: Any, now: int) -> bool:
    """Whether a client's access has an outage: exponential times with and without one, from the link's beginning."""
    if p["down"] == 0.0:
        return False
    while p["flips"] <= now - s.control[BEGAN]:
        p["out"] ^= 1
        p["rng"] += STEP
        p["flips"] += exponential(p["rng"], p["down"] if p["out"] else p["up"])
    return bool(p["out"])


@kernel
def _spread(s: State, number: int, target: int, waiting: int) -> int:
    """Send a frame that is not IP (ARP) at once to its port, or to all others; returns the number of entries."""
    origin, first = int(s.records[number]["origin"]), True
    for k in range(s.ports.size):
        if k != origin and target in (-1, k):
            copy = number if first else copy_of(s, number, k)
            if copy < 0:
                return waiting
            s.records[copy]["target"] = k
            waiting = schedule(s, waiting, s.records[copy]["due"], copy)
            first = False
    return waiting


@kernel
def decide(s: State, origin: int, n: int, now: int, waiting: int) -> int:
    """Decide the fate of the n bytes that a port put at the end of the store; returns the number of waiting entries."""
    start = s.control[USED]
    target = target_of(s, start, origin)
    number = record(s, origin, max(target, 0), n, now)
    r = s.records[number]
    g = parse(s.store, start, n)
    if target < 0 or g.transport == 0:
        arp_came_in(s, r, target, now)
        return _spread(s, number, target, waiting)
    if came_in(s, r, g, now) < 0:
        return waiting
    f, d = s.flows[r["flow"]], int(np.int64(r["direction"]))
    access = origin if s.ports[origin]["client"] else target
    up = 0 if access == origin else 1  # 0: towards the server
    p = s.ports[access]
    # always eight draws a packet, so that the k-th packet of a direction does not depend on what came before
    u_loss, u_delay, u_reorder = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    u_duplicate, u_corrupt, u_bit = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    u_ordered, u_burst = _uniform(f, d), _uniform(f, d)
    hurt = p["impaired"] >> up & 1
    burst = p["burst"] > 0.0 and _in_burst(f, d, p, u_burst)
    if is_cut(f, d, g.payload, now):
        dropped(r, f, CUT, occupies(g))
        return waiting
    if _is_out(s, p, now):
        dropped(r, f, OUTAGE, occupies(g))
        return waiting
    if hurt and burst:
        dropped(r, f, BURST, occupies(g))
        return waiting
    if hurt and u_loss < p["loss"]:
        dropped(r, f, LOST, occupies(g))
        return waiting
    r["hold"] = p["delay"]
    if hurt:
        if p["ordered_jitter"] > 0:
            deviation = s.laws[p["table"], int(u_ordered * LAW)]
            r["hold"] = max(0, r["hold"] + int(p["ordered_jitter"] * deviation))
        if p["jitter"] > 0:
            deviation = s.laws[p["table"], int(u_delay * LAW)]
            r["jitter"] = max(-r["hold"], int(p["jitter"] * deviation))
        if u_reorder < p["reorder"]:
            r["verdict"] |= EARLY  # as in netem: it does not wait, and overtakes those that do
            r["hold"] = 0
        first = (g.transport + 4 - start) * 8  # bit behind the ports: a frame stays its connection's
        if u_corrupt < p["corrupt"] and first < n * 8:
            r["flip"] = first + int(u_bit * (n * 8 - first))
        r["twice"] = u_duplicate < p["duplicate"]
    leaves = now
    if p["queued"]:
        leaves = passes(s.queues[access, up], n, now)
        if leaves < 0:
            return enter(s, access, up, number, now, waiting)
        f["queued"][d] += 1
    return forward(s, number, leaves, waiting)


@kernel
def _release(s: State, base: int, waiting: int, spec: NDArray[np.int64], now: int) -> tuple[int, int]:
    """Send the frames that are due; returns the number of waiting entries, and the time."""
    header = s.control[HEADER]
    while waiting > 0 and s.heap[0, 0] <= now:
        number = pop(s.heap, waiting)
        waiting -= 1
        if number < 0:
            waiting = event(s, number, now, waiting)
            continue
        r = s.records[number]
        n = r["length"] + header
        sent = write_fd(s.fds[r["target"]], np.uint64(base + r["sent"] - header), np.uint64(n))
        now = monotonic(spec)
        if sent == n:
            released(s, number, now)
        else:
            s.control[UNSENT] += 1
    return waiting, now


@kernel
def loop(s: State, base: int, polled: NDArray[np.int32], spec: NDArray[np.int64]) -> None:
    """Carry frames until control[STOP] is set; then release the waiting frames when they are due, and return.

    base: address of the store. polled: (p, 2) struct pollfd. spec: (2,) struct timespec, scratch.
    Fields of control are set as the loop goes; it ends early with control[FAILED] when memory runs out.
    """
    waiting, header, most = 0, s.control[HEADER], largest(s)
    s.control[BEGAN] = monotonic(spec)
    for k in range(s.fds.size):
        polled[k, 0], polled[k, 1] = s.fds[k], POLLIN
    while s.control[FAILED] == 0:
        now = monotonic(spec)
        waiting, now = _release(s, base, waiting, spec, now)
        stopping = s.control[STOP] != 0
        if stopping and waiting == 0:
            return
        timeout = POLL_NS
        if waiting > 0:
            timeout = min(timeout, max(0, s.heap[0, 0] - now))
        spec[0], spec[1] = 0, timeout
        ready = ppoll(polled.ctypes, np.uint64(0 if stopping else s.fds.size), spec.ctypes, np.uint64(0))
        if ready <= 0 or stopping:
            continue
        for k in range(s.fds.size):
            if polled[k, 1] >> 16 == 0:
                continue
            polled[k, 1] = POLLIN
            for _ in range(16):  # then check whether a frame is due
                if not has_room(s):
                    return
                n = read_fd(s.fds[k], np.uint64(base + s.control[USED]), np.uint64(most)) - header
                if n <= 0:
                    break
                s.control[USED] += header
                waiting = decide(s, k, n, monotonic(spec), waiting)
