"""Streams of an earlier run as arrays for a file, and back. What is read from a file is hostile until checked.

The file has the keys of flows, not those of streams and pairs: these follow from the flows and are built anew, so no
file can hold an index that does not fit its keys, a reference too few, or a list of free rows that runs in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import StateError
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.features.streams import (
    DEAD,
    ENDPOINT,
    ENDPOINTS_PAIR,
    FLOW,
    FLOWS,
    HOST,
    HOSTS_PAIR,
    LANES,
    MAC,
    NEVER,
    PACKETS,
    PAIR_TS,
    PAIR_W,
    RES,
    STREAM_TS,
    STREAMS_A_FLOW,
    USED,
    Tables,
    find_flow,
    flow_hash,
    full,
    open_flow,
)
from engine.kernels import allocating
from engine.types import Floats

Arrays = dict[str, NDArray[Any]]
WORDS = 7  # words of a flow's key
LARGEST = 1e24  # largest statistic that is accepted; products of two stay finite
SHAPES: dict[str, tuple[int | None, str]] = {
    "flows": (WORDS, "int64"),  # keys, seen longest ago first
    "records": (10, "int32"),  # rows of each flow's streams and pairs
    "streams": (STREAM_TS, "float64"), "stream_ts": (None, "int64"),
    "pairs": (PAIR_TS, "float64"), "pair_ts": (None, "int64"),
}  # fmt: skip
MOST_FLOWS = 1 << 18  # most flows in a file, 0.16 GiB
LAYERS = 3  # kinds of layer in a flow's key
Host = tuple[int, int, int]  # MAC, and the two halves of an address


def carried(image: AfterImage, most: int) -> Arrays:
    """The ``most`` flows seen last and their records, as finite arrays: about 0.6 kB a flow."""
    t = image.tables
    used = int(t.counts[USED, FLOWS])
    seen = t.flows["seen"][:used].copy()
    live = np.flatnonzero(seen != DEAD)
    chosen = live[np.argsort(seen[live], kind="stable")][max(0, live.size - most) :]
    keys = np.ascontiguousarray(t.flows[chosen]).view(np.int64).reshape(-1, FLOW.itemsize // 8)[:, :WORDS]
    records = t.records[chosen].copy()
    streams, records[:, :STREAMS_A_FLOW] = _renumbered(records[:, :STREAMS_A_FLOW])
    pairs, records[:, STREAMS_A_FLOW:] = _renumbered(records[:, STREAMS_A_FLOW:])
    return {
        "flows": keys.copy(), "records": records,
        "streams": t.streams[streams, :STREAM_TS].copy(), "stream_ts": t.stream_ts[streams].copy(),
        "pairs": t.pairs[pairs, :PAIR_TS].copy(), "pair_ts": t.pair_ts[pairs].copy(),
    }  # fmt: skip


def _renumbered(rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The rows in use, ascending, and their indices in place of the rows."""
    found, at = np.unique(rows, return_inverse=True)
    return found, at.reshape(rows.shape).astype(np.int32)


def check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise StateError unless arrays have the form of a result of ``carried`` and sane values."""
    if missing := sorted(SHAPES.keys() ^ arrays.keys()):
        raise StateError(f"streams: {', '.join(missing)} missing or unknown")
    for name, (columns, dtype) in SHAPES.items():
        array = arrays[name]
        shape = (len(array) if array.ndim else 0,) + (() if columns is None else (columns,))
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise StateError(f"streams: {name} is {array.dtype}{list(array.shape)}, must be {dtype} {shape}")
    flows, records, streams, pairs = (arrays[name] for name in ("flows", "records", "streams", "pairs"))
    layers = flows[:, 6] >> 8
    for problem, bad in (
        (f"no flow, or more than {MOST_FLOWS}", not 1 <= len(flows) <= MOST_FLOWS),
        ("not as many records as flows", len(records) != len(flows)),
        ("not a time for each stream and pair", _uneven(arrays)),
        ("a layer that there is not", ((layers < 0) | (layers >= LAYERS)).any()),
        ("a row beyond the streams", _outside(records[:, :STREAMS_A_FLOW], len(streams))),
        ("a row beyond the pairs", _outside(records[:, STREAMS_A_FLOW:], len(pairs))),
        ("a statistic out of range", not _sane(streams) or not _sane(pairs)),
        ("a negative weight, mean or variance", (streams < 0).any() or (pairs[:, PAIR_W:LANES] < 0).any()),
    ):
        if bad:
            raise StateError(f"streams: {problem}")


def _uneven(arrays: Mapping[str, NDArray[Any]]) -> bool:
    return any(len(arrays[a]) != len(arrays[b]) for a, b in (("streams", "stream_ts"), ("pairs", "pair_ts")))


def _outside(rows: NDArray[Any], n: int) -> bool:
    return bool(((rows < 0) | (rows >= n)).any())


def _sane(values: Floats) -> bool:
    return bool((np.abs(values) <= LARGEST).all())  # false for NaN


def last_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Time of the last packet, ns."""
    return int(arrays["stream_ts"].max())


