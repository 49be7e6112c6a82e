"""Flows and the damped records they point to: three bounded tables with one eviction rule.

A *flow* is both directions of one connection at the packet level (addresses, MACs, ports, protocol). Its row
holds the ids of the ten records that its packets update, so a packet costs one look-up:

    streams   one-dimensional statistics: MAC and host, host, jitter of host to host, endpoint: two of each
    pairs     joint statistics of two streams: two hosts, two endpoints

Records are shared between flows and counted: a record lives as long as a flow points to it. When a table is
full, the flows seen longest ago go first, and with them the records that only they held. So every table is
bounded, no id ever dangles, and the live rows depend on the packets alone.

Keys of jitter, endpoint and pair records contain the ids of the hosts' records: short, and unique for as long as
they live, because every flow that holds such a record holds the hosts too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.clock import new_clock
from engine.features.slots import displace, new_slots, place
from engine.hashing import LOW32, S29, S32, SPLIT_1, stir
from engine.kernels import kernel
from engine.types import Floats, Rows

LANES = 5  # decay rates
NEVER = -(2**63)  # time stamp of a record without a packet
NOBODY = 0  # row of the stream that never gets a packet: the peer of a host that sends to itself

# Columns of a stream's row (128 bytes) and of a pair's (168); the last is a time stamp, int64 ns. They are plain
# arrays, not fields of a record: numba would make an array of such a field at each use.
W, MEAN, VAR, STREAM_TS = 0, LANES, 2 * LANES, 3 * LANES
PAIR_W, SR, RES, PAIR_TS = (
    0,
    LANES,
    2 * LANES,
    4 * LANES,
)  # RES: last residual of either end, smaller id first

# key of a stream or a pair, 24 bytes
KEY = np.dtype([("a", "u8"), ("b", "u8"), ("tag", "u4"), ("refs", "i4")])
FLOW = np.dtype(
    [
        ("a_hi", "u8"), ("a_lo", "u8"), ("a_mac_port", "u8"),  # the smaller end
        ("b_hi", "u8"), ("b_lo", "u8"), ("b_mac_port", "u8"),
        ("layer_proto", "u8"),
        ("seen", "i8"),  # number of the last packet, counted over the stream; DEAD when free
    ]
)  # fmt: skip  # 64 bytes
# columns of a flow's record ids, the first four by sender: smaller end, other end
MAC, HOST, JIT, ENDPOINT, HOSTS_PAIR, ENDPOINTS_PAIR = 0, 2, 4, 6, 8, 9
DEAD = -1

# kind of record, in the high byte of a key's tag (below it, an endpoint's tag holds protocol and port)
HOST_IP, HOST_MAC, MAC_HOST, JITTER = (kind << 24 for kind in range(1, 5))
ENDPOINT_IP, ENDPOINT_MAC, HOSTS, ENDPOINTS = (kind << 24 for kind in range(5, 9))

# layer of a flow's addresses: with ARP, hosts are IP addresses and endpoints MACs
LAYER_IP, LAYER_ARP, LAYER_LINK = 0, 1, 2

STREAMS_A_FLOW = 8
PAIRS_A_FLOW = 2
SAMPLE = 8  # flows compared to find one to evict

# rows of Tables.counts, one column a table
USED, FREE, LIVE = 0, 1, 2  # rows ever used; head of the list of freed rows; rows in use
FLOWS, STREAMS, PAIRS = 0, 1, 2
# Tables.registers
PACKETS, HAND, EVICTED = 0, 1, 2


class Tables(NamedTuple):
    """All state: rows, the indices of their keys, counters."""

    flows: Rows  # (capacity,) FLOW
    records: NDArray[np.int32]  # (capacity, 10) rows of each flow's streams and pairs
    streams: Floats  # (m, 16)
    stream_ts: NDArray[np.int64]  # (m,) the last column of streams
    stream_keys: Rows  # (m,) KEY
    pairs: Floats  # (k, 21)
    pair_ts: NDArray[np.int64]  # (k,) the last column of pairs
    pair_keys: Rows  # (k,) KEY
    flow_slots: NDArray[np.uint64]  # (power of two,)
    stream_slots: NDArray[np.uint64]
    pair_slots: NDArray[np.uint64]
    counts: NDArray[np.int64]  # (3, 3): USED, FREE, LIVE of FLOWS, STREAMS, PAIRS
    registers: NDArray[np.int64]  # (3,): PACKETS, HAND, EVICTED
    clock: NDArray[np.int64]  # event time (engine/clock.py)
    seed: NDArray[np.uint64]  # (1,) seed of the hashes; changes no feature


def new_tables(flows: int, streams: int, pairs: int, seed: int) -> Tables:
    """Empty tables for that many rows; memory is touched only where rows are used."""
    counts = np.zeros((3, 3), np.int64)
    counts[FREE] = -1
    counts[USED, STREAMS] = NOBODY + 1
    stream_rows = np.zeros((streams + NOBODY + 1, STREAM_TS + 1))
    pair_rows = np.zeros((pairs, PAIR_TS + 1))
    return Tables(
        flows=np.zeros(flows, FLOW),
        records=np.zeros((flows, 10), np.int32),
        streams=stream_rows,
        stream_ts=stream_rows.view(np.int64)[:, STREAM_TS],
        stream_keys=np.zeros(stream_rows.shape[0], KEY),
        pairs=pair_rows,
        pair_ts=pair_rows.view(np.int64)[:, PAIR_TS],
        pair_keys=np.zeros(pairs, KEY),
        flow_slots=new_slots(flows),
        stream_slots=new_slots(streams),
        pair_slots=new_slots(pairs),
        counts=counts,
        registers=np.zeros(3, np.int64),
        clock=new_clock(),
        seed=np.array([seed], np.uint64),
    )


@kernel
def take_row(count: NDArray[np.int64], table: int, following: NDArray[np.uint64]) -> Any:
    """A free row: the one freed last, else the next. following: (m,) for a free row, the next free row + 1."""
    row = count[FREE, table]
    if row >= 0:
        count[FREE, table] = np.int64(following[row]) - 1
    else:
        row = count[USED, table]
        count[USED, table] = row + 1
    count[LIVE, table] += 1
    return row


@kernel
def give_row(count: NDArray[np.int64], table: int, following: NDArray[np.uint64], row: Any) -> None:
    """Put a row on the list of free ones."""
    following[row] = np.uint64(count[FREE, table] + 1)
    count[FREE, table] = row
    count[LIVE, table] -= 1


@kernel
def key_hash(seed: Any, a: Any, b: Any, tag: Any) -> Any:
    """Hash of a stream's or pair's key."""
    return stir(stir(stir(seed, np.uint64(tag)), a), b)


@kernel
def find_key(slots: NDArray[np.uint64], keys: Rows, h: Any, a: Any, b: Any, tag: Any) -> Any:
    """Row of a stream or pair, -1 when there is none."""
    mask = slots.size - 1
    i = np.int64(h >> S32) & mask
    while slots[i] != 0:
        if slots[i] >> S32 == h >> S32:
            row = np.int64(slots[i] & LOW32) - 1
            key = keys[row]
            if key["a"] == a and key["b"] == b and key["tag"] == tag:
                return row
        i = (i + 1) & mask
    return np.int64(-1)


@kernel
def write_key(keys: Rows, row: Any, a: Any, b: Any, tag: Any) -> None:
    """Write a row's key, with no references yet."""
    key = keys[row]
    key["a"] = a
    key["b"] = b
    key["tag"] = tag
    key["refs"] = 0


