"""The policy ``stream``: a connection's payload in order of sequence number, each byte once, without bare ACKs.

A segment behind a hole waits for the hole to be filled. A hole is let go once the peer has acknowledged it, since the
capture missed it, or after a bound in time. What waits is bounded in packets and bytes, for a connection and in all; a
connection over a bound lets everything go and continues as with the policy ``bytes``.

Waiting segments are rows of one pool, in two lists: of their side, ordered by sequence number, and of all, ordered by
arrival, so that none waits longer than the bound in time. Sides whose hole the peer has acknowledged are in a list of
their own. So a packet costs O(1), plus a walk past the waiting segments that it precedes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.clock import LATEST, NOW, new_clock, step
from engine.connections.layout import PACKET_FROM_ORIGINATOR, PACKET_SIDE, Segment
from engine.features.tokens import (
    BYTES,
    COPY,
    FLOW,
    NONE,
    OUTSIDE,
    C,
    Lookups,
    TokenConfig,
    Tokens,
    emit,
    fresh_payload,
    takes,
    write_words,
)
from engine.kernels import Int, kernel
from engine.types import ACK, FIN, RST, SYN, TCP, Packets, Rows, as_bytes, from_bytes, rows_at

NEW, PROBE = int(Segment.NEW), int(Segment.ZERO_WINDOW_PROBE)

GUARD = 1_000_000  # ns; a tap may deliver an ACK this much earlier than the data it acknowledges
FAR = 1 << 30  # a segment further ahead than that is of another time

SIDE = np.dtype(
    [
        ("next", "u4"),  # sequence number of the next byte to let through
        ("acked", "u4"),  # highest acknowledgement of the peer
        ("t_acked", "i8"),  # event time of it
        ("due", "i8"),  # event time at which holes are let go that the peer has acknowledged
        ("upto", "u4"),  # acknowledgement up to which they are
        ("head", "i4"), ("tail", "i4"),  # first and last waiting segment + 1 in the pool; 0: none
        ("before", "i4"), ("after", "i4"),  # neighbours in the list of such sides + 1
        ("due_set", "u1"),  # whether the side is in that list
        ("known", "u1"), ("heard", "u1"),  # whether `next` and `acked` are known
        ("probed", "u1"),  # whether a zero-window probe sent the byte at `next`
    ],
    align=True,
)  # fmt: skip
LOAD = np.dtype([("bytes", "u4"), ("packets", "u4")])  # what waits of a connection

HELD = np.dtype(
    [
        ("ts", "i8"), ("number", "i8"), ("arrived", "i8"),  # ns, number of the packet, event time
        ("seq", "u4"), ("payload", "u4"), ("side", "i4"),
        ("next", "i4"), ("prev", "i4"),  # neighbours in order of sequence number + 1; a free row: the next free one + 1
        ("newer", "i4"), ("older", "i4"),  # neighbours in order of arrival + 1
        ("flags", "u1"), ("up", "u1"),
    ],
    align=True,
)  # fmt: skip


class Of(IntEnum):
    """Fields of Streams.registers."""

    FREE = 0  # first free row of the pool + 1
    FRESH = 1  # rows of the pool that were ever used
    PACKETS = 2  # segments that wait, and bytes of theirs
    BYTES = 3
    OLDEST = 4  # segment + 1 that has waited longest, and the one that came last
    NEWEST = 5
    DUE = 6  # first and last side + 1 whose hole the peer has acknowledged
    DUE_LAST = 7


FREE, FRESH, PACKETS, WAITING_BYTES = int(Of.FREE), int(Of.FRESH), int(Of.PACKETS), int(Of.BYTES)
OLDEST, NEWEST, DUE, DUE_LAST = int(Of.OLDEST), int(Of.NEWEST), int(Of.DUE), int(Of.DUE_LAST)
ALL = -1  # let_through: up to the last


class Bounds(NamedTuple):
    """Bounds of what waits."""

    patience: int  # ns
    connection_packets: int
    connection_bytes: int
    packets: int
    bytes: int


class Streams(NamedTuple):
    """All state of the policy; kernels change it in place."""

    flows: Rows  # (slots,) FLOW
    loads: Rows  # (slots,) LOAD
    sides: Rows  # (2 * slots,) SIDE
    pool: Rows  # (packets,) HELD
    words: NDArray[np.uint8]  # (packets, words) header bytes of waiting segments
    registers: NDArray[np.int64]  # (len(Of),)
    clock: NDArray[np.int64]  # a clock of engine/clock.py


def bounds_of(config: TokenConfig) -> Bounds:
    """The bounds of a configuration."""
    patience = round(config.patience * 1e9)
    return Bounds(patience, config.connection_packets, config.connection_bytes, config.packets, config.bytes)


def new_streams(slots: int, config: TokenConfig) -> Streams:
    """Streams of connections that have not begun; memory is taken as it is used."""
    held = config.packets if config.policy == "stream" else 0
    sides = slots if config.policy == "stream" else 0
    return Streams(
        np.zeros(slots, FLOW), np.zeros(sides, LOAD), np.zeros(2 * sides, SIDE), np.zeros(held, HELD),
        np.zeros((held, config.words), np.uint8), np.zeros(len(Of), np.int64), new_clock(),
    )  # fmt: skip


@kernel
def after(now: Int, wait: Int) -> Int:
    """The time that long after now; the sum does not wrap."""
    return now + wait if now < LATEST - wait else np.int64(LATEST)


@kernel
def distance(one: Int, other: Int) -> Int:
    """How far sequence number ``one`` is ahead of ``other``, modulo 2**32: -2**31 to 2**31 - 1."""
    return ((np.int64(one) - np.int64(other) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


@kernel
def wait(t: Streams, s: Int, due: Int) -> None:
    """Put side s at the end of the list of sides whose hole the peer has acknowledged."""
    side, last = t.sides[s], t.registers[DUE_LAST]
    side["due_set"], side["due"], side["upto"], side["before"], side["after"] = 1, due, side["acked"], last, 0
    if last:
        t.sides[last - 1]["after"] = s + 1
    else:
        t.registers[DUE] = s + 1
    t.registers[DUE_LAST] = s + 1


@kernel
def wait_no_more(t: Streams, s: Int) -> None:
    """Take side s out of that list."""
    side = t.sides[s]
    if not side["due_set"]:
        return
    before, following = side["before"], side["after"]
    if before:
        t.sides[before - 1]["after"] = following
    else:
        t.registers[DUE] = following
    if following:
        t.sides[following - 1]["before"] = before
    else:
        t.registers[DUE_LAST] = before
    side["due_set"], side["before"], side["after"] = 0, 0, 0


@kernel
def new_bytes(flags: Int, payload: Int, begin: Int) -> Int:
    """Bytes of a segment's payload from ``next`` on. begin: where it begins, relative to ``next``, at most 0."""
    return min(payload, max(0, payload + begin + int(flags & SYN != 0)))


