"""The effect of a TCP packet on its connection: sequence analysis and state machine.

Sequence numbers are relative to the side's base and 64 bits wide, unwrapped against the highest seen, so
connections may pass 4 GiB and wrap. State names, ``conn_state`` and ``history`` follow Zeek's documented
behaviour (scripts/base/protocols/conn/main.zeek). Whether bytes are new, seen again or filled late follows from byte
ranges (ranges.py), as in tcptrace; a round trip decides between reordering and retransmission, as in Wireshark.

Functions take rows, which numba passes as pointers, and the one array of holes. Passing the whole table costs
more than the work: numba would count references to every array in it at every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.connections.history import (
    H_DATA,
    H_FIN,
    L_DATA,
    L_FIN,
    L_FLIPPED,
    L_SYN,
    L_SYN_ACK,
    L_ZERO_WINDOW,
    first_time,
    flip,
    is_originator,
    scaled_letter,
    side_letter,
    write_again,
    write_history,
    write_letter,
)
from engine.connections.layout import Segment, State
from engine.connections.ranges import (
    ACK_GUARD,
    CLOSED,
    DUPLICATE,
    HOLE_SHOWN,
    NEW,
    PARTIAL,
    REORDERED,
    RETRANSMITTED,
    SPURIOUS,
    Holes,
    count_losses,
    open_hole,
    place,
)
from engine.connections.window import (
    AHEAD,
    INACTIVE,
    RESET,
    RUN_SYN,
    SYN_ACK_SENT,
    SYN_SENT,
    acked_of,
    begin_of,
    believe_run,
    confirms_run,
    is_believed,
    is_far,
    is_outside,
    is_unheard,
    move_to,
    note_far,
    note_outside,
    set_base,
    unwrap,
    was_heard,
)
from engine.kernels import Int, kernel
from engine.types import ACK, FIN, RST, SYN

PARTIAL_STATE, ESTABLISHED = int(State.PARTIAL), int(State.ESTABLISHED)

PURE_ACK, KEEP_ALIVE = int(Segment.ACK), int(Segment.KEEP_ALIVE)
ZERO_WINDOW_PROBE = int(Segment.ZERO_WINDOW_PROBE)
BEGINNING = -(1 << 62)  # ns; before all packets
BEFORE, UNTRUSTED = int(Segment.BEFORE), int(Segment.UNTRUSTED)
OUT_OF_WINDOW = int(Segment.OUT_OF_WINDOW)

SILENCE = 1_000_000_000  # ns; longest recovery after a hole where no ACK is captured (least RTO, RFC 6298)


@kernel
def begin_side(me: Any, flags: Int, seq: Int) -> None:
    """Set the base of a side that is new, or whose SYN restarts it."""
    state = me["state"]
    if state == INACTIVE:
        if flags & SYN:
            set_base(me, np.int64(seq), 0)
        else:  # picked up midstream: number as if a SYN had come before
            set_base(me, np.int64(seq) - 1, 1)
    elif flags & SYN and seq != me["base"]:
        if state == RESET:
            if me["prev_state"] == INACTIVE:  # the earlier RST may have been injected
                set_base(me, np.int64(seq), 0)
        elif state != CLOSED:
            set_base(me, np.int64(seq), 0)


@kernel
def count(me: Any, kind: Int) -> None:
    """Add one segment to the side's counters."""
    if kind == DUPLICATE:
        me["duplicates"] += 1
    elif kind == SPURIOUS:
        me["spurious"] += 1
    elif kind == REORDERED:
        me["reordered"] += 1
    elif kind == RETRANSMITTED:
        me["late_fills"] += 1
    elif kind == PARTIAL:
        me["partial"] += 1
    elif kind == KEEP_ALIVE:
        me["keep_alive"] += 1
    elif kind == ZERO_WINDOW_PROBE:
        me["zero_window_probe"] += 1


