"""The window of a side's sequence space: what lies outside changes nothing until the peer acknowledges it.

A segment outside the window is one that its receiver would drop (RFC 9293, section 3.10.7.4; RFC 5961): a forged or
wild number, a stray SYN, a reset from afar. It is counted, and its place is kept. The place is believed once the peer
acknowledges it; then it was the capture that missed what lies between. Where the peer cannot object, because the
capture does not have it, a run of segments is believed once it goes on.

The capture does not know how a receiver scales its window, and it may lose a burst of packets. So the window is
generous for data; and what it believes at once, it believes near the numbers that both sides have named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.connections.layout import State
from engine.connections.ranges import Holes, open_hole
from engine.hashing import LOW32
from engine.kernels import Int, kernel
from engine.types import ACK, FIN, RST, SYN

INACTIVE, SYN_SENT, SYN_ACK_SENT = int(State.INACTIVE), int(State.SYN_SENT), int(State.SYN_ACK_SENT)
RESET = int(State.RESET)

AHEAD = (
    1 << 20
)  # bytes beyond the highest number within which a segment is believed at once (Zeek's limit for a RST)
BEHIND = (
    1 << 26
)  # bytes below the acknowledged ones within which data is an old copy: more than a sender has in flight
QUIET = 1_000_000_000  # ns; a run that the peer has not contradicted for so long is believed (least RTO, RFC 6298)
RUN = 3  # segments of such a run

RUN_SYN = 0x80  # bit of SIDE.run_flags beside FIN and ACK: the run is a SYN


@kernel
def unwrap(seq: Int, base: Int, near: Int) -> Int:
    """The relative number of seq that lies within 2^31 of ``near``."""
    expected = (np.int64(base) + near) & 0xFFFFFFFF
    delta = (np.int64(seq) - expected) & 0xFFFFFFFF
    if delta >= 0x80000000:
        delta -= 0x100000000
    return near + delta


@kernel
def set_base(me: Any, base: Int, high: Int) -> None:
    """Start a side's sequence space from scratch."""
    me["base"] = np.uint32(base & 0xFFFFFFFF)
    me["high"] = high
    me["acked"] = 0
    me["holes"] = 0
    me["recovery_point"] = 0
    me["have_base"] = 1
    me["run_segments"] = 0
    me["far_flags"] = 0


@kernel
def begin_of(me: Any, flags: Int, seq: Int, payload: Int) -> Int:
    """The relative number of a segment of this side."""
    begin = unwrap(seq, me["base"], me["high"])
    if begin + payload < low_of(me) - BEHIND or (flags & FIN and me["high"] == 1 and begin + payload + 1 < 1):
        return begin + (1 << 32)  # more than 2 GiB ahead: nobody sends what is so old
    return begin


@kernel
def acked_of(me: Any, ack: Int) -> Int:
    """The relative number of an acknowledgement of this side's bytes."""
    relative = unwrap(ack, me["base"], me["acked"])
    return relative + (1 << 32) if relative < me["acked"] - BEHIND else relative


@kernel
def low_of(me: Any) -> Int:
    """The relative number below which everything is acknowledged, or was sent and is never acknowledged."""
    return min(me["acked"], me["high"]) if me["acked"] > 0 else me["high"]


@kernel
def is_outside(me: Any, you: Any, flags: Int, seq: Int, ack: Int, payload: Int) -> bool:
    """Whether a segment of side ``me`` lies outside the window."""
    if me["state"] == RESET and me["prev_state"] == INACTIVE:
        return False  # it may have been injected, so its number says nothing
    if not me["have_base"] or (me["state"] == INACTIVE and flags & SYN):
        return answers_nothing(me, you, flags, seq, ack, payload)
    if flags & SYN:
        return bool(seq != me["base"])
    if me["state"] == INACTIVE:  # numbered by the peer's acknowledgements
        begin = unwrap(seq, me["base"], me["acked"])
        if begin + payload < low_of(me) - BEHIND:
            return True
    else:
        begin = begin_of(me, flags, seq, payload)
    if begin > max(me["high"], me["acked"]) + AHEAD:
        return True
    low = low_of(me)
    if flags & FIN and not flags & RST:
        end = begin + payload + 1
        return bool(end < low - AHEAD and end != me["fin"])
    return bool(flags & RST and begin + payload < low - AHEAD)


