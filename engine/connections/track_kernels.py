"""The kernels of the tracker: find each packet's connection and update it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import BACK, BACK_FOR_GOOD, BACKS, step
from engine.connections.bounds import TCP_SERVER, UDP_SERVER
from engine.connections.copies import LONGEST, age_of, is_certain, is_copy, may_be_copied, print_of
from engine.connections.history import (
    H_DATA,
    H_SYN,
    L_DATA,
    L_FLIPPED,
    L_SYN,
    L_SYN_ACK,
    first_time,
    write_again,
    write_letter,
)
from engine.connections.layout import (
    FLAG_FLIPPED,
    FLAG_LATE,
    FLAG_MIDSTREAM,
    FRAGMENT_WAYS,
    OPENINGS,
    PACKET_COPY,
    PACKET_FROM_ORIGINATOR,
    PACKET_IN_RECOVERY,
    PACKET_OPENED,
    PACKET_SIDE,
    Ending,
    Registers,
    Segment,
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
    due,
    evict_oldest,
    expire,
    has_lapsed,
    insert,
    is_known_origin,
    key_tag,
    link,
    rewind,
    take_slot,
    touch,
    unlink,
)
from engine.connections.tcp import end_recovery, end_unheard, segment
from engine.connections.window import AHEAD, RUN_SYN, SYN_ACK_SENT, SYN_SENT, is_outside, set_base, was_heard
from engine.hashing import S32, endpoint_hash, stir
from engine.kernels import Int, kernel
from engine.notation import LINK_HOST, V4_PREFIX
from engine.types import (
    ACK,
    ICMP,
    ICMP6,
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_MASK,
    KIND_TRANSPORT,
    RST,
    SYN,
    TCP,
    UDP,
    Kind,
    Packets,
    Reason,
    Rows,
)

UNREAD, IPV4 = int(Kind.UNREAD), int(Kind.IPV4)
CAPTURE_DUPLICATE = int(Segment.CAPTURE_DUPLICATE)
TRUNCATED = int(Reason.TRANSPORT_TRUNCATED)
CAPACITY, LATE, LOST_AT = int(Registers.CAPACITY), int(Registers.LATE), int(Registers.LOST_AT)
LEAPT = int(Registers.LEAPT)
COLD_UNTIL, COPIES = int(Registers.COLD_UNTIL), int(Registers.COPIES)
AGAIN = int(Registers.AGAIN)
T_ATTEMPT, T_CLOSING, T_TCP = int(Timer.ATTEMPT), int(Timer.CLOSING), int(Timer.TCP)
T_UDP, T_ICMP, T_OTHER = int(Timer.UDP), int(Timer.ICMP), int(Timer.OTHER)
INACTIVE, ESTABLISHED, RESET = int(State.INACTIVE), int(State.ESTABLISHED), int(State.RESET)
END_LIVE, END_REUSED = int(Ending.LIVE), int(Ending.REUSED)
BROADCAST_V4 = np.uint64(0xFFFF_FFFF_FFFF)  # 255.255.255.255
NIBBLE, V6_GROUP, ONE = np.uint64(0xF), np.uint64(0xFF), np.uint64(1)
LOW16 = np.uint64(0xFFFF)
S16, S28, S40, S56 = np.uint64(16), np.uint64(28), np.uint64(40), np.uint64(56)


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
def is_group(hi: Int, lo: Int, mac: Int) -> bool:
    """Whether an address, or its MAC, is that of a group or of everyone: it receives and never sends."""
    if hi == 0 and lo >> S32 == V4_PREFIX:
        return bool((lo >> S28) & NIBBLE == NIBBLE - ONE or lo == BROADCAST_V4 or (mac >> S40) & ONE)
    return bool(hi >> S56 == V6_GROUP or (mac >> S40) & ONE)


@kernel
def is_reset_by_server(p: Packets, i: Int, sport: Int, dport: Int) -> bool:
    """Whether a first packet is a reset that refuses what the capture does not have: nobody begins with one.

    One to a SYN has the number 0 (RFC 9293, section 3.5.2); else the lower port is the server's.
    """
    if p.proto[i] != TCP or not p.tcp_flags[i] & RST:
        return False
    return bool((p.tcp_flags[i] & ACK and p.seq[i] == 0) or sport < dport)


@kernel
def begins_flipped(p: Packets, i: Int, sport: Int, dport: Int, server_ports: NDArray[np.uint8]) -> bool:
    """Whether the first packet seems to come from the responder, judging by server ports."""
    if is_group(p.dst_hi[i], p.dst_lo[i], p.dst_mac[i]):
        return False
    bit = TCP_SERVER if p.proto[i] == TCP else UDP_SERVER
    if bit == TCP_SERVER:
        if p.tcp_flags[i] & (SYN | ACK) == SYN:
            return False
    elif p.proto[i] != UDP:
        return False
    if not server_ports[sport] & bit:
        return is_reset_by_server(p, i, sport, dport) and not server_ports[dport] & bit
    if not server_ports[dport] & bit:
        return True
    return bit == TCP_SERVER and not p.tcp_flags[i] & SYN and sport < dport


@kernel
def answers_syn(waiting: Any, flags: Int, ack: Int) -> bool:
    """Whether a segment answers a SYN of the other side that lay outside the window."""
    if not flags & ACK or not flags & (SYN | RST):
        return False
    if waiting["run_segments"] == 0 or waiting["run_flags"] & (RUN_SYN | ACK) != RUN_SYN:
        return False
    answered = (np.int64(ack) - np.int64(waiting["run_seq"])) & 0xFFFFFFFF
    return bool(
        1 <= answered <= waiting["run_end"] - waiting["run_begin"]
    )  # of its data, too, or not (RFC 7413)


@kernel
def follows_syn(waiting: Any, peer: Any, flags: Int, seq: Int, ack: Int, payload: Int) -> bool:
    """Whether a segment follows a SYN of its own side that lay outside the window, where the peer is not captured."""
    if was_heard(peer) or waiting["run_segments"] == 0 or not waiting["run_flags"] & RUN_SYN:
        return False
    if flags & SYN:
        return False
    since = (np.int64(seq) - np.int64(waiting["run_seq"])) & 0xFFFFFFFF
    size = waiting["run_end"] - waiting["run_begin"]
    if since == size:
        return True
    return bool(size < since <= size + AHEAD and is_outside(waiting, peer, flags, seq, ack, payload))


@kernel
def is_reuse(rows: Rows, sides: Rows, slot: Int, flags: Int) -> bool:
    """Whether a SYN begins a new connection on the addresses and ports of a known one.

    Until that has closed, it does so only once it is answered (RFC 5961, section 4).
    """
    if not flags & SYN:
        return False
    o = 1 if rows[slot]["flags"] & FLAG_FLIPPED else 0
    orig, resp = sides[2 * slot + o], sides[2 * slot + 1 - o]
    if flags & ACK and orig["state"] != INACTIVE:
        return False
    if (orig["did_close"] and resp["did_close"]) or orig["state"] == RESET or resp["state"] == RESET:
        return True
    return bool((orig["did_close"] or resp["did_close"]) and not (was_heard(orig) and was_heard(resp)))


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
    index: NDArray[np.int64], rows: Rows, tag: Int, apart: tuple[Int, Int, Int, Int],
    src: tuple[Int, Int, Int], dst: tuple[Int, Int, Int],
) -> tuple[Int, Int]:  # fmt: skip
    """Slot and side of the connection between two endpoints (hi, lo, port), or (-1, 0).

    apart: IP protocol, EtherType, and the VLAN with the mask of its bits that tell connections apart.
    """
    proto, ethertype, vlan, bits = apart
    mask = index.size - 1
    k = tag & mask
    while index[k] != 0:
        if index[k] >> 32 == tag:
            slot = (index[k] & SLOT_MASK) - 1
            row = rows[slot]
            if row["proto"] == proto and row["ethertype"] == ethertype and row["vlan"] & bits == vlan:
                a = (row["a_hi"], row["a_lo"], np.int64(row["a_port"]))
                b = (row["b_hi"], row["b_lo"], np.int64(row["b_port"]))
                if a == src and b == dst:
                    return slot, 0
                if a == dst and b == src:
                    return slot, 1
        k = (k + 1) & mask
    return -1, 0


@kernel
def times_before(t: Table, row: Any, sport: Int, dport: Int, proto: Int, start: Int) -> Int:
    """A number that tells this connection's id from those of earlier ones with the same key and start."""
    h = stir(endpoint_hash(row["a_hi"], row["a_lo"], np.uint64(sport)), np.uint64(start))
    h = stir(endpoint_hash(row["b_hi"], row["b_lo"], np.uint64(dport)) ^ np.uint64(proto), h)
    place = h & np.uint64(OPENINGS - 1)
    entry = t.openings[place]
    count = np.uint64(0)
    if entry >> S16 == h >> S16:
        count = min(entry & LOW16, LOW16 - ONE) + ONE
    t.openings[place] = (h & ~LOW16) | count
    return np.uint32(np.uint64(t.registers[BACKS]) << S16 | count)