@kernel
def let_through(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], s: Int, at: Int, upto: Int
) -> Int:
    """Tokens of what waits on side s, up to the first hole; gives the new number of tokens.

    upto: segment + 1 up to which all are let through whatever is missing before them; 0: none; ALL: all.
    """
    side, slot, now = t.sides[s], s >> 1, t.clock[NOW]
    while side["head"]:
        k = np.int64(side["head"]) - 1
        held = t.pool[k]
        begin = distance(held["seq"], side["next"])
        if begin > 0:
            if upto == 0:
                break
            side["next"], begin = held["seq"], 0
        if k + 1 == upto:
            upto = 0
        flags, payload = np.int64(held["flags"]), np.int64(held["payload"])
        length = payload + int(flags & SYN != 0) + int(flags & FIN != 0)
        if begin + length > 0:
            side["next"], side["probed"] = (np.int64(side["next"]) + begin + length) & 0xFFFFFFFF, 0
            m = emit(out, m, t.flows[slot], tables, slot, held["ts"], held["number"], at, held["up"], flags,
                     new_bytes(flags, payload, begin), t.words[k])  # fmt: skip
            count_wait(counts, max(0, now - held["arrived"]))
        else:
            counts[C.LEFT_OUT] += 1
        drop_head(t, s)
    return m


