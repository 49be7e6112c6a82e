"""The capture of a sensor at a vantage, made from the log of the link.

At the clients' vantage a frame from a client is seen when it comes in, whatever becomes of it, and a frame to a
client when it is delivered; at the servers' vantage it is the other way round. Times are exact to the clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from probing.lab.link.link import Log
from probing.lab.link.tables import COPY, parse

PCAP_HEADER = np.array([0xA1B23C4D, 2 | 4 << 16, 0, 0, 262_144, 1], np.uint32).tobytes()
FULL = 262_144
HEADERS = 0  # snap length that cuts each frame behind its transport header


@kernel
def _fill(
    records: NDArray[Any], chosen: NDArray[np.int64], ts: NDArray[np.int64], outgoing: NDArray[np.bool_],
    store: NDArray[np.uint8], snap: int, out: NDArray[np.uint8], words: NDArray[np.uint32],
) -> int:  # fmt: skip
    """Write pcap records to out; returns the number of bytes. words: (4,) scratch."""
    at = 0
    for i in range(chosen.size):
        r = records[chosen[i]]
        start = r["start"] if outgoing[i] else r["sent"]
        n = int(np.int64(r["length"]))
        kept = int(min(n, snap))
        if snap == HEADERS:
            kept = _headers(store, start, n)
        words[0], words[1] = ts[i] // 1_000_000_000, ts[i] % 1_000_000_000
        words[2], words[3] = kept, n
        for k in range(16):
            out[at + k] = np.uint8(words[k // 4] >> np.uint32(8 * (k % 4)) & np.uint32(255))
        at += 16
        for k in range(kept):
            out[at + k] = store[start + k]
        at += kept
    return at


@kernel
def _headers(store: Any, start: int, n: int) -> int:
    """The number of bytes of a frame up to the end of its transport header."""
    g = parse(store, start, n)
    if g.transport == 0:
        return n if n < 60 else 60  # no IP
    at = int(g.transport - start)
    if g.proto == 6 and g.transport + 20 <= start + n and g.sport + g.dport > 0:
        at += int(np.int64(store[g.transport + 12]) >> 4) * 4
    else:
        at += 8
    return at if at < n else n


def seen(log: Log, vantage: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The records seen at a vantage in order of time: their numbers, times, and whether a host there sent them."""
    here = log.ports["client"].astype(bool)
    if vantage == "server":
        here = ~here
    r = log.records
    outgoing = here[r["origin"]] & (r["verdict"] & COPY == 0)
    incoming = here[r["target"]] & ~here[r["origin"]] & (r["out_ts"] > 0)
    # a frame for all is delivered to each host, and passes the vantage once
    heard = np.flatnonzero(incoming & (log.store[r["start"]] & 1).astype(bool))
    incoming[heard] = False
    incoming[heard[np.unique(r["start"][heard], return_index=True)[1]]] = True
    number = np.flatnonzero(outgoing | incoming)
    ts = np.where(outgoing[number], r["in_ts"][number], r["out_ts"][number])
    order = np.argsort(ts, kind="stable")
    return number[order], ts[order], outgoing[number][order]


def write_pcap(path: Path, log: Log, vantage: str, snap: int = FULL) -> int:
    """Write a nanosecond pcap of the frames seen at a vantage; returns the number of packets."""
    number, ts, outgoing = seen(log, vantage)
    lengths = np.minimum(log.records["length"][number], snap or FULL).astype(np.int64)
    out = np.empty(int(lengths.sum()) + 16 * number.size, np.uint8)
    used = _fill(log.records, number, ts, outgoing, log.store, snap, out, np.zeros(4, np.uint32))
    with path.open("wb") as file:
        file.write(PCAP_HEADER)
        file.write(out[:used].data)
    return int(number.size)
