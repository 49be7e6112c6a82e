"""The loop of a link whose delay and faults are the kernel's: frames pass its queues and are recognised afterwards.

The same memory, account and log as the link's own loop (kernels.py), so captures and labels are made in the same way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from probing.lab.link.account import came_in, dropped, has_room, is_cut, record, released, target_of
from probing.lab.link.system import POLLIN, monotonic, ppoll, read_fd, write_fd
from probing.lab.link.tables import (
    COPY,
    CORRUPT,
    CUT,
    FAILED,
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
    mix,
    occupies,
    parse,
)  # fmt: skip


class Lines(NamedTuple):
    """The kernel's queues: for each client's port one towards the servers and one towards the client."""

    into: NDArray[np.int32]  # (p, 2) sockets that put frames into the queues; -1: the port is a server's
    out: NDArray[np.int32]  # (p, 2) devices from which frames come out
    heads: NDArray[np.int32]  # (power of two,) last record of a frame's hash; -1: none
    following: NDArray[np.int32]  # (r,) record before it with the same hash; -1: none
    patience: int  # ns without a frame after which the queues must be empty
    longest: int  # most ns that a frame stays in a queue


@kernel
def _hash(data: Bytes, start: int, n: int) -> np.uint64:
    h = np.uint64(n)
    for k in range(0, n, 8):
        h = mix(h ^ np.uint64(big_endian(data, start + k, min(8, n - k))))
    return h


@kernel
def _differ(data: Bytes, a: int, b: int, n: int) -> int:
    """The number of bits in which two frames differ; 2 also stands for more."""
    bits = 0
    for k in range(n):
        x = big_endian(data, a + k, 1) ^ big_endian(data, b + k, 1)
        while x != 0 and bits < 2:
            x &= x - 1
            bits += 1
        if bits == 2:
            break
    return bits


@kernel
def _way(s: State, origin: int, target: int) -> tuple[int, int]:
    """The queue between two ports: the client's port, and the direction, 0 towards the servers."""
    return (origin, 0) if s.ports[origin]["client"] else (target, 1)


@kernel
def enter(s: State, lines: Lines, base: int, origin: int, n: int, now: int) -> None:
    """Put a frame that came from a host into the queue of its client."""
    start = s.control[USED]
    target = target_of(s, start, origin)
    g = parse(s.store, start, n)
    if target < 0 or g.transport == 0:
        return  # hosts have permanent neighbours; nothing but IP is carried
    number = record(s, origin, target, n, now)
    r = s.records[number]
    if came_in(s, r, g, now) < 0:
        return
    f = s.flows[r["flow"]]
    if is_cut(f, int(np.int64(r["direction"])), g.payload, now):
        dropped(r, f, CUT, occupies(g))
        return
    access, up = _way(s, origin, target)
    r["due"] = now + s.ports[access]["delay"]  # what netem adds to it is not known
    if write_fd(lines.into[access, up], np.uint64(base + start), np.uint64(n)) != n:
        dropped(r, f, OVERFLOW, occupies(g))  # ENOBUFS: the queue is full; random drops are not reported
        return
    slot = np.int64(_hash(s.store, start, n) & np.uint64(lines.heads.size - 1))
    lines.following[number] = lines.heads[slot]
    lines.heads[slot] = number


@kernel
def _same(s: State, lines: Lines, start: int, n: int) -> tuple[int, int]:
    """Records of an undamaged frame that came out: (the earliest not yet out, one that is out already); -1: none."""
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


@kernel
def _damaged(s: State, start: int, n: int, access: int, up: int, since: int) -> tuple[int, int]:
    """The same for a frame that differs in one bit from one that entered this queue, not before ``since``."""
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


@kernel
def leave(s: State, lines: Lines, base: int, access: int, up: int, n: int, now: int) -> None:
    """Deliver a frame that came out of a queue to its host."""
    start = s.control[USED]
    found, out = _same(s, lines, start, n)
    damage = 0
    if found < 0 and out < 0:
        damage = CORRUPT
        found, out = _damaged(s, start, n, access, up, now - lines.longest)
        if found < 0 and out < 0:
            return  # made by the kernel itself
    if found < 0:
        whole = s.records[out]
        found = record(s, whole["origin"], whole["target"], n, now)
        r = s.records[found]
        r["verdict"], r["flow"], r["direction"] = COPY | damage, whole["flow"], whole["direction"]
        s.flows[r["flow"]]["duplicated"][np.int64(r["direction"])] += 1
    elif damage:  # stored after the undamaged one
        r = s.records[found]
        r["verdict"], r["sent"] = CORRUPT, start
        s.control[USED] += n
        s.flows[r["flow"]]["corrupted"][np.int64(r["direction"])] += 1
    r = s.records[found]
    if write_fd(s.fds[r["target"]], np.uint64(base + r["sent"]), np.uint64(n)) != n:
        s.control[UNSENT] += 1
        return
    released(s, found, now)


@kernel
def relay(s: State, lines: Lines, base: int, polled: NDArray[np.int32], spec: NDArray[np.int64]) -> None:
    """Carry frames until control[STOP] is set and the queues have been silent for lines.patience.

    polled: (3 p, 2) struct pollfd: the hosts' ports, then the ends of the queues towards servers and towards clients.
    """
    ports = s.fds.size
    for k in range(ports):
        polled[k, 0] = s.fds[k]
        polled[ports + k, 0], polled[2 * ports + k, 0] = lines.out[k, 0], lines.out[k, 1]
    polled[:, 1] = POLLIN
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
            polled[k, 1] = POLLIN
            for _ in range(16):
                if not has_room(s):
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