@kernel
def count_wait(counts: NDArray[np.int64], ns: Int) -> None:
    """Count a packet that waited."""
    counts[C.HELD] += 1
    counts[C.HELD_NS] += ns
    for k in range(4):
        bound = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)[k]
        if ns < bound:
            counts[C.UNDER_1_MS + k] += 1


@kernel
def drop_head(t: Streams, s: Int) -> None:
    """Free the first waiting segment of side s."""
    side = t.sides[s]
    k = side["head"] - 1
    held, load = t.pool[k], t.loads[s >> 1]
    side["head"] = held["next"]
    if held["next"]:
        t.pool[held["next"] - 1]["prev"] = 0
    else:
        side["tail"] = 0
    load["packets"] -= 1
    load["bytes"] -= held["payload"]
    t.registers[PACKETS] -= 1
    t.registers[WAITING_BYTES] -= held["payload"]
    older, newer = held["older"], held["newer"]
    if older:
        t.pool[older - 1]["newer"] = newer
    else:
        t.registers[OLDEST] = newer
    if newer:
        t.pool[newer - 1]["older"] = older
    else:
        t.registers[NEWEST] = older
    held["next"] = t.registers[FREE]
    t.registers[FREE] = k + 1


@kernel
def is_passed(t: Streams, side: Any, ack: Int) -> bool:
    """Whether an acknowledgement takes in all before the first waiting segment of a side."""
    return bool(side["head"] and side["heard"] and distance(ack, t.pool[side["head"] - 1]["seq"]) >= 0)


@kernel
def settle(t: Streams, s: Int, now: Int) -> None:
    """Put side s into the list of those whose hole the peer has acknowledged, or take it out."""
    side = t.sides[s]
    if not is_passed(t, side, side["acked"]):
        wait_no_more(t, s)
    elif not side["due_set"]:
        wait(t, s, after(now, GUARD))


@kernel
def let_all(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], slot: Int, at: Int
) -> Int:
    """Let through all that waits of a connection, side 0 first; gives the new number of tokens."""
    for s in range(2 * slot, 2 * slot + 2):
        m = let_through(out, m, t, tables, counts, s, at, ALL)
        wait_no_more(t, s)
    return m


@kernel
def end_stream(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], slot: Int, at: Int
) -> Int:
    """Let through all that waits of a connection that has ended, and forget it; gives the new number of tokens."""
    if t.sides.size:
        m = let_all(out, m, t, tables, counts, slot, at)
        for s in range(2 * slot, 2 * slot + 2):
            side = t.sides[s]
            side["next"] = side["acked"] = side["t_acked"] = side["known"] = side["heard"] = side[
                "probed"
            ] = 0
    flow = t.flows[slot]
    flow["last"] = flow["used"] = flow["resets"] = flow["fallen"] = 0
    return m


@kernel
def hold(t: Streams, bounds: Bounds, p: Packets, i: Int, s: Int, number: Int, up: Int) -> bool:
    """Let packet i wait on side s; False, with nothing changed, when that would be over a bound."""
    load, payload = t.loads[s >> 1], np.int64(p.payload[i])
    if (
        load["packets"] >= bounds.connection_packets
        or load["bytes"] + payload > bounds.connection_bytes
        or t.registers[PACKETS] >= bounds.packets
        or t.registers[WAITING_BYTES] + payload > bounds.bytes
    ):
        return False
    k = free_row(t)
    held = t.pool[k]
    held["ts"], held["number"], held["arrived"] = p.ts[i], number, t.clock[NOW]
    held["seq"], held["payload"], held["side"] = p.seq[i], payload, s
    held["flags"], held["up"] = p.tcp_flags[i], up
    if t.words.shape[1]:
        write_words(p, i, t.words[k])
    insert(t, k)
    return True


