"""The letters of a connection's history, as Zeek documents them: upper case from the originator."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.connections.layout import FLAG_FLIPPED, FLAG_HISTORY_FULL, HISTORY_LETTERS
from engine.kernels import Int, kernel
from engine.types import ACK, FIN, RST, SYN

# letters of a history, as the originator's; SIDE.hist has a bit for each that a side writes once only
L_SYN, L_SYN_ACK, L_FIN, L_RST, L_DATA, L_ACK, L_FIN_RST, L_MULTI = (ord(letter) for letter in "SHFRDAIQ")
L_AGAIN, L_ZERO_WINDOW, L_GAP, L_FLIPPED = (ord(letter) for letter in "TWG^")
TO_LOWER = ord("a") - ord("A")  # offset that turns an originator's letter into a responder's
H_SYN, H_FIN, H_RST, H_DATA, H_ACK, H_FIN_RST, H_MULTI = 1, 2, 4, 8, 16, 32, 64


@kernel
def write_letter(row: Any, code: Int) -> None:
    """Append one letter to the history, or note that it is full."""
    n = row["letters"]
    if n < HISTORY_LETTERS:
        row["history"][n] = code
        row["letters"] = n + 1
    else:
        row["flags"] |= FLAG_HISTORY_FULL


@kernel
def is_originator(row: Any, d: Int) -> bool:
    """Whether side d is the originator."""
    flipped: bool = (row["flags"] & FLAG_FLIPPED) != 0
    return bool((d == 0) != flipped)


@kernel
def flip(row: Any) -> None:
    """Make the other side the originator."""
    row["flags"] ^= FLAG_FLIPPED


@kernel
def side_letter(row: Any, d: Int, code: Int) -> None:
    """Append an upper-case code, in lower case when side d is the responder."""
    write_letter(row, code if is_originator(row, d) else code + TO_LOWER)


@kernel
def first_time(row: Any, me: Any, d: Int, bit: Int, code: Int) -> bool:
    """Append a letter that each side writes once; True if it had been written before."""
    if (bit == H_ACK or bit == H_DATA) and row["letters"] == 1 and row["history"][0] == L_SYN_ACK:
        # It began with a SYN-ACK ("H") and now carries traffic, so it is not a stealth scan: its SYN was missed,
        # and the sender of the SYN-ACK is the responder.
        flip(row)
        row["history"][0] = L_FLIPPED
        write_letter(row, L_SYN_ACK + TO_LOWER)
    if me["hist"] & bit:
        return True
    me["hist"] |= bit
    side_letter(row, d, code)
    return False


@kernel
def scaled_letter(row: Any, d: Int, count: Int, code: Int) -> None:
    """Append a letter at the 1st, 10th, 100th … occurrence."""
    step = 1
    while step < count:
        step *= 10
    if step == count:
        side_letter(row, d, code)


@kernel
def write_history(row: Any, me: Any, d: Int, flags: Int, seq: Int, payload: Int) -> None:
    """Append the letters s h a d f r i q of one packet."""
    kinds = int(flags & SYN != 0) + int(flags & FIN != 0) + int(flags & RST != 0)
    if kinds > 1:
        if flags & FIN and flags & RST:
            first_time(row, me, d, H_FIN_RST, L_FIN_RST)
        else:
            first_time(row, me, d, H_MULTI, L_MULTI)
    elif flags & SYN:
        code = L_SYN_ACK if flags & ACK else L_SYN
        if first_time(row, me, d, H_SYN, code) and seq != me["syn_seq"]:
            side_letter(row, d, code)
        me["syn_seq"] = seq
    elif flags & FIN:
        end = np.uint32((np.int64(seq) + payload) & 0xFFFFFFFF)
        if first_time(row, me, d, H_FIN, L_FIN) and end != me["fin_seq"]:
            side_letter(row, d, L_FIN)
        me["fin_seq"] = end
    elif flags & RST:
        if first_time(row, me, d, H_RST, L_RST) and seq != me["rst_seq"]:
            side_letter(row, d, L_RST)
        me["rst_seq"] = seq
    elif payload:
        first_time(row, me, d, H_DATA, L_DATA)
    elif flags & ACK:
        first_time(row, me, d, H_ACK, L_ACK)


@kernel
def write_again(row: Any, me: Any, d: Int) -> None:
    """Count a retransmission as Zeek defines it: payload that ends at or before the highest sequence number."""
    me["rexmit"] += 1
    scaled_letter(row, d, me["rexmit"], L_AGAIN)