@kernel
def hold_stream(t: Tables, tag: Any, a: Any, b: Any) -> Any:
    """Row of the stream with this key, made if needed; counts one more reference."""
    h = key_hash(t.seed[0], a, b, tag)
    row = find_key(t.stream_slots, t.stream_keys, h, a, b, tag)
    if row < 0:
        row = take_row(t.counts, STREAMS, t.stream_keys["a"])
        write_key(t.stream_keys, row, a, b, tag)
        place(t.stream_slots, h, row)
        t.stream_ts[row] = NEVER
        for k in range(STREAM_TS):
            t.streams[row, k] = 0.0
    t.stream_keys[row]["refs"] += 1
    return row


@kernel
def hold_pair(t: Tables, tag: Any, one: Any, other: Any) -> Any:
    """Row of the joint statistics of two streams, made if needed; counts one more reference."""
    a = np.uint64(min(one, other))
    b = np.uint64(max(one, other))
    h = key_hash(t.seed[0], a, b, tag)
    row = find_key(t.pair_slots, t.pair_keys, h, a, b, tag)
    if row < 0:
        row = take_row(t.counts, PAIRS, t.pair_keys["a"])
        write_key(t.pair_keys, row, a, b, tag)
        place(t.pair_slots, h, row)
        t.pair_ts[row] = NEVER
        for k in range(PAIR_TS):
            t.pairs[row, k] = 0.0
    t.pair_keys[row]["refs"] += 1
    return row