@kernel
def free_row(t: Streams) -> Int:
    """A row of the pool that is free."""
    k = t.registers[FREE] - 1
    if k >= 0:
        t.registers[FREE] = t.pool[k]["next"]
    else:
        k = t.registers[FRESH]
        t.registers[FRESH] += 1
    return k


@kernel
def insert(t: Streams, k: Int) -> None:
    """Put segment k of the pool into both lists, and count it."""
    held = t.pool[k]
    side, load = t.sides[held["side"]], t.loads[held["side"] >> 1]
    follows, precedes = np.int64(side["tail"]), np.int64(0)
    while follows and distance(t.pool[follows - 1]["seq"], held["seq"]) > 0:
        precedes, follows = follows, np.int64(t.pool[follows - 1]["prev"])
    held["prev"], held["next"] = follows, precedes
    held["older"], held["newer"] = t.registers[NEWEST], 0
    if held["older"]:
        t.pool[held["older"] - 1]["newer"] = k + 1
    else:
        t.registers[OLDEST] = k + 1
    t.registers[NEWEST] = k + 1
    if follows:
        t.pool[follows - 1]["next"] = k + 1
    else:
        side["head"] = k + 1
    if precedes:
        t.pool[precedes - 1]["prev"] = k + 1
    else:
        side["tail"] = k + 1
    load["packets"] += 1
    load["bytes"] += held["payload"]
    t.registers[PACKETS] += 1
    t.registers[WAITING_BYTES] += held["payload"]


@kernel
def hear(t: Streams, s: Int, ack: Int) -> None:
    """Take the peer's acknowledgement of side s's bytes."""
    side = t.sides[s]
    ahead = distance(ack, side["acked"]) if side["heard"] else np.int64(1)
    if ahead <= 0 or (side["known"] and abs(distance(ack, side["next"])) > FAR):
        return
    side["acked"], side["t_acked"], side["heard"] = ack, t.clock[NOW], 1
    if (
        side["probed"] and not side["head"] and distance(ack, side["next"]) == 1
    ):  # the probe's byte was accepted
        side["next"], side["probed"] = ack, 0
    if side["head"]:
        settle(t, s, t.clock[NOW])


@kernel
def begin_side(side: Any, seq: Int) -> None:
    """Let a side's stream begin, or begin again, at a sequence number."""
    if side["known"] or abs(distance(side["acked"], seq)) > FAR:
        side["heard"] = 0  # an acknowledgement of other bytes
    side["next"], side["known"], side["probed"] = seq, 1, 0


@kernel
def enter_bytes(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], p: Packets, i: Int,
    slot: Int, bits: Int, kind: Int, seen: Int, number: Int, words: NDArray[np.uint8],
) -> Int:  # fmt: skip
    """Take packet i as the policy ``bytes`` does; a RST lets through what waits. Gives the new number of tokens."""
    flow, flags = t.flows[slot], np.int64(p.tcp_flags[i])
    if not takes(flow, kind, bits, flags, BYTES, tables):
        counts[C.LEFT_OUT] += 1
        return m
    if flags & RST:
        m = let_all(out, m, t, tables, counts, slot, i)
    payload = 0 if flags & RST else fresh_payload(p, i, seen)
    if words.size:
        write_words(p, i, words)
    up = bits & PACKET_FROM_ORIGINATOR
    return emit(out, m, flow, tables, slot, p.ts[i], number, i, up, flags, payload, words)


