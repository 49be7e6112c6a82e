"""The loop of a link whose delay and faults are the kernel's: frames go through queues, and are known again behind them.

The same memory and the same log as `link_kernels`, so that captures and labels are made in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from probing.lab.link_kernels import (
    COPY,
    CUT,
    FAILED,
    FULL_RECORDS,
    FULL_STORE,
    LARGEST,
    OVERFLOW,
    POLL_NS,
    RECORDS,
    STOP,
    UNSENT,
    USED,
    Bytes,
    State,
    _be,
    _flow,
    _now,
    _ppoll,
    _read,
    _write,
    mix,
    occupies,
    parse,
)  # fmt: skip

_POLLIN = 1
UNKNOWN = 255  # origin of a frame that came out and never went in: one that was damaged


class Lines(NamedTuple):
    """Queues of the kernel: one towards the servers and one towards the client, for each client's port."""

    into: NDArray[np.int32]  # (p, 2) sockets that frames are put in by; -1: the port is a server's
    out: NDArray[np.int32]  # (p, 2) where they come out
    heads: NDArray[np.int32]  # (power of two,) last record of a frame's hash, -1: none
    following: NDArray[np.int32]  # (r,) the one before


@njit(cache=True, nogil=True)
def _hash(data: Bytes, start: int, n: int) -> np.uint64:
    h = np.uint64(n)
    for k in range(0, n, 8):
        h = mix(h ^ np.uint64(_be(data, start + k, min(8, n - k))))
    return h


@njit(cache=True, nogil=True)
def _equal(data: Bytes, a: int, b: int, n: int) -> bool:
    for k in range(n):
        if data[a + k] != data[b + k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _target(s: State, start: int, origin: int) -> int:
    mac = np.uint64(_be(s.store, start, 6))
    for k in range(s.ports.size):
        if s.ports[k]["mac"] == mac and k != origin:
            return k
    return -1


@njit(cache=True, nogil=True)
def _new(s: State, origin: int, target: int, n: int, now: int) -> int:
    """A record of the n bytes at the end of the store."""
    record, start = s.control[RECORDS], s.control[USED]
    r = s.records[record]
    r["in_ts"], r["due"], r["out_ts"], r["start"], r["sent"], r["length"] = now, now, 0, start, start, n
    r["origin"], r["target"], r["flow"], r["verdict"], r["direction"] = origin, target, -1, 0, 0
    s.control[RECORDS] = record + 1
    s.control[USED] = start + n
    return record


@njit(cache=True, nogil=True)
def _enter(s: State, lines: Lines, base: int, origin: int, n: int, now: int) -> None:
    """A frame came from a host: into the queue of the client that it is from, or to."""
    start = s.control[USED]
    target = _target(s, start, origin)
    g = parse(s.store, start, n)
    if target < 0 or g.transport == 0:
        return  # hosts know each other; nothing else is carried
    record = _new(s, origin, target, n, now)
    r = s.records[record]
    number, d = _flow(s, g, origin, target, now)
    if number < 0:
        return
    f = s.flows[number]
    r["flow"], r["direction"] = number, d
    f["packets"][d] += 1
    f["bytes"][d] += n
    f["data"][d] += occupies(g)
    f["last"] = now
    if g.flags & 0x12 == 0x02 and d == 0 and f["syn"] == 0:
        f["syn"] = now
    if f["cut"]:
        r["verdict"] |= CUT
        f["cuts"][d] += 1
        return
    slot = np.int64(_hash(s.store, start, n) & np.uint64(lines.heads.size - 1))
    lines.following[record] = lines.heads[slot]
    lines.heads[slot] = record
    access = origin if s.ports[origin]["client"] else target
    if _write(lines.into[access, 0 if access == origin else 1], np.uint64(base + start), np.uint64(n)) != n:
        r["verdict"] |= OVERFLOW  # ENOBUFS: the queue took no more
        f["overflow"][d] += 1
        f["overflow_data"][d] += occupies(g)


@njit(cache=True, nogil=True)
def _leave(s: State, lines: Lines, base: int, n: int, now: int) -> None:
    """A frame came out of a queue: to its host."""
    start = s.control[USED]
    target = _target(s, start, -1)
    if target < 0:
        return  # damaged in its address: nobody's
    found, again = -1, -1
    k = lines.heads[np.int64(_hash(s.store, start, n) & np.uint64(lines.heads.size - 1))]
    while k >= 0:  # latest first: the earliest that is not out yet is the one
        r = s.records[k]
        if r["length"] == n and _equal(s.store, r["start"], start, n):
            again = k
            if r["out_ts"] == 0:
                found = k
        k = lines.following[k]
    if found < 0:
        found = _new(s, UNKNOWN if again < 0 else s.records[again]["origin"], target, n, now)
        r = s.records[found]
        r["verdict"] = COPY
        if again >= 0:
            r["flow"], r["direction"] = s.records[again]["flow"], s.records[again]["direction"]
            s.flows[r["flow"]]["duplicated"][np.int64(r["direction"])] += 1
    r = s.records[found]
    if _write(s.fds[target], np.uint64(base + r["start"]), np.uint64(n)) != n:
        s.control[UNSENT] += 1
        return
    r["out_ts"] = now
    if r["flow"] < 0:
        return
    f, d = s.flows[r["flow"]], np.int64(r["direction"])
    f["last"] = now
    if r["verdict"] & COPY:
        return
    g = parse(s.store, r["start"], n)
    f["reordered"][d] += found < f["newest"][d]
    f["newest"][d] = max(f["newest"][d], found)
    if occupies(g):
        f["reordered_data"][d] += found < f["newest_data"][d]
        f["newest_data"][d] = max(f["newest_data"][d], found)
    if d == 1 and g.flags & 0x12 == 0x12 and f["answer"] == 0:
        f["answer"] = now


@njit(cache=True, nogil=True)
def relay(
    s: State, lines: Lines, base: int, polled: NDArray[np.int32], spec: NDArray[np.int64], patience: int
) -> None:  # fmt: skip
    """Carry frames until control[STOP] is set and no queue has given anything for ``patience`` ns.

    polled: (3 p, 2): the hosts' ports, then the queues' ends, towards the servers and towards the clients.
    """
    ports = s.fds.size
    for k in range(ports):
        polled[k, 0] = s.fds[k]
        polled[ports + k, 0], polled[2 * ports + k, 0] = lines.out[k, 0], lines.out[k, 1]
    polled[:, 1] = _POLLIN
    last = _now(spec)
    while s.control[FAILED] == 0:
        stopping = s.control[STOP] != 0
        if stopping and _now(spec) - last > patience:
            return
        spec[0], spec[1] = 0, POLL_NS
        if _ppoll(polled.ctypes, np.uint64(3 * ports), spec.ctypes, np.uint64(0)) <= 0:
            continue
        for k in range(3 * ports):
            if polled[k, 1] >> 16 == 0:
                continue
            polled[k, 1] = _POLLIN
            for _ in range(16):
                if s.control[USED] + LARGEST > s.store.size:
                    s.control[FAILED] = FULL_STORE
                    return
                if s.control[RECORDS] >= s.records.size:
                    s.control[FAILED] = FULL_RECORDS
                    return
                n = _read(polled[k, 0], np.uint64(base + s.control[USED]), np.uint64(LARGEST))
                if n <= 0:
                    break
                last = now = _now(spec)
                if k >= ports:
                    _leave(s, lines, base, n, now)
                elif not stopping:
                    _enter(s, lines, base, k, n, now)
