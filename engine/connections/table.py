"""Finding, opening and closing connections: open addressing over flat arrays, timer lists, bounded capacity.

Every timer list is ordered by the event time from which its entries wait, so expiry looks at six heads a packet, and
the least recently seen connection is always one of them. All of it depends on the packets alone: cutting the
stream elsewhere changes nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.connections.layout import FLAG_FLIPPED, Ending, Registers, Table, Timer
from engine.hashing import GOLDEN, S32, S33, SPLIT_1, SPLIT_2, endpoint_hash, fold, stir
from engine.kernels import Int, kernel
from engine.types import TCP, Rows

Links = NDArray[np.int32]
Longs = NDArray[np.int64]

ONE, S48 = np.uint64(1), np.uint64(48)
SLOT_MASK = 0xFFFFFFFF  # mask of the slot + 1 in an entry of the index

NOW, FREE, LIVE, CAPACITY = (
    int(Registers.NOW),
    int(Registers.FREE),
    int(Registers.LIVE),
    int(Registers.CAPACITY),
)
NEXT_EXPIRY = int(Registers.NEXT_EXPIRY)
MAX_TIME = (1 << 63) - 1
OPENED, EVICTED, EXPIRED = int(Registers.OPENED), int(Registers.EVICTED), int(Registers.EXPIRED)
TIMERS = len(Timer)
CLOSING = int(Timer.CLOSING)
END_TIMEOUT, END_CLOSED, END_EVICTED = int(Ending.TIMEOUT), int(Ending.CLOSED), int(Ending.EVICTED)


@kernel
def key_tag(a: Int, b: Int, proto: Int) -> Int:
    """31 bits (never 0) from an unordered pair of endpoint hashes; 31 keep an index entry positive."""
    x = fold(((a + b) ^ ((a ^ b) * GOLDEN) ^ proto) * SPLIT_1, S32)
    tag = np.int64((x * SPLIT_2) >> S33)
    return tag if tag != 0 else np.int64(1)


@kernel
def origin_key(a: Int, b: Int) -> Int:
    """64 bits from an unordered pair of endpoint hashes."""
    return stir(a + b, a ^ b)


@kernel
def remember_origin(t: Table, slot: Int) -> None:
    """Keep which end of a TCP connection was its originator."""
    row = t.rows[slot]
    a = endpoint_hash(row["a_hi"], row["a_lo"], np.uint64(row["a_port"]))
    b = endpoint_hash(row["b_hi"], row["b_lo"], np.uint64(row["b_port"]))
    key = origin_key(a, b)
    first = (a > b) != ((row["flags"] & FLAG_FLIPPED) != 0)
    t.origins[key >> S48] = (key & ~ONE) | np.uint64(first)


@kernel
def is_known_origin(t: Table, a: Int, b: Int) -> Int:
    """1 if the endpoint with hash a was the originator of an earlier connection with b, -1 if b was, 0 if unknown."""
    key = origin_key(a, b)
    found = t.origins[key >> S48]
    if found == 0 or (found | ONE) != (key | ONE):
        return 0
    return 1 if (found & ONE != 0) == (a > b) else -1


@kernel
def due(since: Int, timeout: Int) -> Int:
    """Event time at which a wait since then ends; the sum does not wrap."""
    return since + timeout if since < MAX_TIME - timeout else np.int64(MAX_TIME)


@kernel
def link(
    links: Rows, heads: Links, tails: Links, registers: Longs, slot: Int, timer: Int, since: Int, timeout: Int
) -> None:
    """Put a slot at the recent end of a timer's list."""
    me, last = links[slot], tails[timer]
    me["since"], me["prev"], me["next"] = since, last, -1
    if last >= 0:
        links[last]["next"] = slot
    else:
        heads[timer] = slot
        registers[NEXT_EXPIRY] = min(registers[NEXT_EXPIRY], due(since, timeout))
    tails[timer] = slot


@kernel
def unlink(links: Rows, heads: Links, tails: Links, slot: Int, timer: Int) -> None:
    """Take a slot out of its timer's list."""
    before, after = links[slot]["prev"], links[slot]["next"]
    if before >= 0:
        links[before]["next"] = after
    else:
        heads[timer] = after
    if after >= 0:
        links[after]["prev"] = before
    else:
        tails[timer] = before


@kernel
def touch(links: Rows, heads: Links, tails: Links, slot: Int, timer: Int, since: Int) -> None:
    """Move a slot to the recent end of its timer's list."""
    me, last = links[slot], tails[timer]
    me["since"] = since
    if last == slot:
        return
    before, after = me["prev"], me["next"]
    if before >= 0:
        links[before]["next"] = after
    else:
        heads[timer] = after
    links[after]["prev"] = before
    links[last]["next"] = slot
    me["prev"], me["next"] = last, -1
    tails[timer] = slot


@kernel
def insert(index: NDArray[np.int64], tag: Int, slot: Int) -> None:
    """Enter a slot that is not in the index."""
    mask = index.size - 1
    i = tag & mask
    while index[i] != 0:
        i = (i + 1) & mask
    index[i] = (tag << 32) | (slot + 1)