@kernel
def open_connection(
    t: Table,
    p: Packets,
    i: Int,
    tag: Int,
    src: tuple[Int, Int, Int],
    dst: tuple[Int, Int, Int],
    ethertype: Int,
) -> Int:
    """A cleared row for packet i, in the index but not yet in a list."""
    slot = take_slot(t)
    row = t.rows[slot]
    row["a_hi"], row["a_lo"], sport = src
    row["b_hi"], row["b_lo"], dport = dst
    row["ethertype"], row["vlan"] = ethertype, p.vlan[i]
    t.reported[slot] = p.ts[i]
    row["again"] = times_before(t, row, sport, dport, p.proto[i], p.ts[i])
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
def take_over(t: Table, slot: Int, waited: Any, d: Int) -> None:
    """Make a SYN that waited outside the window of another connection the first packet of this one.

    waited: the side that sent it. d: its side here. The packet that showed it, by side 0, is still to be entered.
    """
    row, me = t.rows[slot], t.sides[2 * slot + d]
    answer = waited["run_flags"] & ACK != 0
    if (d == 1) != answer:
        row["flags"] |= FLAG_FLIPPED
    if answer:
        row["flags"] |= FLAG_MIDSTREAM
    row["start"] = waited["t_run"]
    row["last"] = max(row["last"], row["start"])
    row["again"] = times_before(t, row, row["a_port"], row["b_port"], row["proto"], row["start"])
    set_base(me, np.int64(waited["run_seq"]), waited["run_end"] - waited["run_begin"])
    me["state"], me["t_syn"], me["syn_seq"] = SYN_SENT, waited["t_run"], waited["run_seq"]
    if answer:
        me["state"] = ESTABLISHED
    me["packets"], me["ip_bytes"] = waited["run_segments"], waited["run_bytes"]
    first_time(row, me, d, H_SYN, L_SYN_ACK if answer else L_SYN)
    waited["packets"] -= np.uint64(waited["run_segments"])
    waited["ip_bytes"] -= np.uint64(waited["run_bytes"])
    waited["out_of_window"] -= min(waited["out_of_window"], waited["run_segments"])
    waited["run_segments"] = 0


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
def mark(at: NDArray[np.int64], noted: Int, n: Int, i: Int) -> Int:
    """Write packet i to places noted..n; gives n."""
    for k in range(noted, n):
        at[k] = i
    return n