@kernel
def enter(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], bounds: Bounds, p: Packets, i: Int,
    slot: Int, bits: Int, kind: Int, seen: Int, number: Int, words: NDArray[np.uint8],
) -> Int:  # fmt: skip
    """Take packet i of a connection; gives the new number of tokens."""
    payload: Int = np.int64(p.payload[i])
    flow, flags = t.flows[slot], np.int64(p.tcp_flags[i])
    up, s = bits & PACKET_FROM_ORIGINATOR, 2 * slot + int(bits & PACKET_SIDE != 0)
    side = t.sides[s]
    if kind == PROBE and side["known"] and p.seq[i] == side["next"]:
        side["probed"] = 1
    if flow["fallen"] or flags & RST or kind == COPY or kind == OUTSIDE or kind == PROBE:
        return enter_bytes(out, m, t, tables, counts, p, i, slot, bits, kind, seen, number, words)
    if flags & ACK:
        hear(t, s ^ 1, p.ack[i])
    length = payload + int(flags & SYN != 0) + int(flags & FIN != 0)
    if length == 0:
        counts[C.LEFT_OUT] += 1
        return m
    begin = distance(p.seq[i], side["next"])
    elsewhere = flags & SYN or begin > FAR or begin + length <= 0  # where the tracker has moved this side
    if not side["known"] or (kind == NEW and elsewhere):
        m = let_through(out, m, t, tables, counts, s, i, ALL)
        wait_no_more(t, s)
        begin_side(side, p.seq[i])
        begin = np.int64(0)
    heard = side["heard"] and distance(side["acked"], p.seq[i]) >= 0
    if begin > 0 and not side["head"] and heard and side["t_acked"] <= t.clock[NOW] - GUARD:
        counts[C.LOST_ACKED] += 1
        side["next"], begin = p.seq[i], 0
    if begin > FAR or begin + length <= 0:
        counts[C.LEFT_OUT] += 1
        return m
    if begin > 0:
        if hold(t, bounds, p, i, s, number, up):
            settle(t, s, t.clock[NOW])
            return m
        counts[C.FALLBACKS] += 1
        flow["fallen"] = 1
        m = let_all(out, m, t, tables, counts, slot, i)
        return enter_bytes(out, m, t, tables, counts, p, i, slot, bits, kind, seen, number, words)
    if words.size:
        write_words(p, i, words)
    side["next"], side["probed"] = (np.int64(p.seq[i]) + length) & 0xFFFFFFFF, 0
    m = emit(
        out, m, flow, tables, slot, p.ts[i], number, i, up, flags, new_bytes(flags, payload, begin), words
    )
    if side["head"]:
        m = let_through(out, m, t, tables, counts, s, i, 0)
        settle(t, s, t.clock[NOW])
    return m


@kernel
def go_back(t: Streams) -> None:
    """Let everything wait from now on at most: event time has gone back."""
    now, k, s = t.clock[NOW], t.registers[OLDEST], t.registers[DUE]
    while k:
        held = t.pool[k - 1]
        held["arrived"], k = min(held["arrived"], now), held["newer"]
    while s:
        side = t.sides[s - 1]
        side["due"], s = min(side["due"], after(now, GUARD)), side["after"]


@kernel
def release_due(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], bounds: Bounds, at: Int
) -> Int:
    """Let go the holes whose time has come, in order of time; gives the new number of tokens."""
    now = t.clock[NOW]
    while t.registers[OLDEST]:
        k, s = t.registers[OLDEST], t.registers[DUE] - 1
        latest = after(t.pool[k - 1]["arrived"], bounds.patience)
        if s >= 0 and t.sides[s]["due"] <= min(now, latest):
            m = let_acked(out, m, t, tables, counts, s, at)
        elif latest <= now:
            s = np.int64(t.pool[k - 1]["side"])
            counts[C.LOST_TIME] += 1
            m = let_through(out, m, t, tables, counts, s, at, k)
            settle(t, s, latest)
        else:
            break
    return m


@kernel
def let_acked(
    out: Tokens, m: Int, t: Streams, tables: Lookups, counts: NDArray[np.int64], s: Int, at: Int
) -> Int:
    """Let go the holes of side s that were acknowledged when it was put into the list; gives the new number of tokens.

    Those acknowledged since then have a time of their own: their data may follow the acknowledgement, too.
    """
    side = t.sides[s]
    while is_passed(t, side, side["upto"]):
        counts[C.LOST_ACKED] += 1
        side["next"] = t.pool[side["head"] - 1]["seq"]
        m = let_through(out, m, t, tables, counts, s, at, 0)
    wait_no_more(t, s)
    settle(t, s, side["due"])
    return m