@kernel
def send(
    row: Any, me: Any, you: Any, holes: Holes, s: Int, d: Int,
    flags: Int, seq: Int, payload: Int, ts: Int,
) -> tuple[Int, Int]:  # fmt: skip
    """Enter one packet of side d into its sequence space; gives its Segment class, and how much was seen before."""
    begin = unwrap(seq, me["base"], me["high"])
    if me["state"] == RESET:
        return UNTRUSTED, np.int64(0)
    if flags & RST:  # its payload is not part of the stream
        me["high"] = max(me["high"], begin)
        return UNTRUSTED, np.int64(0)
    length = payload + int(flags & SYN != 0) + int(flags & FIN != 0)
    end = begin + length
    if payload <= 1 and not flags & (SYN | FIN) and me["state"] >= PARTIAL_STATE:
        known = me["high"] > 1 or me["t_syn"] > 0
        if begin == me["high"] - 1 and me["acked"] >= me["high"] and me["fin"] == 0 and known:
            me["keep_alive"] += 1
            if payload:
                write_again(row, me, d)
            return KEEP_ALIVE, np.int64(payload)
        if payload == 1 and begin == me["high"] and was_heard(you) and you["last_window"] == 0:
            me["zero_window_probe"] += 1
            me["probed"] = 1
            return ZERO_WINDOW_PROBE, np.int64(0)
    if me["probed"] and begin == me["high"] + 1:  # the probe's byte was accepted after all
        me["high"] += 1
        me["probed"] = 0
    if length == 0:
        if begin > me["high"]:  # all before it was sent, and not captured so far
            open_hole(row, me, holes, s, me["high"], begin, ts)
            holes[s, me["holes"] - 1, 3] = HOLE_SHOWN
            me["high"] = begin
        return PURE_ACK, np.int64(0)
    if flags & SYN and abs(end - me["high"]) > AHEAD:
        return UNTRUSTED, np.int64(0)
    if flags & FIN:
        me["fin"] = end
        me["fins"] = min(me["fins"] + 1, 255)
    cut: Int = np.int64(0)
    if begin < 1 and not flags & SYN:  # before the guessed base
        if end <= 1:
            if payload:
                write_again(row, me, d)
            return BEFORE, np.int64(0)
        cut = 1 - begin
        begin = 1
    if payload and end <= me["high"]:
        write_again(row, me, d)
    kind, seen = place(row, me, you, holes, s, begin, end, ts)
    count(me, kind)
    unheard = not was_heard(you)  # the capture has one direction only: no ACK will ever end an episode
    if kind != NEW or has_open_hole(me, holes, s, ts - SILENCE if unheard else BEGINNING):
        enter_recovery(me, ts)
        leave_recovery(me, ts)  # at once: everything had been acknowledged already (a spurious segment)
    elif unheard and me["recovery_point"]:
        end_recovery(me, ts)
    return kind, seen + cut


@kernel
def has_open_hole(me: Any, holes: Holes, s: Int, since: Int) -> bool:
    """Whether some unseen range since ``since`` is not acknowledged either."""
    for k in range(me["holes"]):  # noqa: SIM110 -- numba compiles no any()
        if holes[s, k, 1] > me["acked"] and holes[s, k, 2] >= since:
            return True
    return False


@kernel
def enter_recovery(me: Any, ts: Int) -> None:
    """Begin an episode unless one is open; it ends when everything sent so far is acknowledged."""
    if me["recovery_point"] == 0:
        me["recovery_point"] = me["high"]
        me["t_recovery"] = ts
        me["episodes"] += 1


@kernel
def leave_recovery(me: Any, ts: Int) -> None:
    """End the episode whose recovery point has been acknowledged."""
    if me["recovery_point"] and me["acked"] >= me["recovery_point"]:
        end_recovery(me, ts)


@kernel
def end_recovery(me: Any, ts: Int) -> None:
    """End the open episode."""
    me["recovery_ns"] += max(0, ts - me["t_recovery"])
    me["recovery_point"] = 0