@kernel
def first_timer(proto: Int, transport: bool, flags: Int) -> Int:
    """The list in which a connection with such a first packet waits."""
    if proto == TCP:
        return T_ATTEMPT if transport and flags & SYN else T_TCP
    if proto == UDP:
        return T_UDP
    return T_ICMP if proto in (ICMP, ICMP6) else T_OTHER


@kernel
def seems_flipped(
    t: Table, p: Packets, i: Int, one: Int, two: Int, sport: Int, dport: Int, server_ports: NDArray[np.uint8]
) -> bool:
    """Whether the first packet comes from the responder: it was one before a pause, or seems to be by its port.

    one, two: hashes of source and destination.
    """
    if p.proto[i] == TCP and not p.tcp_flags[i] & SYN:
        known = is_known_origin(t, one, two)
        if known != 0:
            return bool(known < 0)
    return begins_flipped(p, i, sport, dport, server_ports)


@kernel
def round_trip_of(row: Any, a: Any, b: Any) -> Int:
    """Round trip of a connection in ns, 0 if none was measured."""
    if row["handshake"] > 0:
        return row["handshake"]
    one, other = a["round_trip"], b["round_trip"]
    return one + other if one > 0 and other > 0 else np.int64(0)


@kernel
def is_copied(t: Table, p: Packets, i: Int, age: Int, slot: Int, d: Int) -> bool:
    """Whether a packet that equals one ``age`` ns ago is the capture's copy; it is then counted."""
    if slot < 0:
        if not is_copy(p, i, age, 0, 0):
            return False
        t.registers[COPIES] += 1
        return True
    row, me = t.rows[slot], t.sides[2 * slot + d]
    if not is_copy(p, i, age, round_trip_of(row, me, t.sides[2 * slot + 1 - d]), np.int64(row["copy_delay"])):
        return False
    t.registers[COPIES] += 1
    me["capture_duplicate"] += 1
    if is_certain(p, i):
        row["copy_delay"] = max(np.int64(row["copy_delay"]), age)
    return True