@kernel
def drop_stream(t: Tables, row: Any) -> None:
    """Drop one reference; the last one frees the row."""
    key = t.stream_keys[row]
    key["refs"] -= 1
    if key["refs"] == 0:
        displace(t.stream_slots, key_hash(t.seed[0], key["a"], key["b"], key["tag"]), row)
        give_row(t.counts, STREAMS, t.stream_keys["a"], row)


@kernel
def drop_pair(t: Tables, row: Any) -> None:
    """Drop one reference; the last one frees the row."""
    key = t.pair_keys[row]
    key["refs"] -= 1
    if key["refs"] == 0:
        displace(t.pair_slots, key_hash(t.seed[0], key["a"], key["b"], key["tag"]), row)
        give_row(t.counts, PAIRS, t.pair_keys["a"], row)


@kernel
def flow_hash(seed: Any, e: NDArray[np.uint64]) -> Any:
    """Hash of a flow's key. e: (7,) the key's words, in FLOW's order."""
    one = stir(stir(stir(seed, e[0]), e[1]), e[2])
    other = stir(stir(stir(seed ^ SPLIT_1, e[3]), e[4]), e[5])
    return stir(one ^ (other >> S29), other ^ e[6])


@kernel
def copy_key(flow: Any, e: NDArray[np.uint64]) -> None:
    """Write a flow's key to e, (7,)."""
    e[0], e[1], e[2] = flow["a_hi"], flow["a_lo"], flow["a_mac_port"]
    e[3], e[4], e[5] = flow["b_hi"], flow["b_lo"], flow["b_mac_port"]
    e[6] = flow["layer_proto"]


@kernel
def find_flow(t: Tables, h: Any, e: NDArray[np.uint64]) -> Any:
    """Row of the flow with key e and hash h, -1 when there is none."""
    mask = t.flow_slots.size - 1
    i = np.int64(h >> S32) & mask
    while t.flow_slots[i] != 0:
        if t.flow_slots[i] >> S32 == h >> S32:
            row = np.int64(t.flow_slots[i] & LOW32) - 1
            flow = t.flows[row]
            if (
                flow["a_lo"] == e[1]
                and flow["b_lo"] == e[4]
                and flow["a_mac_port"] == e[2]
                and flow["b_mac_port"] == e[5]
                and flow["a_hi"] == e[0]
                and flow["b_hi"] == e[3]
                and flow["layer_proto"] == e[6]
            ):
                return row
        i = (i + 1) & mask
    return np.int64(-1)


@kernel
def full(t: Tables, flows: int) -> Any:
    """Whether that many new flows might not fit."""
    return (
        t.counts[LIVE, FLOWS] + flows > t.flows.size
        or t.counts[LIVE, STREAMS] + flows * STREAMS_A_FLOW >= t.stream_ts.size  # one is NOBODY's
        or t.counts[LIVE, PAIRS] + flows * PAIRS_A_FLOW > t.pair_ts.size
    )