@kernel
def reassemble(
    out: Tokens, t: Streams, tables: Lookups, counts: NDArray[np.int64], bounds: Bounds, p: Packets,
    slot: NDArray[np.int32], bits: NDArray[np.uint8], kind: NDArray[np.uint8], seen: NDArray[np.uint32],
    closed: NDArray[np.int32], closed_at: NDArray[np.int64], first: Int, words: NDArray[np.uint8],
) -> Int:  # fmt: skip
    """Tokens of packets p in the order of their streams; gives their number. Connections that end let go what waits.

    out: room for p and all that waits. slot, bits, kind, seen: (n,) and closed, closed_at: (c,) the tracker's results.
    first: number of the first packet. words: (k,) scratch.
    """
    m = ended = 0
    for i in range(p.ts.size):
        now = t.clock[NOW]
        step(t.clock, p.ts[i])
        if t.clock[NOW] < now and t.registers[PACKETS]:
            go_back(t)
        if t.registers[PACKETS]:
            m = release_due(out, m, t, tables, counts, bounds, i)
        while ended < closed.size and closed_at[ended] <= i:
            m = end_stream(out, m, t, tables, counts, closed[ended], i)
            ended += 1
        if slot[i] < 0 or kind[i] == NONE or p.proto[i] != TCP:
            counts[C.NOT_TCP] += 1
            continue
        m = enter(
            out, m, t, tables, counts, bounds, p, i, slot[i], np.int64(bits[i]), kind[i], np.int64(seen[i]), first + i,
            words,
        )  # fmt: skip
    while ended < closed.size:
        m = end_stream(out, m, t, tables, counts, closed[ended], p.ts.size)  # after all of them
        ended += 1
    counts[C.TOKENS] += m
    return m


@kernel
def end_streams(
    out: Tokens, t: Streams, tables: Lookups, counts: NDArray[np.int64], slots: NDArray[np.int32]
) -> Int:
    """Tokens of what waits of connections that have ended, which are then forgotten; gives their number."""
    m = 0
    for i in range(slots.size):
        m = end_stream(out, m, t, tables, counts, slots[i], 0)
    counts[C.TOKENS] += m
    return m


@kernel
def release(out: Tokens, t: Streams, tables: Lookups, counts: NDArray[np.int64], bounds: Bounds) -> Int:
    """Tokens of what waits and whose time has come; gives their number."""
    m = release_due(out, 0, t, tables, counts, bounds, 0)
    counts[C.TOKENS] += m
    return m


def saved(t: Streams) -> dict[str, NDArray[Any]]:
    """A copy of the streams as plain arrays: only connections of which something is kept, and no links."""
    flows = t.flows
    active = (flows["used"] | flows["resets"] | flows["fallen"]) != 0
    pairs = t.sides.reshape(-1, 2)
    if pairs.size:
        active |= ((pairs["known"] | pairs["heard"]) != 0).any(axis=1)
    slots = np.flatnonzero(active)
    held, k = [], int(t.registers[OLDEST])
    while k:
        held.append(k - 1)
        k = int(t.pool[k - 1]["newer"])
    due, s = [], int(t.registers[DUE])
    while s:
        due.append(s - 1)
        s = int(t.sides[s - 1]["after"])
    sides = rows_at(pairs, slots).reshape(-1) if pairs.size else np.zeros(0, SIDE)
    rows = rows_at(t.pool, np.array(held, np.int64))
    unlink(sides, rows)
    return {
        "slots": slots, "flows": as_bytes(rows_at(flows, slots)), "sides": as_bytes(sides),
        "held": as_bytes(rows), "words": t.words[held].copy(),
        "due": np.array(due, np.int64), "clock": t.clock.copy(),
    }  # fmt: skip