@kernel
def acknowledge(row: Any, me: Any, holes: Holes, s: Int, ack: Int, ts: Int) -> None:
    """Apply the other side's acknowledgement of this side's bytes."""
    if me["state"] == INACTIVE:
        if not me[
            "have_base"
        ]:  # this side is not in the capture: its numbers start at the first acknowledgement
            set_base(me, np.int64(ack) - 1, 0)
            me["acked"] = 0
            return
        relative = unwrap(ack, me["base"], me["acked"])
        if relative > me["acked"] and not (ack == 0 and relative - me["acked"] > AHEAD):
            me["acked"] = relative
            me["t_acked"] = ts
        return
    relative = acked_of(me, ack)
    if relative <= me["acked"] or (ack == 0 and relative - me["acked"] > AHEAD):
        return
    if me["probed"] and relative == me["high"] + 1:
        me["high"] += 1
        me["probed"] = 0
    elif relative > me["high"]:  # acknowledged but not captured, or the ACK overtook its data
        if me["state"] != RESET:
            open_hole(row, me, holes, s, max(me["high"], 1), relative, ts)
            me["high"] = relative
    elif relative == me["high"] and me["recovery_point"] == 0 and me["t_high"] > 0:
        trip = max(1, ts - me["t_high"])
        if me["round_trip"] == 0 or trip < me["round_trip"]:
            me["round_trip"] = trip
    me["acked"] = relative
    me["t_acked"] = ts
    leave_recovery(me, ts)


@kernel
def confirm(row: Any, me: Any, you: Any, holes: Holes, s: Int, d: Int, ack: Int, ts: Int) -> None:
    """Believe the run of side d outside the window, which the peer has acknowledged."""
    seq, flags, size = me["run_seq"], np.int64(me["run_flags"]), me["run_end"] - me["run_begin"]
    believe_run(row, me, holes, s)
    me["acked"], me["t_acked"] = max(me["acked"], unwrap(ack, me["base"], me["high"])), ts
    leave_recovery(me, ts)
    if flags & RUN_SYN:
        side_letter(row, d, L_SYN if is_originator(row, d) else L_SYN_ACK)
        me["syn_seq"] = seq
    elif size > int(flags & FIN != 0):
        first_time(row, me, d, H_DATA, L_DATA)
    if flags & FIN:
        first_time(row, me, d, H_FIN, L_FIN)
        if advance(row, me, you, d, FIN, seq, 0):
            me["did_close"] = 1


@kernel
def end_unheard(row: Any, me: Any, you: Any, holes: Holes, s: Int, d: Int) -> None:
    """Believe a FIN outside the window that nothing of its side followed, where the other side was not captured."""
    if (
        not me["run_segments"]
        or me["run_flags"] & (FIN | RUN_SYN) != FIN
        or me["fins"]
        or not is_unheard(you)
    ):
        return
    size = me["run_end"] - me["run_begin"]
    believe_run(row, me, holes, s)
    if size > 1:
        first_time(row, me, d, H_DATA, L_DATA)
    first_time(row, me, d, H_FIN, L_FIN)
    if advance(row, me, you, d, FIN, me["run_seq"], 0):
        me["did_close"] = 1


@kernel
def set_state(me: Any, state: Int) -> None:
    """Change a side's state and remember the previous one."""
    if me["state"] != state:
        me["prev_state"] = me["state"]
        me["state"] = state