def senders(arrays: Mapping[str, NDArray[Any]]) -> set[Host]:
    """Hosts that sent a packet: MAC and address."""
    flows, words = arrays["flows"], arrays["flows"].view(np.uint64)
    found: set[Host] = set()
    for side in range(2):
        sent = arrays["stream_ts"][arrays["records"][:, MAC + side]] != NEVER
        own = words[sent, 3 * side : 3 * side + 3] if len(flows) else words[:0, :3]
        found |= {(mac >> 16, hi, lo) for hi, lo, mac in own.tolist()}
    return found


@allocating
def _adopt(
    t: Tables, flows: NDArray[np.uint64], records: NDArray[np.int32], streams: Floats, stream_ts: NDArray[np.int64],
    pairs: Floats, pair_ts: NDArray[np.int64],
) -> int:  # fmt: skip
    """Open the flows, those seen last first, while there is room; 0, or -1 if records do not fit the keys."""
    stream_of = np.full(stream_ts.size, -1, np.int64)  # row in the file -> row here
    pair_of = np.full(pair_ts.size, -1, np.int64)
    stream_in, pair_in = np.full(t.stream_ts.size, -1, np.int64), np.full(t.pair_ts.size, -1, np.int64)
    for i in range(len(flows) - 1, -1, -1):
        if full(t, 1):
            break
        h = flow_hash(t.seed[0], flows[i])
        if find_flow(t, h, flows[i]) >= 0:
            return -1
        row = open_flow(t, h, flows[i])
        t.flows[row]["seen"] = i
        for k in range(STREAMS_A_FLOW):
            old, new = np.int64(records[i, k]), np.int64(t.records[row, k])
            if stream_of[old] < 0 and stream_in[new] < 0:
                stream_of[old], stream_in[new] = new, old
                for c in range(STREAM_TS):
                    t.streams[new, c] = streams[old, c]
                t.stream_ts[new] = stream_ts[old]
            elif stream_of[old] != new or stream_in[new] != old:
                return -1
        for k, end in ((HOSTS_PAIR, HOST), (ENDPOINTS_PAIR, ENDPOINT)):
            old, new = np.int64(records[i, k]), np.int64(t.records[row, k])
            if pair_of[old] < 0 and pair_in[new] < 0:
                pair_of[old], pair_in[new] = new, old
                for c in range(PAIR_TS):
                    t.pairs[new, c] = pairs[old, c]
                t.pair_ts[new] = pair_ts[old]
                before = records[i, end] < records[i, end + 1]
                if before != (t.records[row, end] < t.records[row, end + 1]):  # residuals: smaller id first
                    for c in range(LANES):
                        t.pairs[new, RES + c] = pairs[old, RES + LANES + c]
                        t.pairs[new, RES + LANES + c] = pairs[old, RES + c]
            elif pair_of[old] != new or pair_in[new] != old:
                return -1
    t.registers[PACKETS] = len(flows)
    return 0


def adopted(config: AfterImageConfig, arrays: Mapping[str, NDArray[Any]]) -> AfterImage:
    """Statistics that continue from arrays that ``check`` accepts; with fewer flows if there is no room for all.

    Raises StateError when the records contradict the keys of the flows.
    """
    image = AfterImage(config)
    names = ("records", "streams", "stream_ts", "pairs", "pair_ts")
    flows = np.ascontiguousarray(arrays["flows"]).view(np.uint64)
    with np.errstate(over="ignore"):  # hashes wrap
        if _adopt(image.tables, flows, *(np.ascontiguousarray(arrays[name]) for name in names)) < 0:
            raise StateError("streams: records that contradict the keys of their flows")
    return image
