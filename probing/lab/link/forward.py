"""A frame behind the queue: when it is due at its host, damaged and sent twice where that is its fate."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.kernels import kernel
from probing.lab.link.heap import schedule
from probing.lab.link.tables import (
    COPY,
    CORRUPT,
    DROPPED,
    EARLY,
    FAILED,
    FULL_RECORDS,
    FULL_STORE,
    HEADER,
    RECORDS,
    USED,
    State,
)  # fmt: skip


@kernel
def copy_of(s: State, number: int, target: int) -> int:
    """The number of another record of the same frame, -1 when there is no room."""
    n = int(s.control[RECORDS])
    if n >= s.records.size:
        s.control[FAILED] = FULL_RECORDS
        return -1
    a, b = s.records[number], s.records[n]
    b["in_ts"], b["due"], b["start"], b["sent"] = a["in_ts"], a["due"], a["start"], a["sent"]
    b["length"], b["flow"], b["origin"], b["target"] = a["length"], a["flow"], a["origin"], target
    b["direction"], b["out_ts"] = a["direction"], 0
    b["hold"], b["jitter"], b["flip"], b["twice"] = 0, 0, 0, 0
    b["verdict"] = (a["verdict"] & ~DROPPED) | COPY
    s.control[RECORDS] = n + 1
    return n


@kernel
def _damage(s: State, r: Any) -> bool:
    """Replace a record's frame by a copy with one bit flipped; False when there is no room.

    The copy's header for the card, where there is one, is empty: the receiver checks the frame's sums itself.
    """
    n, header = np.int64(r["length"]), s.control[HEADER]
    if s.control[USED] + header + n > s.store.size:
        s.control[FAILED] = FULL_STORE
        return False
    for k in range(header):
        s.store[s.control[USED] + k] = 0
    r["sent"] = s.control[USED] + header
    s.control[USED] += header + n
    for k in range(n):
        s.store[r["sent"] + k] = s.store[r["start"] + k]
    s.store[r["sent"] + r["flip"] // 8] ^= np.uint8(1 << (r["flip"] % 8))
    r["verdict"] |= CORRUPT
    return True


@kernel
def forward(s: State, number: int, leaves: int, waiting: int) -> int:
    """Schedule a frame that leaves the queue at this time; returns the number of waiting entries."""
    r = s.records[number]
    f, d = s.flows[r["flow"]], int(np.int64(r["direction"]))
    due = leaves + r["hold"]
    if not r["verdict"] & EARLY:
        due = max(due, f["due"][d])  # ordered jitter holds back the successors
        f["due"][d] = due
        due = max(leaves, due + r["jitter"])
    r["due"] = due
    if r["flip"] > 0:
        if not _damage(s, r):
            return waiting
        f["corrupted"][d] += 1
    waiting = schedule(s, waiting, due, number)
    if r["twice"]:
        copy = copy_of(s, number, int(np.int64(r["target"])))
        if copy >= 0:
            f["duplicated"][d] += 1
            waiting = schedule(s, waiting, due, copy)
    return waiting