def unlink(sides: Rows, held: Rows) -> None:
    """Clear all that follows from the order of waiting segments and of sides that are due."""
    for name in ("head", "tail", "before", "after", "due_set"):
        sides[name] = 0
    for name in ("next", "prev", "newer", "older"):
        held[name] = 0


def restored(slots: int, config: TokenConfig, arrays: Mapping[str, NDArray[Any]]) -> Streams:
    """Streams from a result of ``saved``. KeyError or ValueError when it does not fit."""
    t = new_streams(slots, config)
    used, words, due, clock = (
        checked(arrays, name, kind, width)
        for name, kind, width in (
            ("slots", "int64", None), ("words", "uint8", config.words), ("due", "int64", None),
            ("clock", "int64", None),
        )
    )  # fmt: skip
    flows, sides, held = (
        from_bytes(arrays[name], kind) for name, kind in (("flows", FLOW), ("sides", SIDE), ("held", HELD))
    )
    sides, held = sides.copy(), held.copy()
    streams = config.policy == "stream"
    for name, array, size in (
        ("flows", flows, used.size), ("sides", sides, 2 * used.size * streams), ("words", words, held.size),
        ("clock", clock, t.clock.size),
    ):  # fmt: skip
        if len(array) != size:
            raise ValueError(f"streams: {len(array)} rows of {name}, must be {size}")
    for name, array, end in (
        ("slots", used, slots), ("due", due, len(t.sides)), ("held", held["side"], len(t.sides))
    ):  # fmt: skip
        if array.size and (array.min() < 0 or array.max() >= end):
            raise ValueError(f"streams: {name} outside 0 to {end - 1}")
    check_order(used, held, int(clock[NOW]))
    check_bounds(held, bounds_of(config))
    unlink(sides, held)
    t.flows[used] = flows
    if streams:
        t.sides.reshape(-1, 2)[used] = sides.reshape(-1, 2)
    t.clock[:] = clock
    for k in range(held.size):
        t.pool[k] = held[k]
        t.words[k] = words[k]
        insert(t, k)
    t.registers[FRESH] = held.size
    for s in due.tolist():
        side = t.sides[s]
        if side["due_set"] or not side["head"]:
            raise ValueError(f"streams: side {s} cannot be due")
        upto = side["upto"]
        wait(t, s, side["due"])
        side["upto"] = upto
    return t


def checked(arrays: Mapping[str, NDArray[Any]], name: str, kind: str, width: int | None) -> NDArray[Any]:
    """One of the arrays. width: its columns, None without. ValueError when it has another type or shape."""
    array = arrays[name]
    shape = (len(array) if array.ndim else 0,) + (() if width is None else (width,))
    if array.dtype != kind or array.shape != shape:
        raise ValueError(f"streams: {name} is {array.dtype} {array.shape}, must be {kind} {shape}")
    return array


def check_order(used: NDArray[Any], held: Rows, now: int) -> None:
    """ValueError unless connections are named once, and what waits is of them and in order of arrival, up to now."""
    if np.unique(used).size != used.size:
        raise ValueError("streams: a slot is there twice")
    if not np.isin(held["side"] >> 1, used).all():
        raise ValueError("streams: a packet waits of a connection that is not there")
    arrived = held["arrived"]
    if held.size and ((np.diff(arrived) < 0).any() or arrived[-1] > now):
        raise ValueError("streams: waiting packets are not in order of arrival")


def check_bounds(held: Rows, bounds: Bounds) -> None:
    """ValueError when more packets or bytes wait than may."""
    payload = held["payload"].astype(np.int64)
    slot, first = np.unique(held["side"] >> 1, return_inverse=True)
    loads = np.bincount(first, payload, slot.size)
    for name, found, most in (
        ("packets", held.size, bounds.packets), ("bytes", int(payload.sum()), bounds.bytes),
        ("packets of a connection", np.bincount(first).max(initial=0), bounds.connection_packets),
        ("bytes of a connection", int(loads.max(initial=0)), bounds.connection_bytes),
    ):  # fmt: skip
        if found > most:
            raise ValueError(f"streams: {found} {name} wait, the bound is {most}")
