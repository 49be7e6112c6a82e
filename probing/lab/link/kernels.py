"""The link's loop in one compiled function: read frames, decide their fate, release them when they are due.

Runs without the interpreter lock in a thread of its own, so neither the clients' Python nor garbage collection delays
a frame. System calls go through the C library by name. All memory is given by the caller; nothing is allocated here.

Every packet of a flow draws the same number of random numbers in the same order from a state that is seeded by the
flow's name (which hosts, which server port, the how-manieth of its kind), not by time or by ports that are drawn: the
k-th packet of a direction meets the same fate whenever the setting is repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

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
    big_endian,
    flow_of,
    mix,
    occupies,
    parse,
)  # fmt: skip

_POLLIN = 1
_MONOTONIC = 1

_WORDS: Any = types.CPointer(types.int64)  # type: ignore[no-untyped-call]
_HALVES: Any = types.CPointer(types.int32)  # type: ignore[no-untyped-call]
read_fd: Any = types.ExternalFunction("read", types.intp(types.int32, types.uintp, types.uintp))
write_fd: Any = types.ExternalFunction("write", types.intp(types.int32, types.uintp, types.uintp))
_clock: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, _WORDS))
ppoll: Any = types.ExternalFunction("ppoll", types.int32(_HALVES, types.uintp, _WORDS, types.uintp))


@njit(cache=True, nogil=True)
def monotonic(spec: NDArray[np.int64]) -> int:
    _clock(_MONOTONIC, spec.ctypes)
    return int(spec[0] * 1_000_000_000 + spec[1])


@njit(cache=True, nogil=True)
def _uniform(flow: Any, d: int) -> float:
    flow["rng"][d] += STEP
    return float(mix(flow["rng"][d]) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def _push(heap: NDArray[np.int64], n: int, due: int, record: int) -> None:
    """Put an entry into a heap of n; equal times keep the order of their records."""
    k = n
    while k > 0:
        up = (k - 1) // 2
        if heap[up, 0] < due or (heap[up, 0] == due and heap[up, 1] < record):
            break
        heap[k, 0], heap[k, 1] = heap[up, 0], heap[up, 1]
        k = up
    heap[k, 0], heap[k, 1] = due, record


@njit(cache=True, nogil=True)
def _pop(heap: NDArray[np.int64], n: int) -> int:
    """Take the first of a heap of n; returns its record."""
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


@njit(cache=True, nogil=True)
def _wait_for_rate(s: State, port: int, d: int, size: int, now: int) -> int:
    """When the last bit of a frame has left; -1 when the queue is full. d: 0 towards the server."""
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


@njit(cache=True, nogil=True)
def _schedule(s: State, waiting: int, record: int) -> int:
    """Put a record on the heap; returns how many wait."""
    if waiting >= s.heap.shape[0]:
        s.control[FAILED] = FULL_HEAP
        return waiting
    _push(s.heap, waiting, s.records[record]["due"], record)
    return waiting + 1


@njit(cache=True, nogil=True)
def _copy(s: State, record: int, target: int) -> int:
    """Another record of the same frame; returns its number, -1 when there is no room."""
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


@njit(cache=True, nogil=True)
def decide(s: State, origin: int, n: int, now: int, waiting: int) -> int:
    """The fate of the n bytes just read from a port to the end of the store; returns how many frames wait."""
    start, record = s.control[USED], s.control[RECORDS]
    s.control[USED] = start + n
    mac = np.uint64(big_endian(s.store, start, 6))
    target = -1
    for k in range(s.ports.size):
        if s.ports[k]["mac"] == mac and k != origin:
            target = k
    r = s.records[record]
    s.control[RECORDS] = record + 1
    r["in_ts"], r["due"], r["out_ts"], r["start"], r["sent"], r["length"] = now, now, 0, start, start, n
    r["origin"], r["target"], r["flow"], r["verdict"], r["direction"] = origin, max(target, 0), -1, 0, 0
    g = parse(s.store, start, n)
    if target < 0 or g.transport == 0:  # ARP and its like: at once, to whom it may concern
        first = True
        for k in range(s.ports.size):
            if k != origin and target in (-1, k):
                copy = record if first else _copy(s, record, k)
                if copy < 0:
                    return waiting
                s.records[copy]["target"] = k
                waiting = _schedule(s, waiting, copy)
                first = False
        return waiting
    number, d = flow_of(s, g, origin, target, now)
    if number < 0:
        return waiting
    f = s.flows[number]
    r["flow"], r["direction"] = number, d
    access = origin if s.ports[origin]["client"] else target
    up = 0 if access == origin else 1  # 0: towards the server
    p = s.ports[access]
    data = occupies(g)
    f["packets"][d] += 1
    f["bytes"][d] += n
    f["last"] = now
    if data:
        f["data"][d] += 1
    if g.flags & 0x12 == 0x02 and d == 0 and f["syn"] == 0:
        f["syn"] = now
    # always six draws a packet, so that the k-th packet of a direction does not depend on what came before
    u_loss, u_delay, u_reorder = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    u_duplicate, u_corrupt, u_bit = _uniform(f, d), _uniform(f, d), _uniform(f, d)
    hurt = p["impaired"] >> up & 1
    if f["cut"]:
        r["verdict"] |= CUT
        f["cuts"][d] += 1
        return waiting
    if hurt and u_loss < p["loss"]:
        r["verdict"] |= LOST
        f["lost"][d] += 1
        f["lost_data"][d] += data
        return waiting
    leaves = _wait_for_rate(s, access, up, n, now)
    if leaves < 0:
        r["verdict"] |= OVERFLOW
        f["overflow"][d] += 1
        f["overflow_data"][d] += data
        return waiting
    delay = p["delay"]
    if hurt:
        if p["jitter"] > 0:
            delay = max(0, delay + int(p["jitter"] * s.laws[p["table"], int(u_delay * LAW)]))
        if u_reorder < p["reorder"]:
            r["verdict"] |= EARLY  # as netem does: it does not wait, and overtakes those that do
            delay = 0
    due = leaves + delay
    if p["keep_order"] and not r["verdict"] & EARLY:
        due = max(due, f["due"][d])
        f["due"][d] = due
    r["due"] = due
    if hurt and u_corrupt < p["corrupt"] and g.transport + 4 < start + n:
        if s.control[USED] + n > s.store.size:
            s.control[FAILED] = FULL_STORE
            return waiting
        r["sent"] = s.control[USED]
        s.control[USED] += n
        for k in range(n):
            s.store[r["sent"] + k] = s.store[start + k]
        first = (g.transport + 4 - start) * 8  # behind the ports: a frame stays its connection's
        bit = first + int(u_bit * (n * 8 - first))
        s.store[r["sent"] + bit // 8] ^= np.uint8(1 << (bit % 8))
        r["verdict"] |= CORRUPT
        f["corrupted"][d] += 1
    waiting = _schedule(s, waiting, record)
    if hurt and u_duplicate < p["duplicate"]:
        copy = _copy(s, record, target)
        if copy >= 0:
            f["duplicated"][d] += 1
            waiting = _schedule(s, waiting, copy)
    return waiting


@njit(cache=True, nogil=True)
def _release(s: State, base: int, waiting: int, spec: NDArray[np.int64], now: int) -> tuple[int, int]:
    """Send what is due; returns how many wait and the time."""
    while waiting > 0 and s.heap[0, 0] <= now:
        record = _pop(s.heap, waiting)
        waiting -= 1
        r = s.records[record]
        sent = write_fd(s.fds[r["target"]], np.uint64(base + r["sent"]), np.uint64(r["length"]))
        now = monotonic(spec)
        if sent != r["length"]:
            s.control[UNSENT] += 1
            continue
        r["out_ts"] = now
        if r["flow"] < 0:
            continue
        f, d = s.flows[r["flow"]], np.int64(r["direction"])
        f["last"] = now
        if r["verdict"] & (COPY | CORRUPT):
            continue
        g = parse(s.store, r["start"], r["length"])
        if record < f["newest"][d]:
            f["reordered"][d] += 1
        f["newest"][d] = max(f["newest"][d], record)
        if occupies(g):
            if record < f["newest_data"][d]:
                f["reordered_data"][d] += 1
            f["newest_data"][d] = max(f["newest_data"][d], record)
        if d == 1 and g.flags & 0x12 == 0x12 and f["answer"] == 0:
            f["answer"] = now
    return waiting, now


@njit(cache=True, nogil=True)
def loop(s: State, base: int, polled: NDArray[np.int32], spec: NDArray[np.int64]) -> None:
    """Carry frames until control[STOP] is set; then release what still waits, when it is due, and return.

    base: address of the store. polled: (p, 2) struct pollfd. spec: (2,) struct timespec, scratch.
    Fields of control are set as the loop goes; it ends early with control[FAILED] when memory runs out.
    """
    waiting = 0
    for k in range(s.fds.size):
        polled[k, 0], polled[k, 1] = s.fds[k], _POLLIN
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
            polled[k, 1] = _POLLIN
            for _ in range(16):  # then look whether something is due
                used = s.control[USED]
                if used + LARGEST > s.store.size:
                    s.control[FAILED] = FULL_STORE
                    return
                if s.control[RECORDS] >= s.records.size:
                    s.control[FAILED] = FULL_RECORDS
                    return
                n = read_fd(s.fds[k], np.uint64(base + used), np.uint64(LARGEST))
                if n <= 0:
                    break
                waiting = decide(s, k, n, monotonic(spec), waiting)
