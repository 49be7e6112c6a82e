"""The loop of a link whose delay and faults are the kernel's: frames go through its queues and are recognised behind.

The same memory and the same log as `link_kernels`, so that captures and labels are made in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from probing.lab.link.kernels import monotonic, ppoll, read_fd, write_fd
from probing.lab.link.tables import (
    COPY,
    CORRUPT,
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
    big_endian,
    flow_of,
    mix,
    occupies,
    parse,
)  # fmt: skip

_POLLIN = 1


class Lines(NamedTuple):
    """Queues of the kernel: one towards the servers and one towards the client, for each client's port."""

    into: NDArray[np.int32]  # (p, 2) sockets that frames are put in by; -1: the port is a server's
    out: NDArray[np.int32]  # (p, 2) where they come out
    heads: NDArray[np.int32]  # (power of two,) last record of a frame's hash, -1: none
    following: NDArray[np.int32]  # (r,) the one before
    patience: int  # ns without a frame after which the queues are empty
    longest: int  # ns that a frame may be in a queue


@njit(cache=True, nogil=True)
def _hash(data: Bytes, start: int, n: int) -> np.uint64:
    h = np.uint64(n)
    for k in range(0, n, 8):
        h = mix(h ^ np.uint64(big_endian(data, start + k, min(8, n - k))))
    return h


@njit(cache=True, nogil=True)
def _differ(data: Bytes, a: int, b: int, n: int) -> int:
    """Bits in which two frames differ; 2 stands for more, too."""
    bits = 0
    for k in range(n):
        x = big_endian(data, a + k, 1) ^ big_endian(data, b + k, 1)
        while x != 0 and bits < 2:
            x &= x - 1
            bits += 1
        if bits == 2:
            break
    return bits


@njit(cache=True, nogil=True)
def _target(s: State, start: int, origin: int) -> int:
    mac = np.uint64(big_endian(s.store, start, 6))
    for k in range(s.ports.size):
        if s.ports[k]["mac"] == mac and k != origin:
            return k
    return -1


@njit(cache=True, nogil=True)
def _way(s: State, origin: int, target: int) -> tuple[int, int]:
    """The queue between two ports: whose, and its direction, 0 towards the servers."""
    return (origin, 0) if s.ports[origin]["client"] else (target, 1)


@njit(cache=True, nogil=True)
def _new(s: State, origin: int, target: int, n: int, now: int) -> int:
    """A record of the n bytes at the end of the store."""
    record, start = int(s.control[RECORDS]), s.control[USED]
    r = s.records[record]
    r["in_ts"], r["due"], r["out_ts"], r["start"], r["sent"], r["length"] = now, now, 0, start, start, n
    r["origin"], r["target"], r["flow"], r["verdict"], r["direction"] = origin, target, -1, 0, 0
    s.control[RECORDS] = record + 1
    s.control[USED] = start + n
    return record


@njit(cache=True, nogil=True)
def enter(s: State, lines: Lines, base: int, origin: int, n: int, now: int) -> None:
    """A frame came from a host: into the queue of the client that it is from, or to."""
    start = s.control[USED]
    target = _target(s, start, origin)
    g = parse(s.store, start, n)
    if target < 0 or g.transport == 0:
        return  # hosts know each other; nothing else is carried
    record = _new(s, origin, target, n, now)
    r = s.records[record]
    number, d = flow_of(s, g, origin, target, now)
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
    access, up = _way(s, origin, target)
    r["due"] = now + s.ports[access]["delay"]  # where netem adds to that, it does not say so
    if write_fd(lines.into[access, up], np.uint64(base + start), np.uint64(n)) != n:
        r["verdict"] |= OVERFLOW  # ENOBUFS: there was no room; of what it drops by chance it says nothing
        f["overflow"][d] += 1
        f["overflow_data"][d] += occupies(g)
        return
    slot = np.int64(_hash(s.store, start, n) & np.uint64(lines.heads.size - 1))
    lines.following[record] = lines.heads[slot]
    lines.heads[slot] = record


