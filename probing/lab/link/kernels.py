"""The link's loop in one compiled function: read frames, decide their fate, release them when they are due.

Runs without the interpreter lock in a thread of its own, so neither the clients' Python nor garbage collection delays
a frame. System calls go through the C library by name. All memory is given by the caller; nothing is allocated here.

Every packet of a flow draws the same number of random numbers in the same order from a state that is seeded by the
flow's name (its hosts, its server port, its index among flows of the same kind), not by time or by drawn ports: the
k-th packet of a direction meets the same fate whenever the setting is repeated.
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
    record,
    released,
    target_of,
)
from probing.lab.link.system import POLLIN, monotonic, ppoll, read_fd, write_fd
from probing.lab.link.tables import (
    COPY,
    CORRUPT,
    CUT,
    EARLY,
    FAILED,
    FULL_HEAP,
    FULL_RECORDS,
    FULL_STORE,
    LARGEST,
    LAW,
    LOST,
    OVERFLOW,
    POLL_NS,
    RECORDS,
    STEP,
    STOP,
    UNSENT,
    USED,
    State,
    mix,
    occupies,
    parse,
)  # fmt: skip


@kernel
def _uniform(flow: Any, d: int) -> float:
    flow["rng"][d] += STEP
    return float(mix(flow["rng"][d]) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def _push(heap: NDArray[np.int64], n: int, due: int, record: int) -> None:
    """Put an entry into a heap of n entries; equal times keep the order of their records."""
    k = n
    while k > 0:
        up = (k - 1) // 2
        if heap[up, 0] < due or (heap[up, 0] == due and heap[up, 1] < record):
            break
        heap[k, 0], heap[k, 1] = heap[up, 0], heap[up, 1]
        k = up
    heap[k, 0], heap[k, 1] = due, record


@kernel
def _pop(heap: NDArray[np.int64], n: int) -> int:
    """Take the first entry from a heap of n; returns its record."""
    first = heap[0, 1]
    due, record = heap[n - 1, 0], heap[n - 1, 1]
    n -= 1
    k = 0
    while True:
        down = 2 * k + 1
        if down >= n:
            break
        if down + 1 < n and (
            heap[down + 1, 0] < heap[down, 0]
            or (heap[down + 1, 0] == heap[down, 0] and heap[down + 1, 1] < heap[down, 1])
        ):
            down += 1
        if due < heap[down, 0] or (due == heap[down, 0] and record < heap[down, 1]):
            break
        heap[k, 0], heap[k, 1] = heap[down, 0], heap[down, 1]
        k = down
    heap[k, 0], heap[k, 1] = due, record
    return int(first)


@kernel
def _wait_for_rate(s: State, port: int, d: int, size: int, now: int) -> int:
    """The time at which the last bit of a frame leaves; -1 when the queue is full. d: 0 towards the server."""
    p = s.ports[port]
    if p["rate"] <= 0.0:
        return now
    room = s.departures.shape[2]
    while p["head"][d] < p["tail"][d] and s.departures[port, d, p["head"][d] % room] <= now:
        p["head"][d] += 1
    if p["tail"][d] - p["head"][d] >= min(p["queue"], room):
        return -1
    leaves = int(max(now, p["busy"][d])) + int(size * 8e9 / p["rate"])
    p["busy"][d] = leaves
    s.departures[port, d, p["tail"][d] % room] = leaves
    p["tail"][d] += 1
    return leaves


@kernel
def _schedule(s: State, waiting: int, record: int) -> int:
    """Put a record on the heap; returns the number of waiting frames."""
    if waiting >= s.heap.shape[0]:
        s.control[FAILED] = FULL_HEAP
        return waiting
    _push(s.heap, waiting, s.records[record]["due"], record)
    return waiting + 1


@kernel
def _copy(s: State, record: int, target: int) -> int:
    """The number of another record of the same frame, -1 when there is no room."""
    n = int(s.control[RECORDS])
    if n >= s.records.size:
        s.control[FAILED] = FULL_RECORDS
        return -1
    a, b = s.records[record], s.records[n]
    b["in_ts"], b["due"], b["start"], b["sent"] = a["in_ts"], a["due"], a["start"], a["sent"]
    b["length"], b["flow"], b["origin"], b["target"] = a["length"], a["flow"], a["origin"], target
    b["direction"], b["out_ts"] = a["direction"], 0
    b["verdict"] = (a["verdict"] & ~(LOST | OVERFLOW | CUT)) | COPY
    s.control[RECORDS] = n + 1
    return n


@kernel
def _spread(s: State, number: int, target: int, waiting: int) -> int:
    """Send a frame that is not IP (ARP) at once to its port, or to all others; returns the number of waiting frames."""
    origin, first = int(s.records[number]["origin"]), True
    for k in range(s.ports.size):
        if k != origin and target in (-1, k):
            copy = number if first else _copy(s, number, k)
            if copy < 0:
                return waiting
            s.records[copy]["target"] = k
            waiting = _schedule(s, waiting, copy)
            first = False
    return waiting


@kernel
def _corrupt(s: State, r: Any, bit: int) -> None:
    """Replace a record's frame by a copy with one bit flipped; the store must have room for it."""
    n = np.int64(r["length"])
    r["sent"] = s.control[USED]
    s.control[USED] += n
    for k in range(n):
        s.store[r["sent"] + k] = s.store[r["start"] + k]
    s.store[r["sent"] + bit // 8] ^= np.uint8(1 << (bit % 8))
    r["verdict"] |= CORRUPT


@kernel
def decide(s: State, origin: int, n: int, now: int, waiting: int) -> int:
    """Decide the fate of the n bytes that a port put at the end of the store; returns the number of waiting frames."""
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
    # always six draws a packet, so that the k-th packet of a direction does not depend on what came before
    u_loss, u_delay, u_reorder = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    u_duplicate, u_corrupt, u_bit = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    hurt = p["impaired"] >> up & 1
    if is_cut(f, d, g.payload, now):
        dropped(r, f, CUT, occupies(g))
        return waiting
    if hurt and u_loss < p["loss"]:
        dropped(r, f, LOST, occupies(g))
        return waiting
    leaves = _wait_for_rate(s, access, up, n, now)
    if leaves < 0:
        dropped(r, f, OVERFLOW, occupies(g))
        return waiting
    delay = p["delay"]
    if hurt:
        if p["jitter"] > 0:
            delay = max(0, delay + int(p["jitter"] * s.laws[p["table"], int(u_delay * LAW)]))
        if u_reorder < p["reorder"]:
            r["verdict"] |= EARLY  # as in netem: it does not wait, and overtakes those that do
            delay = 0
    due = leaves + delay
    if p["keep_order"] and not r["verdict"] & EARLY:
        due = max(due, f["due"][d])
        f["due"][d] = due
    r["due"] = due
    first = (g.transport + 4 - start) * 8  # bit behind the ports: a frame stays its connection's
    if hurt and u_corrupt < p["corrupt"] and first < n * 8:
        if s.control[USED] + n > s.store.size:
            s.control[FAILED] = FULL_STORE
            return waiting
        _corrupt(s, r, first + int(u_bit * (n * 8 - first)))
        f["corrupted"][d] += 1
    waiting = _schedule(s, waiting, number)
    if hurt and u_duplicate < p["duplicate"]:
        copy = _copy(s, number, target)
        if copy >= 0:
            f["duplicated"][d] += 1
            waiting = _schedule(s, waiting, copy)
    return waiting


@kernel
def _release(s: State, base: int, waiting: int, spec: NDArray[np.int64], now: int) -> tuple[int, int]:
    """Send the frames that are due; returns the number of waiting frames, and the time."""
    while waiting > 0 and s.heap[0, 0] <= now:
        number = _pop(s.heap, waiting)
        waiting -= 1
        r = s.records[number]
        sent = write_fd(s.fds[r["target"]], np.uint64(base + r["sent"]), np.uint64(r["length"]))
        now = monotonic(spec)
        if sent == r["length"]:
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
    waiting = 0
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
                n = read_fd(s.fds[k], np.uint64(base + s.control[USED]), np.uint64(LARGEST))
                if n <= 0:
                    break
                waiting = decide(s, k, n, monotonic(spec), waiting)