@kernel
def remove(index: NDArray[np.int64], tag: Int, slot: Int) -> None:
    """Take a slot out of the index, shifting back later entries of its run, so that no tombstones pile up."""
    mask = index.size - 1
    entry = (tag << 32) | (slot + 1)
    i = tag & mask
    while index[i] != entry:
        i = (i + 1) & mask
    j = i
    while True:
        j = (j + 1) & mask
        if index[j] == 0:
            break
        home = ((index[j] >> 32) & SLOT_MASK) & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            index[i] = index[j]
            i = j
    index[i] = 0


@kernel
def close(t: Table, slot: Int, ending: Int, closed: NDArray[np.int32], n_closed: Int) -> Int:
    """Take a connection out of index and list; its slot stays readable until it is released."""
    row = t.rows[slot]
    if row["proto"] == TCP:
        remember_origin(t, slot)
    remove(t.places, np.int64(row["tag"]), slot)
    unlink(t.links, t.heads, t.tails, slot, row["timer"])
    row["ending"] = ending
    t.registers[LIVE] -= 1
    closed[n_closed] = slot
    return n_closed + 1


@kernel
def close_all(t: Table, slots: NDArray[np.int32], ending: Int, closed: NDArray[np.int32]) -> None:
    """Close connections. closed: scratch for one slot."""
    for i in range(slots.size):
        close(t, slots[i], ending, closed, 0)


@kernel
def has_lapsed(t: Table, slot: Int, now: Int, timeouts: NDArray[np.int64]) -> bool:
    """Whether a connection has waited longer than the timeout of its list."""
    return bool(due(t.links[slot]["since"], timeouts[t.rows[slot]["timer"]]) <= now)


@kernel
def close_lapsed(t: Table, slot: Int, closed: NDArray[np.int32], n_closed: Int) -> Int:
    """Close a connection that has waited longer than the timeout of its list."""
    t.registers[EXPIRED] += 1
    ending = END_CLOSED if t.rows[slot]["timer"] == CLOSING else END_TIMEOUT
    return close(t, slot, ending, closed, n_closed)


@kernel
def expire(t: Table, timeouts: NDArray[np.int64], closed: NDArray[np.int32], n_closed: Int) -> Int:
    """Close all connections whose timeout is over; gives their number, or -1 - number if ``closed`` is full first.

    NEXT_EXPIRY is never too late, so callers may skip this until event time reaches it.
    """
    now = t.registers[NOW]
    next_expiry = np.int64(MAX_TIME)
    for timer in range(TIMERS):
        slot = t.heads[timer]
        while slot >= 0 and has_lapsed(t, slot, now, timeouts):
            if n_closed >= closed.size - 2:  # the current packet may close two more
                return -1 - n_closed
            n_closed = close_lapsed(t, slot, closed, n_closed)
            slot = t.heads[timer]
        if slot >= 0:
            next_expiry = min(next_expiry, due(t.links[slot]["since"], timeouts[timer]))
    t.registers[NEXT_EXPIRY] = next_expiry
    return n_closed


@kernel
def rewind(t: Table) -> None:
    """Restart the wait of entries whose time never came; they are at the recent ends of the lists."""
    for timer in range(TIMERS):
        slot = t.tails[timer]
        while slot >= 0 and t.links[slot]["since"] > t.registers[NOW]:
            t.links[slot]["since"] = t.registers[NOW]
            slot = t.links[slot]["prev"]
    t.registers[NEXT_EXPIRY] = t.registers[NOW]


@kernel
def evict_oldest(t: Table, closed: NDArray[np.int32], n_closed: Int) -> Int:
    """Close the connection that has waited longest in any list."""
    oldest = -1
    for timer in range(TIMERS):
        slot = t.heads[timer]
        if slot >= 0 and (oldest < 0 or t.links[slot]["since"] < t.links[oldest]["since"]):
            oldest = slot
    t.registers[EVICTED] += 1
    return close(t, oldest, END_EVICTED, closed, n_closed)


@kernel
def clear(t: Table, slot: Int) -> None:
    """Zero everything in a slot. Holes stay: the side counts how many of them are valid."""
    t.rows[slot : slot + 1].view(np.uint8)[:] = 0
    t.sides[2 * slot : 2 * slot + 2].view(np.uint8)[:] = 0


@kernel
def release(t: Table, closed: NDArray[np.int32]) -> None:
    """Hand the slots of closed connections back."""
    for i in range(closed.size):
        t.free[t.registers[FREE]] = closed[i]
        t.registers[FREE] += 1


@kernel
def take_slot(t: Table) -> Int:
    """A cleared slot from the free stack."""
    t.registers[FREE] -= 1
    slot = t.free[t.registers[FREE]]
    clear(t, slot)
    return slot


@kernel
def oldest_first(t: Table, timer: Int, out: NDArray[np.int32]) -> Int:
    """Write the slots of one list, least recent first; gives their number."""
    n = 0
    slot = t.heads[timer]
    while slot >= 0:
        out[n] = slot
        n += 1
        slot = t.links[slot]["next"]
    return n


def live_slots(t: Table) -> Rows:
    """All live slots, timer by timer, least recent first."""
    out = np.empty(t.rows.shape[0], np.int32)
    n = 0
    for timer in range(TIMERS):
        n += oldest_first(t, timer, out[n:])
    return out[:n]