@njit(cache=True, nogil=True)
def _same(s: State, lines: Lines, start: int, n: int) -> tuple[int, int]:
    """Records of a frame that came out as it went in: (the earliest that is not out yet, one that is), -1: none."""
    waiting, out = -1, -1
    k = int(lines.heads[np.int64(_hash(s.store, start, n) & np.uint64(lines.heads.size - 1))])
    while k >= 0:  # latest first
        r = s.records[k]
        if r["length"] == n and _differ(s.store, r["start"], start, n) == 0:
            if r["out_ts"] == 0:
                waiting = k
            else:
                out = k
        k = int(lines.following[k])
    return waiting, out


@njit(cache=True, nogil=True)
def _damaged(s: State, start: int, n: int, access: int, up: int, since: int) -> tuple[int, int]:
    """The same of a frame that differs in one bit from what went into this queue, not before ``since``."""
    waiting, out = -1, -1
    for k in range(s.control[RECORDS] - 1, -1, -1):
        r = s.records[k]
        if r["in_ts"] < since:
            break
        if r["length"] != n or r["flow"] < 0 or r["verdict"] & ~CORRUPT:
            continue
        if _differ(s.store, r["start"], start, n) == 1 and _way(s, r["origin"], r["target"]) == (access, up):
            if r["out_ts"] == 0:
                waiting = k
            else:
                out = k
    return waiting, out


@njit(cache=True, nogil=True)
def leave(s: State, lines: Lines, base: int, access: int, up: int, n: int, now: int) -> None:
    """A frame came out of a queue: to its host."""
    start = s.control[USED]
    found, out = _same(s, lines, start, n)
    damage = 0
    if found < 0 and out < 0:
        damage = CORRUPT
        found, out = _damaged(s, start, n, access, up, now - lines.longest)
        if found < 0 and out < 0:
            return  # the kernel's own
    if found < 0:
        whole = s.records[out]
        found = _new(s, whole["origin"], whole["target"], n, now)
        r = s.records[found]
        r["verdict"], r["flow"], r["direction"] = COPY | damage, whole["flow"], whole["direction"]
        s.flows[r["flow"]]["duplicated"][np.int64(r["direction"])] += 1
    elif damage:  # kept behind the whole one
        r = s.records[found]
        r["verdict"], r["sent"] = CORRUPT, start
        s.control[USED] += n
        s.flows[r["flow"]]["corrupted"][np.int64(r["direction"])] += 1
    r = s.records[found]
    if write_fd(s.fds[r["target"]], np.uint64(base + r["sent"]), np.uint64(n)) != n:
        s.control[UNSENT] += 1
        return
    r["out_ts"] = now
    f, d = s.flows[r["flow"]], np.int64(r["direction"])
    f["last"] = now
    if r["verdict"] & (COPY | CORRUPT):
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
def relay(s: State, lines: Lines, base: int, polled: NDArray[np.int32], spec: NDArray[np.int64]) -> None:
    """Carry frames until control[STOP] is set and no queue has given anything for as long as it may take.

    polled: (3 p, 2): the hosts' ports, then the queues' ends, towards the servers and towards the clients.
    """
    ports = s.fds.size
    for k in range(ports):
        polled[k, 0] = s.fds[k]
        polled[ports + k, 0], polled[2 * ports + k, 0] = lines.out[k, 0], lines.out[k, 1]
    polled[:, 1] = _POLLIN
    last = monotonic(spec)
    while s.control[FAILED] == 0:
        stopping = s.control[STOP] != 0
        if stopping and monotonic(spec) - last > lines.patience:
            return
        spec[0], spec[1] = 0, POLL_NS
        if ppoll(polled.ctypes, np.uint64(3 * ports), spec.ctypes, np.uint64(0)) <= 0:
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
                n = read_fd(polled[k, 0], np.uint64(base + s.control[USED]), np.uint64(LARGEST))
                if n <= 0:
                    break
                now = monotonic(spec)
                if k >= ports:
                    last = now
                    leave(s, lines, base, k % ports, k // ports - 1, n, now)
                elif not stopping:
                    last = now
                    enter(s, lines, base, k, n, now)