@kernel
def answers_nothing(me: Any, you: Any, flags: Int, seq: Int, ack: Int, payload: Int) -> bool:
    """Whether a side's first segment is no answer to what the other side has sent (RFC 9293, section 3.10.7.3)."""
    if not you["have_base"] or you["state"] == INACTIVE:
        return False
    if flags & ACK:
        answered = unwrap(ack, you["base"], you["high"])
        if answered > you["high"] + AHEAD or answered < min(you["acked"], you["high"]) - AHEAD:
            return not confirms_run(you, ack)
    if me["have_base"]:  # the peer has acknowledged what is not in the capture, this SYN first of all
        begin = unwrap(seq, me["base"], me["acked"])
        return bool(not -AHEAD <= begin <= me["acked"] + AHEAD)
    if you["state"] != SYN_SENT:
        return False
    # a SYN alone was sent: a SYN-ACK or a reset of it answers, and some stacks acknowledge it first
    return bool(not flags & ACK or (not flags & (SYN | RST) and (payload > 0 or flags & FIN)))


@kernel
def goes_on(me: Any, begin: Int) -> bool:
    """Whether a segment belongs to the run of data outside the window."""
    if me["run_segments"] == 0 or me["run_flags"] & RUN_SYN:
        return False
    return bool(me["run_begin"] - AHEAD <= begin <= me["run_end"] + AHEAD)


@kernel
def note_outside(me: Any, you: Any, flags: Int, seq: Int, payload: Int, size: Int, ts: Int) -> None:
    """Count a segment outside the window, and keep its place; the latest place of each side is kept."""
    me["out_of_window"] += 1
    if flags & RST or (not me["have_base"] and not flags & SYN):
        return  # nobody acknowledges a RST
    begin = begin_of(me, flags, seq, payload)
    end = begin + payload + int(flags & SYN != 0) + int(flags & FIN != 0)
    again = me["run_segments"] > 0 and me["run_flags"] & RUN_SYN and seq == me["run_seq"]
    if again if flags & SYN else goes_on(me, begin):
        me["run_begin"] = min(me["run_begin"], begin)
        me["run_end"] = max(me["run_end"], end)
        me["run_segments"] += 1
        me["run_bytes"] += np.uint32(size)
        me["run_flags"] |= flags & FIN
        return
    me["run_begin"], me["run_end"], me["t_run"] = begin, end, ts
    me["run_seq"], me["run_segments"], me["run_bytes"] = seq, 1, size
    me["run_heard"] = you["packets"] & LOW32
    me["run_flags"] = (RUN_SYN | (flags & ACK) if flags & SYN else 0) | (flags & FIN)
    me["far_flags"] = 0


@kernel
def was_heard(me: Any) -> bool:
    """Whether the capture has a packet of this side that was not outside the window."""
    return bool(me["packets"] > np.uint64(me["out_of_window"]))


@kernel
def is_unheard(you: Any) -> bool:
    """Whether the capture does not have this side, although the other one has acknowledged bytes of it."""
    return bool(not was_heard(you) and you["have_base"])


@kernel
def is_believed(me: Any, you: Any, flags: Int, seq: Int, payload: Int, ts: Int) -> bool:
    """Whether a segment outside the window is believed: the peer has named its place, or cannot or does not object."""
    if flags & (SYN | RST) or not me["have_base"] or me["state"] == RESET:
        return False
    begin = begin_of(me, flags, seq, payload)
    if me["far_flags"] and -AHEAD <= begin - me["run_begin"] <= AHEAD:
        return True
    if is_unheard(you):
        return goes_on(me, begin)
    silent = me["run_heard"] == you["packets"] & LOW32
    return bool(goes_on(me, begin) and silent and me["run_segments"] + 1 >= RUN and ts - me["t_run"] >= QUIET)


