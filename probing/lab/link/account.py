"""The account of a frame: a record when it comes in, its flow's counters, and what became of it.

Both loops keep it here, the link's own and the one through the kernel's queues, so that their logs mean the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.kernels import kernel
from probing.lab.link.tables import (
    ARMED,
    BURST,
    CODEL,
    COPY,
    CORRUPT,
    CUT,
    ETHERNET,
    EVERYBODY,
    FAILED,
    FULL_RECORDS,
    FULL_STORE,
    GONE,
    HEADER,
    LARGEST,
    LOST,
    OUTAGE,
    OVERFLOW,
    RECORDS,
    SUPER,
    USED,
    Bytes,
    Rows,
    Segment,
    State,
    answers,
    arp_flow_of,
    big_endian,
    flow_of,
    is_arp,
    occupies,
    opens,
    parse,
)  # fmt: skip


@kernel
def largest(s: State) -> int:
    """The most bytes that a read can give, header included."""
    return SUPER if s.control[HEADER] > 0 else LARGEST


@kernel
def has_room(s: State) -> bool:
    """Whether one more frame fits; sets control[FAILED] where it does not."""
    if s.control[USED] + largest(s) > s.store.size:
        s.control[FAILED] = FULL_STORE
        return False
    if s.control[RECORDS] >= s.records.size:
        s.control[FAILED] = FULL_RECORDS
        return False
    return True


@kernel
def target_of(s: State, start: int, origin: int) -> int:
    """The port that a frame is addressed to; -1 when no other port has that address."""
    mac = np.uint64(big_endian(s.store, start, 6))
    for k in range(s.ports.size):
        if s.ports[k]["mac"] == mac and k != origin:
            return k
    return -1


@kernel
def record(s: State, origin: int, target: int, n: int, now: int) -> int:
    """The number of a new record for the n bytes at the end of the store, which must have room."""
    number, start = int(s.control[RECORDS]), s.control[USED]
    r = s.records[number]
    r["in_ts"], r["due"], r["out_ts"], r["start"], r["sent"], r["length"] = now, now, 0, start, start, n
    r["origin"], r["target"], r["flow"], r["verdict"], r["direction"] = origin, target, -1, 0, 0
    r["hold"], r["jitter"], r["flip"], r["twice"] = 0, 0, 0, 0
    s.control[RECORDS] = number + 1
    s.control[USED] = start + n
    return number


@kernel
def came_in(s: State, r: Any, g: Segment, now: int) -> int:
    """The number of the flow that a record's frame belongs to and is counted in; -1 when there is no room for it."""
    number, d = flow_of(s, g, int(r["origin"]), int(r["target"]), now)
    if number < 0:
        return number
    r["flow"], r["direction"] = number, d
    f = s.flows[number]
    f["packets"][d] += 1
    f["bytes"][d] += np.int64(r["length"])
    f["data"][d] += occupies(g)
    f["largest"][d] = max(f["largest"][d], np.int64(r["length"]))
    access = r["origin"] if s.ports[r["origin"]]["client"] else r["target"]
    f["super"][d] += np.int64(r["length"]) > s.ports[access]["mtu"] + ETHERNET
    f["last"] = now
    if opens(g) and d == 0 and f["syn"] == 0:
        f["syn"] = now
    return number


@kernel
def arp_came_in(s: State, r: Any, target: int, now: int) -> None:
    """Count a record's frame in its flow, when it is ARP. target: -1 when it is for all."""
    if not is_arp(s.store, r["start"], r["length"]):
        return
    number, d = arp_flow_of(s, int(r["origin"]), target if target >= 0 else EVERYBODY, now)
    if number < 0:
        return
    r["flow"], r["direction"] = number, d
    f = s.flows[number]
    f["packets"][d] += 1
    f["bytes"][d] += np.int64(r["length"])
    f["largest"][d] = max(f["largest"][d], np.int64(r["length"]))
    f["last"] = now


@kernel
def is_cut(f: Any, d: int, payload: int, now: int) -> bool:
    """Whether the network has failed for a flow; it fails at the frame whose payload burns the rest of the fuse."""
    if f["cut"] == ARMED + d and payload > 0:
        f["fuse"] -= payload
        if f["fuse"] < 0:
            f["cut"], f["failed"] = GONE, now
    return bool(f["cut"] == GONE)


@kernel
def dropped(r: Any, f: Any, verdict: int, data: bool) -> None:
    """Count a dropped frame. verdict: one of DROPPED. data: whether its sender has to send it again."""
    d = np.int64(r["direction"])
    r["verdict"] |= verdict
    if verdict == LOST:
        f["lost"][d] += 1
        f["lost_data"][d] += data
    elif verdict == OVERFLOW:
        f["overflow"][d] += 1
        f["overflow_data"][d] += data
    elif verdict == BURST:
        number = f["packets"][d] - 1
        f["bursts"][d] += f["burst_at"][d] != number - 1 or f["burst"][d] == 0
        f["burst_at"][d] = number
        f["burst"][d] += 1
        f["burst_data"][d] += data
    elif verdict == OUTAGE:
        f["outage"][d] += 1
        f["outage_data"][d] += data
    elif verdict == CODEL:
        f["codel"][d] += 1
        f["codel_data"][d] += data
    elif verdict == CUT:
        f["cuts"][d] += 1


@kernel
def released(s: State, number: int, now: int) -> None:
    """Count a frame that was delivered to its host, and whether a later one of its direction overtook it."""
    r = s.records[number]
    r["out_ts"] = now
    if r["flow"] < 0:
        return
    f, d = s.flows[r["flow"]], np.int64(r["direction"])
    f["last"] = now
    if r["verdict"] & COPY:
        return
    took = (now - r["in_ts"]) * 1e-6
    f["delivered"][d] += 1
    f["delay"][d] += took
    f["delay_squared"][d] += took * took
    if r["verdict"] & CORRUPT:
        return
    g = parse(s.store, r["start"], r["length"])
    f["reordered"][d] += number < f["newest"][d]
    f["newest"][d] = max(f["newest"][d], number)
    if occupies(g):
        f["reordered_data"][d] += number < f["newest_data"][d]
        f["newest_data"][d] = max(f["newest_data"][d], number)
    if d == 1 and answers(g) and f["answer"] == 0:
        f["answer"] = now


@kernel
def settle(records: Rows, flows: Rows, store: Bytes) -> None:
    """Count the frames that never came out, and have no other verdict, as lost; in place."""
    for k in range(records.size):
        r = records[k]
        if r["out_ts"] == 0 and r["flow"] >= 0 and r["verdict"] == 0:
            dropped(r, flows[r["flow"]], LOST, occupies(parse(store, r["start"], r["length"])))