@kernel
def open_flow(t: Tables, h: Any, e: NDArray[np.uint64]) -> Any:
    """Make the flow with key e and hold the records that its packets update. There must be room."""
    row = take_row(t.counts, FLOWS, t.flows["a_hi"])
    flow = t.flows[row]
    flow["a_hi"], flow["a_lo"], flow["a_mac_port"] = e[0], e[1], e[2]
    flow["b_hi"], flow["b_lo"], flow["b_mac_port"] = e[3], e[4], e[5]
    flow["layer_proto"] = e[6]
    place(t.flow_slots, h, row)
    layer = np.int64(e[6] >> np.uint64(8))
    proto = np.int64(e[6] & np.uint64(0xFF))
    records = t.records[row]
    for side in range(2):
        hi, lo, mac_port = e[3 * side], e[3 * side + 1], e[3 * side + 2]
        mac = mac_port >> np.uint64(16)
        port = np.int64(mac_port & np.uint64(0xFFFF))
        host = hold_stream(t, np.uint32(HOST_MAC if layer == LAYER_LINK else HOST_IP), hi, lo)
        records[HOST + side] = host
        records[MAC + side] = hold_stream(t, np.uint32(MAC_HOST), mac, np.uint64(host))
        if layer == LAYER_IP:
            tag = np.uint32(ENDPOINT_IP | proto << 16 | port)
            records[ENDPOINT + side] = hold_stream(t, tag, np.uint64(host), np.uint64(0))
        else:
            records[ENDPOINT + side] = hold_stream(t, np.uint32(ENDPOINT_MAC), np.uint64(0), mac)
    for side in range(2):
        one, other = np.uint64(records[HOST + side]), np.uint64(records[HOST + 1 - side])
        records[JIT + side] = hold_stream(t, np.uint32(JITTER), one, other)
    records[HOSTS_PAIR] = hold_pair(t, np.uint32(HOSTS), records[HOST], records[HOST + 1])
    records[ENDPOINTS_PAIR] = hold_pair(t, np.uint32(ENDPOINTS), records[ENDPOINT], records[ENDPOINT + 1])
    return row


@kernel
def close_flow(t: Tables, row: Any, e: NDArray[np.uint64]) -> None:
    """Delete a flow and the records that only it held. e: (7,) overwritten."""
    flow = t.flows[row]
    copy_key(flow, e)
    displace(t.flow_slots, flow_hash(t.seed[0], e), row)
    for k in range(STREAMS_A_FLOW):
        drop_stream(t, t.records[row, k])
    drop_pair(t, t.records[row, HOSTS_PAIR])
    drop_pair(t, t.records[row, ENDPOINTS_PAIR])
    flow["seen"] = DEAD
    give_row(t.counts, FLOWS, t.flows["a_hi"], row)


@kernel
def evict(t: Tables, e: NDArray[np.uint64]) -> None:
    """Close the flow seen longest ago among the next SAMPLE rows. e: (7,) overwritten.

    A list in order of use would touch two more flows a packet; a clock with one bit a flow may walk the whole
    table at once. The oldest of eight rows is nearly always a flow that a list would soon evict too.
    """
    oldest = np.int64(-1)
    while oldest < 0:
        hand = t.registers[HAND]
        stop = min(hand + SAMPLE, t.counts[USED, FLOWS])
        for row in range(hand, stop):
            seen = t.flows[row]["seen"]
            if seen != DEAD and (oldest < 0 or seen < t.flows[oldest]["seen"]):
                oldest = np.int64(row)
        t.registers[HAND] = stop if stop < t.counts[USED, FLOWS] else 0
    close_flow(t, oldest, e)
    t.registers[EVICTED] += 1


@kernel
def make_room(t: Tables, e: NDArray[np.uint64]) -> None:
    """Evict until some new flows fit (one for each 64 of capacity, 64 at most). e: (7,) overwritten."""
    wanted = max(1, min(64, t.flows.size // 64))
    while full(t, wanted):
        evict(t, e)


@kernel
def reindex(t: Tables, e: NDArray[np.uint64]) -> None:
    """Fill the empty indices from the rows in use. e: (7,) overwritten."""
    for row in range(t.counts[USED, FLOWS]):
        if t.flows[row]["seen"] != DEAD:
            copy_key(t.flows[row], e)
            place(t.flow_slots, flow_hash(t.seed[0], e), row)
    for row in range(t.counts[USED, STREAMS]):
        key = t.stream_keys[row]
        if key["refs"] > 0:
            place(t.stream_slots, key_hash(t.seed[0], key["a"], key["b"], key["tag"]), row)
    for row in range(t.counts[USED, PAIRS]):
        key = t.pair_keys[row]
        if key["refs"] > 0:
            place(t.pair_slots, key_hash(t.seed[0], key["a"], key["b"], key["tag"]), row)