@kernel
def track(
    t: Table,
    p: Packets,
    begin: Int,
    again: bool,
    timeouts: NDArray[np.int64],
    server_ports: NDArray[np.uint8],
    options: NDArray[np.int64],
    slot_out: NDArray[np.int32],
    flags_out: NDArray[np.uint8],
    segment_out: NDArray[np.uint8],
    seen_out: NDArray[np.uint32],
    closed: NDArray[np.int32],
    closed_at: NDArray[np.int64],
    interim: NDArray[np.int32],
) -> tuple[Int, Int, Int]:
    """Process packets from ``begin`` on; stops early when ``closed`` is full: call it from there with ``again``.

    t: changed in place. options: see Tracker. slot_out, flags_out, segment_out, seen_out: (n,) receive each packet's
    connection (-1 = none), PACKET_ bits, Segment, and how much of its sequence space was seen before. closed: receives
    the slots of connections that ended, in order; their rows stay until they are released. closed_at: receives the
    packet at which each ended. interim: (n,) receives the slots of connections for which an interim row is due, where
    these are asked for.
    Returns the first packet not processed, the number of closed connections, and that of interim rows.
    """
    n_closed = noted = n_interim = 0
    drop, mask, every = options[0] != 0, np.uint32(options[1]), options[2]
    for i in range(begin, p.ts.size):
        ts = p.ts[i]
        noted = mark(closed_at, noted, n_closed, i - 1)
        if not again or i > begin:  # else its time was taken before the stop
            before = t.registers[NOW]
            if ts > before:
                if t.registers[AGAIN] != 0:
                    t.registers[AGAIN] = 0
            elif due(ts, LONGEST) < before:
                t.registers[AGAIN] = 1
            found = step(t.registers, ts)
            if found != 0:
                rewind(t)
            if found == BACK_FOR_GOOD:  # what comes with equal times was captured again, not copied
                t.copies[:] = 0
            if ts < t.registers[NOW]:
                t.registers[LATE] += 1
        if t.registers[NOW] >= t.registers[NEXT_EXPIRY]:
            n_closed = expire(t, timeouts, closed, n_closed)
            if n_closed < 0:
                mark(closed_at, noted, -1 - n_closed, i)
                return i, -1 - n_closed, n_interim
        if (
            closed.size - n_closed < 4
        ):  # room for an eviction, a lapsed connection or two, and one of a single packet
            mark(closed_at, noted, n_closed, i)
            return i, n_closed, n_interim
        now = max(
            t.registers[NOW], t.registers[LEAPT]
        )  # connections touched by a leap wait from that time, if it comes true
        leaps = t.registers[LEAPT] == ts and ts > t.registers[NOW]  # believed by its own connection only
        slot_out[i] = -1
        flags_out[i] = 0
        segment_out[i] = seen_out[i] = 0
        network = p.kind[i] & KIND_MASK
        if network == UNREAD or (network < IPV4 and p.src_mac[i] == 0 and p.dst_mac[i] == 0):
            continue
        proto, flags = p.proto[i], np.int64(p.tcp_flags[i])
        sport: Int = np.int64(p.sport[i])
        dport: Int = np.int64(p.dport[i])
        ethertype: Int = 0
        src_hi, src_lo, dst_hi, dst_lo = p.src_hi[i], p.src_lo[i], p.dst_hi[i], p.dst_lo[i]
        if network < IPV4:
            ethertype = max(np.int64(p.ethertype[i]), 1)
            sport = dport = 0
            src_hi, src_lo, dst_hi, dst_lo = LINK_HOST, p.src_mac[i], LINK_HOST, p.dst_mac[i]
        elif proto in (ICMP, ICMP6):
            other = icmp_counterpart(proto, sport)
            if other >= 0:
                dport = other
        one = endpoint_hash(src_hi, src_lo, np.uint64(sport))
        two = endpoint_hash(dst_hi, dst_lo, np.uint64(dport))
        vlan = p.vlan[i] & mask
        age = np.int64(-1)
        if not t.registers[AGAIN] and may_be_copied(p, i):
            age = age_of(t.copies, print_of(p, i, one, two, np.uint64(vlan)), ts)
        slot, d, tag = -1, 0, 0
        if p.kind[i] & KIND_FRAGMENT:
            place, check = fragment_entry(t, p, i)
            note = t.fragments[place]
            if (
                note[0] == check
                and t.rows[note[1]]["start"] == note[2]
                and t.rows[note[1]]["ending"] == END_LIVE
                and t.rows[note[1]]["tag"] != 0  # in a restored table, the rows of others are empty
            ):
                slot, d = note[1], note[3]
                if leaps and has_lapsed(t, slot, ts, timeouts):
                    n_closed = close_lapsed(t, slot, closed, n_closed)
                    slot, d = -1, 0
        src, dst = (src_hi, src_lo, sport), (dst_hi, dst_lo, dport)
        if slot < 0:
            tag = key_tag(
                one, two, np.uint64(proto) | np.uint64(vlan) << np.uint64(8) | np.uint64(ethertype) << S40
            )
            apart = (np.int64(proto), np.int64(ethertype), vlan, mask)
            slot, d = find(t.places, t.rows, tag, apart, src, dst)
            if leaps and slot >= 0 and has_lapsed(t, slot, ts, timeouts):
                n_closed = close_lapsed(t, slot, closed, n_closed)
                slot, d = -1, 0
        transport = proto == TCP and p.kind[i] & KIND_TRANSPORT and not p.kind[i] & KIND_FRAGMENT
        copied = age >= 0 and is_copied(t, p, i, age, slot, d)
        if copied:
            flags_out[i] |= PACKET_COPY
            segment_out[i] = CAPTURE_DUPLICATE
            if drop:
                slot_out[i] = slot
                if slot >= 0 and (d == 0) != ((t.rows[slot]["flags"] & FLAG_FLIPPED) != 0):
                    flags_out[i] |= PACKET_FROM_ORIGINATOR
                continue
        alone = False  # a packet far behind its connection, before others have shown that time went back
        if slot >= 0 and proto != TCP:
            last, timeout = t.rows[slot]["last"], timeouts[t.rows[slot]["timer"]]
            behind = due(ts, timeout) < last
            if behind or due(last, timeout) <= ts:  # the latter where a leap had moved its wait
                alone = behind and ts < t.registers[NOW] - BACK
                if not alone:
                    n_closed = close_lapsed(t, slot, closed, n_closed)
                slot, d = -1, 0
        waited = -1  # side of the connection just ended whose SYN this packet answers, or follows
        same = 0  # 1 if it is this packet's own side
        asks = flags & (SYN | RST) or (slot >= 0 and t.sides[2 * slot + d]["run_flags"] & RUN_SYN)
        if slot >= 0 and transport and not copied and asks:
            me, you = t.sides[2 * slot + d], t.sides[2 * slot + 1 - d]
            if answers_syn(you, flags, p.ack[i]):
                waited = 2 * slot + 1 - d
            elif follows_syn(me, you, flags, p.seq[i], p.ack[i], np.int64(p.payload[i])):
                waited, same = 2 * slot + d, 1
            if waited >= 0 or is_reuse(t.rows, t.sides, slot, flags):
                n_closed = close(t, slot, END_REUSED, closed, n_closed)
                slot, d = -1, 0
        if slot < 0:
            if t.registers[LIVE] == t.registers[CAPACITY]:
                n_closed = evict_oldest(t, closed, n_closed)
            slot = open_connection(t, p, i, tag, src, dst, ethertype)
            row = t.rows[slot]
            flags_out[i] |= PACKET_OPENED
            if waited >= 0:
                take_over(t, slot, t.sides[waited], 1 - same)
            elif ethertype == 0 and seems_flipped(t, p, i, one, two, sport, dport, server_ports):
                row["flags"] |= FLAG_FLIPPED
                write_letter(row, L_FLIPPED)
            timer = first_timer(proto, transport, flags)
            if transport and waited < 0 and flags & (SYN | ACK) != SYN:
                row["flags"] |= FLAG_MIDSTREAM
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
        if transport and not copied:
            window: Int = np.int64(p.window[i])
            if p.reason[i] == TRUNCATED and window == 0:
                window = np.int64(0xFFFF)  # cut off by the snaplen, not closed
            segment_out[i], seen_out[i] = segment(
                row, me, you, t.holes, s, d, ts,
                flags, p.seq[i], p.ack[i], np.int64(p.payload[i]), window, np.int64(p.ip_size[i]),
            )  # fmt: skip
            timer = next_timer(row, me if d == 0 else you, you if d == 0 else me)
            if me["recovery_point"] or you["recovery_point"]:
                flags_out[i] |= PACKET_IN_RECOVERY
        elif transport:  # a copy that counts
            if p.payload[i]:
                write_again(row, me, d)
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
        elif ts < row["last"] or alone:
            row["flags"] |= FLAG_LATE
        if (d == 0) != ((row["flags"] & FLAG_FLIPPED) != 0):
            flags_out[i] |= PACKET_FROM_ORIGINATOR
        if ethertype:  # many conversations have frames between two MACs: a label counts if all have it
            if row["probe"] != p.probe[i]:
                row["probe"] = 0
        elif p.probe[i]:
            row["probe"] = p.probe[i]
        if d != 0:
            flags_out[i] |= PACKET_SIDE
        slot_out[i] = slot
        if alone:
            n_closed = close_lapsed(t, slot, closed, n_closed)
        elif every > 0 and ts - t.reported[slot] >= every:
            t.reported[slot] = ts
            interim[n_interim] = slot
            n_interim += 1
    mark(closed_at, noted, n_closed, p.ts.size - 1)
    return p.ts.size, n_closed, n_interim


@kernel
def settle(t: Table, slots: NDArray[np.int32]) -> None:
    """Count what can no longer arrive: acknowledged holes become losses, open episodes end."""
    for i in range(slots.size):
        slot = slots[i]
        for d in range(2):
            s = 2 * slot + d
            me, you = t.sides[s], t.sides[s ^ 1]
            end_unheard(t.rows[slot], me, you, t.holes, s, d)
            if me["holes"] > 0:
                count_losses(t.rows[slot], me, you, t.holes, s, d, t.rows[slot]["last"], NO_GUARD)
            if me["recovery_point"]:
                end_recovery(me, t.rows[slot]["last"])