@kernel
def advance(row: Any, me: Any, you: Any, d: Int, flags: Int, seq: Int, payload: Int) -> bool:
    """Step the state machine; True when this packet closed its side."""
    state = me["state"]
    originator = is_originator(row, d)
    closes = False
    if state == INACTIVE:
        if flags & SYN:
            if originator:
                set_state(me, SYN_ACK_SENT if flags & ACK else SYN_SENT)
            else:
                if not flags & ACK and you["state"] == SYN_ACK_SENT and seq == me["base"]:
                    flip(row)  # SYN and SYN-ACK were captured in the wrong order
                    write_letter(row, L_FLIPPED)
                    set_state(you, ESTABLISHED)
                if you["state"] == SYN_SENT:
                    set_state(you, ESTABLISHED)
                set_state(me, ESTABLISHED)
        if flags & FIN:
            set_state(me, CLOSED)
            closes = True
        if flags & RST:
            set_state(me, RESET)
            closes = True
        if me["state"] == INACTIVE:
            if not originator and payload == 0 and you["state"] == SYN_SENT:
                pass  # some stacks acknowledge a SYN before they answer it
            elif flags & ACK and you["state"] == ESTABLISHED:
                set_state(me, ESTABLISHED)  # only the SYN was missed
            else:
                set_state(me, PARTIAL_STATE)
    elif state in (SYN_SENT, SYN_ACK_SENT):
        if flags & FIN:
            set_state(me, CLOSED)
            closes = True
        if flags & RST:
            set_state(me, RESET)
            closes = True
    elif state in (PARTIAL_STATE, ESTABLISHED):
        if flags & SYN and state == PARTIAL_STATE and you["state"] == INACTIVE and not flags & ACK:
            set_state(me, SYN_SENT)
        if flags & FIN and not flags & RST:
            set_state(me, CLOSED)
            if you["state"] == RESET and you["prev_state"] == CLOSED:
                set_state(you, CLOSED)  # FIN, then RST, answered by a FIN: a normal end
            closes = True
        if flags & RST:
            set_state(me, RESET)
            closes = True
    elif state == CLOSED and flags & RST and you["state"] != CLOSED:
        set_state(me, RESET)
        closes = not me["did_close"]
    return closes


@kernel
def segment(
    row: Any, me: Any, you: Any, holes: Holes, s: Int, d: Int, ts: Int,
    flags: Int, seq: Int, ack: Int, payload: Int, window: Int, size: Int,
) -> tuple[Int, Int]:  # fmt: skip
    """Process one packet of side d, whose SIDE row is number s. size: bytes of IP.

    Gives its Segment class, and how much of its sequence space was seen before.
    """
    if is_outside(me, you, flags, seq, ack, payload):
        if not is_believed(me, you, flags, seq, payload, ts):
            note_outside(me, you, flags, seq, payload, size, ts)
            return OUT_OF_WINDOW, np.int64(0)
        move_to(row, me, you, holes, s, begin_of(me, flags, seq, payload), ts)
    elif not was_heard(you):
        me["run_segments"] = 0  # not in a row: nothing will confirm it
    begin_side(me, flags, seq)
    if flags & ACK and not flags & RST and confirms_run(you, ack):
        confirm(row, you, me, holes, s ^ 1, 1 - d, ack, ts)
    write_history(row, me, d, flags, seq, payload)
    if window == 0 and not flags & RST and you["state"] != CLOSED and me["state"] != RESET:
        me["zero_window"] += 1
        scaled_letter(row, d, me["zero_window"], L_ZERO_WINDOW)
    repeats = (
        flags & (ACK | SYN | FIN | RST) == ACK
        and payload == 0
        and ack == me["last_ack"]
        and window == me["last_window"]
        and you["high"] > you["acked"]
        and me["last_flags"] & ACK != 0
    )
    if flags & SYN:
        me["t_syn"] = ts
    if flags & ACK and not flags & RST:
        if not is_far(you, ack) or note_far(you, me, ack, ts):
            acknowledge(row, you, holes, s ^ 1, ack, ts)
    elif flags & ACK and you["state"] == INACTIVE and not you["have_base"]:
        set_base(you, np.int64(ack) - 1, 0)
    kind, seen = send(row, me, you, holes, s, d, flags, seq, payload, ts)
    if kind == PURE_ACK and repeats:
        me["duplicate_ack"] += 1
    if (
        row["handshake"] == 0
        and flags & (SYN | ACK) == ACK
        and me["t_syn"] > 0
        and you["t_syn"] > me["t_syn"]
        and you["acked"] >= 1
        and not flags & FIN
        and seq == (np.int64(me["base"]) + 1) & 0xFFFFFFFF
        and me["duplicates"] + me["spurious"] + you["duplicates"] + you["spurious"] == 0  # Karn's rule
    ):
        row["handshake"] = max(1, ts - me["t_syn"])
    if advance(row, me, you, d, flags, seq, payload):
        me["did_close"] = 1
    if flags & ACK and you["holes"] > 0:
        count_losses(row, you, me, holes, s ^ 1, 1 - d, ts, ACK_GUARD)
    me["last_ack"] = ack
    me["last_flags"] = flags
    me["last_window"] = window
    return kind, seen
