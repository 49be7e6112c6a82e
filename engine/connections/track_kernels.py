"""The kernels of the tracker: find each packet's connection and update it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import step
from engine.connections.bounds import TCP_SERVER, UDP_SERVER
from engine.connections.history import H_DATA, L_DATA, L_FLIPPED, first_time, write_letter
from engine.connections.layout import (
    FLAG_FLIPPED,
    FLAG_LATE,
    FLAG_MIDSTREAM,
    FRAGMENT_WAYS,
    PACKET_FROM_ORIGINATOR,
    PACKET_IN_RECOVERY,
    PACKET_OPENED,
    Ending,
    Registers,
    State,
    Table,
    Timer,
)
from engine.connections.ranges import NO_GUARD, count_losses
from engine.connections.table import (
    LIVE,
    NEXT_EXPIRY,
    NOW,
    OPENED,
    SLOT_MASK,
    close,
    close_lapsed,
    evict_oldest,
    expire,
    has_lapsed,
    insert,
    key_tag,
    link,
    rewind,
    take_slot,
    touch,
    unlink,
)
from engine.connections.tcp import SYN_ACK_SENT, SYN_SENT, end_recovery, segment
from engine.hashing import endpoint_hash
from engine.kernels import Int, kernel
from engine.types import (
    ACK,
    ICMP,
    ICMP6,
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_MASK,
    KIND_TRANSPORT,
    SYN,
    TCP,
    UDP,
    Kind,
    Packets,
    Reason,
    Rows,
)

IPV4, IPV6 = int(Kind.IPV4), int(Kind.IPV6)
TRUNCATED = int(Reason.TRANSPORT_TRUNCATED)
CAPACITY, LATE, LOST_AT = int(Registers.CAPACITY), int(Registers.LATE), int(Registers.LOST_AT)
LEAPT = int(Registers.LEAPT)
COLD_UNTIL = int(Registers.COLD_UNTIL)
T_ATTEMPT, T_CLOSING, T_TCP = int(Timer.ATTEMPT), int(Timer.CLOSING), int(Timer.TCP)
T_UDP, T_ICMP, T_OTHER = int(Timer.UDP), int(Timer.ICMP), int(Timer.OTHER)
INACTIVE, ESTABLISHED, RESET = int(State.INACTIVE), int(State.ESTABLISHED), int(State.RESET)
END_LIVE, END_REUSED = int(Ending.LIVE), int(Ending.REUSED)
BROADCAST = np.uint64(0xFFFF_FFFF_FFFF)  # 255.255.255.255, which never answers


@kernel
def icmp_counterpart(proto: Int, kind: Int) -> Int:
    """The ICMP type that answers ``kind``, or -1 without one (RFC 792, 4443, 4861, 2710)."""
    if proto == ICMP:
        pairs = ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18))
        for one, other in pairs:
            if kind == one:
                return other
            if kind == other:
                return one
    else:
        for one, other in ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)):
            if kind == one:
                return other
            if kind == other:
                return one
    return -1


@kernel
def begins_flipped(p: Packets, i: Int, sport: Int, dport: Int, server_ports: NDArray[np.uint8]) -> bool:
    """Whether the first packet seems to come from the responder, judging by server ports."""
    bit = TCP_SERVER if p.proto[i] == TCP else UDP_SERVER
    if bit == TCP_SERVER:
        if p.tcp_flags[i] & (SYN | ACK) == SYN:
            return False
    elif p.proto[i] != UDP:
        return False
    if not server_ports[sport] & bit or (p.dst_lo[i] == BROADCAST and p.dst_hi[i] == 0):
        return False
    if not server_ports[dport] & bit:
        return True
    return bit == TCP_SERVER and not p.tcp_flags[i] & SYN and sport < dport


@kernel
def is_reuse(rows: Rows, sides: Rows, slot: Int, flags: Int, seq: Int) -> bool:
    """Whether a SYN begins a new connection on the addresses and ports of a known one."""
    if not flags & SYN:
        return False
    o = 1 if rows[slot]["flags"] & FLAG_FLIPPED else 0
    orig, resp = sides[2 * slot + o], sides[2 * slot + 1 - o]
    side = orig
    if flags & ACK:
        if orig["state"] != INACTIVE:
            return False
        side = resp
    if orig["did_close"] or resp["did_close"]:
        return True
    if side["have_base"] and seq == side["base"]:
        return False
    swapped = orig["state"] == SYN_ACK_SENT and resp["state"] == INACTIVE and seq == resp["base"]
    return not (flags & ACK == 0 and swapped)


@kernel
def next_timer(row: Any, a: Any, b: Any) -> Int:
    """The list in which a TCP connection with sides a and b now belongs."""
    flipped = row["flags"] & FLAG_FLIPPED
    orig, resp = b if flipped else a, a if flipped else b
    if not (orig["did_close"] or resp["did_close"]) and resp["state"] != INACTIVE:
        return T_TCP
    if (orig["did_close"] and (orig["state"] == RESET or resp["did_close"] or resp["state"] == INACTIVE)) or (
        resp["did_close"] and (resp["state"] == RESET or orig["did_close"] or orig["state"] == INACTIVE)
    ):
        return T_CLOSING
    if orig["state"] in (SYN_SENT, SYN_ACK_SENT) and resp["state"] == INACTIVE:
        return T_ATTEMPT
    return T_TCP


@kernel
def find(
    index: NDArray[np.int64], rows: Rows, tag: Int, proto: Int,
    src: tuple[Int, Int, Int], dst: tuple[Int, Int, Int],
) -> tuple[Int, Int]:  # fmt: skip
    """Slot and side of the connection between two endpoints (hi, lo, port), or (-1, 0)."""
    mask = index.size - 1
    k = tag & mask
    while index[k] != 0:
        if index[k] >> 32 == tag:
            slot = (index[k] & SLOT_MASK) - 1
            row = rows[slot]
            if row["proto"] == proto:
                a = (row["a_hi"], row["a_lo"], np.int64(row["a_port"]))
                b = (row["b_hi"], row["b_lo"], np.int64(row["b_port"]))
                if a == src and b == dst:
                    return slot, 0
                if a == dst and b == src:
                    return slot, 1
        k = (k + 1) & mask
    return -1, 0


@kernel
def open_connection(t: Table, p: Packets, i: Int, tag: Int, sport: Int, dport: Int) -> Int:
    """A cleared row for packet i, in the index but not yet in a list."""
    slot = take_slot(t)
    row = t.rows[slot]
    row["a_hi"], row["a_lo"], row["b_hi"], row["b_lo"] = p.src_hi[i], p.src_lo[i], p.dst_hi[i], p.dst_lo[i]
    row["a_mac"], row["b_mac"] = p.src_mac[i], p.dst_mac[i]
    row["a_port"], row["b_port"], row["proto"] = sport, dport, p.proto[i]
    row["start"], row["last"] = p.ts[i], p.ts[i]
    row["tag"] = tag
    row["probe"] = p.probe[i]
    insert(t.places, tag, slot)
    t.registers[LIVE] += 1
    t.registers[OPENED] += 1
    return slot


@kernel
def fragment_entry(t: Table, p: Packets, i: Int) -> tuple[Int, Int]:
    """Entry of t.fragments for packet i's datagram, and the check value.

    The entry is the datagram's own, else one to overwrite: an empty one, or that of the oldest connection.
    """
    h = endpoint_hash(p.src_hi[i], p.src_lo[i], np.uint64(p.ip_id[i]))
    h ^= endpoint_hash(p.dst_hi[i], p.dst_lo[i], np.uint64(p.proto[i]))
    check = np.int64(h >> np.uint64(1)) | 1
    first = np.int64(h & np.uint64(t.fragments.shape[0] // FRAGMENT_WAYS - 1)) * FRAGMENT_WAYS
    best: Int = first
    for k in range(first, first + FRAGMENT_WAYS):
        if t.fragments[k, 0] == check:
            return k, check
        if t.fragments[best, 0] != 0 and (t.fragments[k, 0] == 0 or t.fragments[k, 2] < t.fragments[best, 2]):
            best = k
    return best, check


@kernel
def mark(closed_at: NDArray[np.int64], noted: Int, n_closed: Int, i: Int) -> Int:
    """Write packet i to places noted..n_closed; gives n_closed."""
    for k in range(noted, n_closed):
        closed_at[k] = i
    return n_closed


@kernel
def track(
    t: Table,
    p: Packets,
    begin: Int,
    again: bool,
    timeouts: NDArray[np.int64],
    server_ports: NDArray[np.uint8],
    slot_out: NDArray[np.int32],
    flags_out: NDArray[np.uint8],
    segment_out: NDArray[np.uint8],
    closed: NDArray[np.int32],
    closed_at: NDArray[np.int64],
) -> tuple[Int, Int]:
    """Process packets from ``begin`` on; stops early when ``closed`` is full: call it from there with ``again``.

    t: changed in place. slot_out, flags_out, segment_out: (n,) receive each packet's connection (-1 = none),
    PACKET_ bits and Segment. closed: receives the slots of connections that ended, in order; their rows stay
    until they are released. closed_at: receives the packet at which each ended.
    Returns the first packet not processed, and the number of closed connections.
    """
    n_closed = noted = 0
    for i in range(begin, p.ts.size):
        ts = p.ts[i]
        noted = mark(closed_at, noted, n_closed, i - 1)
        if not again or i > begin:  # else its time was taken before the stop
            if step(t.registers, ts) != 0:
                rewind(t)
            if ts < t.registers[NOW]:
                t.registers[LATE] += 1
        if t.registers[NOW] >= t.registers[NEXT_EXPIRY]:
            n_closed = expire(t, timeouts, closed, n_closed)
            if n_closed < 0:
                mark(closed_at, noted, -1 - n_closed, i)
                return i, -1 - n_closed
        if closed.size - n_closed < 3:  # room for an eviction, and for one or two lapsed connections
            mark(closed_at, noted, n_closed, i)
            return i, n_closed
        now = max(
            t.registers[NOW], t.registers[LEAPT]
        )  # connections touched by a leap wait from that time, if it comes true
        leaps = t.registers[LEAPT] == ts and ts > t.registers[NOW]  # believed by its own connection only
        slot_out[i] = -1
        flags_out[i] = 0
        segment_out[i] = 0
        network = p.kind[i] & KIND_MASK
        if network != IPV4 and network != IPV6:
            continue
        proto, flags = p.proto[i], np.int64(p.tcp_flags[i])
        sport, dport = np.int64(p.sport[i]), np.int64(p.dport[i])
        if proto in (ICMP, ICMP6):
            other = icmp_counterpart(proto, sport)
            if other >= 0:
                dport = other
        slot, d, tag = -1, 0, 0
        if p.kind[i] & KIND_FRAGMENT:
            place, check = fragment_entry(t, p, i)
            note = t.fragments[place]
            if (
                note[0] == check
                and t.rows[note[1]]["start"] == note[2]
                and t.rows[note[1]]["ending"] == END_LIVE
            ):
                slot, d = note[1], note[3]
                if leaps and has_lapsed(t, slot, ts, timeouts):
                    n_closed = close_lapsed(t, slot, closed, n_closed)
                    slot, d = -1, 0
        if slot < 0:
            one = endpoint_hash(p.src_hi[i], p.src_lo[i], np.uint64(sport))
            two = endpoint_hash(p.dst_hi[i], p.dst_lo[i], np.uint64(dport))
            tag = key_tag(one, two, np.uint64(proto))
            src, dst = (p.src_hi[i], p.src_lo[i], sport), (p.dst_hi[i], p.dst_lo[i], dport)
            slot, d = find(t.places, t.rows, tag, proto, src, dst)
            if leaps and slot >= 0 and has_lapsed(t, slot, ts, timeouts):
                n_closed = close_lapsed(t, slot, closed, n_closed)
                slot, d = -1, 0
        transport = proto == TCP and p.kind[i] & KIND_TRANSPORT and not p.kind[i] & KIND_FRAGMENT
        if slot >= 0 and transport and flags & SYN and is_reuse(t.rows, t.sides, slot, flags, p.seq[i]):
            n_closed = close(t, slot, END_REUSED, closed, n_closed)
            slot, d = -1, 0
        if slot < 0:
            if t.registers[LIVE] == t.registers[CAPACITY]:
                n_closed = evict_oldest(t, closed, n_closed)
            slot = open_connection(t, p, i, tag, sport, dport)
            row = t.rows[slot]
            flags_out[i] |= PACKET_OPENED
            if begins_flipped(p, i, sport, dport, server_ports):
                row["flags"] |= FLAG_FLIPPED
                write_letter(row, L_FLIPPED)
            timer = T_OTHER
            if transport:
                timer = T_ATTEMPT if flags & SYN else T_TCP
                if flags & (SYN | ACK) != SYN:
                    row["flags"] |= FLAG_MIDSTREAM
            elif proto == TCP:
                timer = T_TCP
            elif proto == UDP:
                timer = T_UDP
            elif proto in (ICMP, ICMP6):
                timer = T_ICMP
            row["timer"] = timer
            link(t.links, t.heads, t.tails, t.registers, slot, timer, now, timeouts[timer])
        if p.kind[i] & KIND_FIRST_FRAGMENT:
            place, check = fragment_entry(t, p, i)
            note = t.fragments[place]
            note[0], note[1], note[2], note[3] = check, slot, t.rows[slot]["start"], d
        s = 2 * slot + d
        row, me, you = t.rows[slot], t.sides[s], t.sides[s ^ 1]
        lasting = not (me["did_close"] and you["did_close"])
        timer = row["timer"]
        if transport:
            window = np.int64(p.window[i])
            if p.reason[i] == TRUNCATED and window == 0:
                window = np.int64(0xFFFF)  # cut off by the snaplen, not closed
            segment_out[i] = segment(
                row, me, you, t.holes, s, d, ts,
                flags, p.seq[i], p.ack[i], np.int64(p.payload[i]), window, np.int64(p.ip_id[i]),
            )  # fmt: skip
            timer = next_timer(row, me if d == 0 else you, you if d == 0 else me)
            if me["recovery_point"] or you["recovery_point"]:
                flags_out[i] |= PACKET_IN_RECOVERY
        else:
            if proto == UDP and not p.kind[i] & KIND_FRAGMENT:
                first_time(row, me, d, H_DATA, L_DATA)
            if proto != TCP:
                me["state"] = ESTABLISHED
        if timer != row["timer"]:
            unlink(t.links, t.heads, t.tails, slot, row["timer"])
            row["timer"] = timer
            link(t.links, t.heads, t.tails, t.registers, slot, timer, now, timeouts[timer])
        elif timer >= T_TCP:
            touch(t.links, t.heads, t.tails, slot, timer, now)
        me["packets"] += 1
        me["ip_bytes"] += p.ip_size[i]
        me["payload"] += p.payload[i]
        if ts > row["last"]:
            if lasting:  # packets after both sides ended are counted, but prolong nothing (Zeek)
                row["last"] = ts
        elif ts < row["last"]:
            row["flags"] |= FLAG_LATE
        if (d == 0) != ((row["flags"] & FLAG_FLIPPED) != 0):
            flags_out[i] |= PACKET_FROM_ORIGINATOR
        if p.probe[i]:
            row["probe"] = p.probe[i]
        slot_out[i] = slot
    mark(closed_at, noted, n_closed, p.ts.size - 1)
    return p.ts.size, n_closed


@kernel
def settle(t: Table, slots: NDArray[np.int32]) -> None:
    """Count what can no longer arrive: acknowledged holes become losses, open episodes end."""
    for i in range(slots.size):
        slot = slots[i]
        for d in range(2):
            s = 2 * slot + d
            me, you = t.sides[s], t.sides[s ^ 1]
            if me["holes"] > 0:
                count_losses(t.rows[slot], me, you, t.holes, s, d, t.rows[slot]["last"], NO_GUARD)
            if me["recovery_point"]:
                end_recovery(me, t.rows[slot]["last"])