@kernel
def is_unproven(me: Any) -> bool:
    """Whether a side's base rests on one packet midstream, and the peer has acknowledged nothing near it."""
    return bool(
        me["acked"] == 0
        and me["t_syn"] == 0
        and me["packets"] <= np.uint64(me["out_of_window"]) + np.uint64(1)
    )


@kernel
def move_to(row: Any, me: Any, you: Any, holes: Holes, s: Int, begin: Int, ts: Int) -> None:
    """Move a side's sequence space to the begin of a segment that is believed."""
    if me["run_segments"] > 0:
        believe_run(row, me, holes, s)
    if me["far_flags"]:
        you["out_of_window"] -= min(you["out_of_window"], me["run_bytes"])
        me["far_flags"] = 0
    if begin > me["high"] + AHEAD and is_unproven(me):
        set_base(me, np.int64(me["base"]) + begin - 1, 1)
    elif begin > me["high"] + AHEAD:
        open_hole(row, me, holes, s, me["high"], begin, ts)
        me["high"] = begin


@kernel
def believe_run(row: Any, me: Any, holes: Holes, s: Int) -> None:
    """Move a side's sequence space to its run outside the window."""
    if me["run_flags"] & RUN_SYN:
        segments = me["run_segments"]
        set_base(me, np.int64(me["run_seq"]), 1)
        me["run_segments"], me["fin"] = segments, 0
    else:
        if is_unproven(me):
            first, segments = me["run_begin"] - 1, me["run_segments"]
            set_base(me, np.int64(me["base"]) + first, 1)
            me["run_begin"], me["run_end"], me["run_segments"] = 1, me["run_end"] - first, segments
        begin = max(me["run_begin"], me["high"])
        if begin > me["high"]:
            open_hole(row, me, holes, s, me["high"], begin, me["t_run"])
        me["high"] = max(me["run_end"], me["high"])
        if me["run_flags"] & FIN:
            me["fin"] = me["run_end"]
            me["fins"] = min(me["fins"] + 1, 255)
    me["out_of_window"] -= min(me["out_of_window"], me["run_segments"])
    me["run_segments"] = 0


@kernel
def confirms_run(me: Any, ack: Int) -> bool:
    """Whether the peer's acknowledgement names the place of this side's run outside the window."""
    if me["run_segments"] == 0 or not me["have_base"] or me["state"] == RESET:
        return False
    relative = unwrap(ack, me["base"], me["run_end"])
    if me["run_flags"] & RUN_SYN:  # near the old numbers, it may acknowledge data there instead
        return bool(relative == me["run_end"] and (me["acked"] == 0 or is_far(me, ack)))
    if me["run_begin"] <= me["high"] or relative > me["run_end"]:
        return False
    return bool(relative >= me["run_begin"] or (relative >= me["run_begin"] - AHEAD and is_far(me, ack)))


@kernel
def is_far(me: Any, ack: Int) -> bool:
    """Whether an acknowledgement of this side's bytes lies far from all that were seen."""
    if me["state"] == INACTIVE:
        return False
    return bool(acked_of(me, ack) > max(me["high"], me["acked"]) + AHEAD)


@kernel
def note_far(me: Any, you: Any, ack: Int, ts: Int) -> bool:
    """Count an acknowledgement far beyond this side's bytes, and keep its place; True once it is believed.

    It is when acknowledgements go on there and this side sends nothing that would contradict them.
    """
    relative = acked_of(me, ack)
    you["out_of_window"] += 1
    heard = me["packets"] & LOW32
    if me["far_flags"] and 0 <= relative - me["run_begin"] <= AHEAD and me["run_heard"] == heard:
        me["run_bytes"] += 1
        me["run_begin"] = relative
        if me["run_bytes"] < RUN or ts - me["t_run"] < QUIET:
            return False
        you["out_of_window"] -= min(you["out_of_window"], me["run_bytes"])
        me["far_flags"] = 0
        return True
    me["far_flags"], me["run_bytes"], me["run_begin"] = 1, 1, relative
    me["run_segments"], me["run_heard"], me["t_run"] = 0, heard, ts
    return False
