"""The rows of connection state, the codes in them, and the arrays that hold them.

A connection is one CONNECTION row and two SIDE rows (2 * slot + d; side 0 sent the first packet). Rows are
structured so that one packet touches few cache lines. Holes are in an array of their own, whose pages only
connections with holes touch.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.connections.copies import SETS, WAYS
from engine.types import Rows


class State(IntEnum):
    """State of one side, in Zeek's words for TCP; other protocols use INACTIVE and ESTABLISHED (active)."""

    INACTIVE = 0  # nothing seen from this side
    SYN_SENT = 1
    SYN_ACK_SENT = 2  # the first packet of the connection was a SYN-ACK
    PARTIAL = 3  # traffic without a handshake
    ESTABLISHED = 4
    CLOSED = 5  # sent a FIN
    RESET = 6  # sent a RST


class Segment(IntEnum):
    """Class of a TCP segment, by its place in its side's sequence space."""

    NONE = 0  # not TCP
    ACK = 1  # occupies no sequence space
    NEW = 2
    DUPLICATE = 3  # every byte was seen before and not yet acknowledged
    SPURIOUS = 4  # every byte was seen before and already acknowledged
    REORDERED = 5  # fills a hole that is younger than a round trip
    RETRANSMITTED = 6  # fills an older hole: the first copy is missing from the capture
    PARTIAL = 7  # some bytes seen before, some new
    KEEP_ALIVE = 8
    ZERO_WINDOW_PROBE = 9
    CAPTURE_DUPLICATE = 10  # the same packet captured twice: not an event of the connection
    BEFORE = 11  # before the first byte of a connection picked up midstream
    UNTRUSTED = 12  # a RST, or anything after this side's RST
    OUT_OF_WINDOW = 13  # outside the window, and not acknowledged by the peer: it changes nothing


class Timer(IntEnum):
    """The list of the table in which a connection waits; each list has one timeout and is ordered by time."""

    ATTEMPT = 0  # a SYN without an answer; counts from the SYN
    CLOSING = 1  # both sides closed, or reset; counts from the close
    TCP = 2  # this list and those below count from the last packet
    UDP = 3
    ICMP = 4
    OTHER = 5


class Ending(IntEnum):
    """Why a connection left the table."""

    LIVE = 0  # it is still in the table: the record is provisional
    TIMEOUT = 1
    CLOSED = 2  # FIN or RST, then the closing delay
    REUSED = 3  # a new connection began on the same addresses and ports
    EVICTED = 4  # the table was full and this one was the least recently seen
    FLUSHED = 5  # the capture ended


FLAG_MIDSTREAM = 1  # the first packet was not an initial SYN
FLAG_FLIPPED = 2  # side 1 is the originator
FLAG_HOLES_OVERFLOW = 4  # more holes at once than are kept; the oldest counted as filled
FLAG_DROPPED = 8  # the sensor lost packets during the connection
FLAG_HISTORY_FULL = 16
FLAG_LATE = 32  # packets older than the connection's last were seen

PACKET_FROM_ORIGINATOR = 1  # bits of the tracker's per-packet flags
PACKET_IN_RECOVERY = 2
PACKET_OPENED = 4  # the packet opened its connection
PACKET_COPY = 8  # the capture made the packet: a copy of another
PACKET_SIDE = 16  # side 1 sent the packet; sides, unlike roles, never change

HISTORY_LETTERS = 24
FRAGMENTS = 1 << 14  # fragmented datagrams with a known connection, for their later fragments
FRAGMENT_WAYS = 4  # datagrams kept for each hash
LINE = 64  # bytes of a cache line
ORIGINS = 1 << 16  # TCP connections that ended whose originator is remembered
OPENINGS = 1 << 14  # latest connections among which none may have the same id

# A row takes two cache lines; a packet without an event touches the first.
CONNECTION = np.dtype(
    [
        ("a_hi", "u8"), ("a_lo", "u8"), ("b_hi", "u8"), ("b_lo", "u8"),  # a sent the first packet
        ("last", "i8"),  # ns, last packet before both sides had closed
        ("vlan", "u4"),  # of the first packet
        ("probe", "u4"), ("tag", "u4"),  # tag: high half of the key's hash
        ("a_port", "u2"), ("b_port", "u2"),
        ("ethertype", "u2"),  # of frames that are not IP, whose addresses are MACs; 0 = IP
        ("proto", "u1"), ("timer", "u1"), ("flags", "u1"), ("ending", "u1"), ("letters", "u1"),
        ("start", "i8"),  # ns, first packet
        ("handshake", "i8"),  # ns between the SYN and the ACK of the SYN-ACK: the round trip; 0 = not seen
        ("a_mac", "u8"), ("b_mac", "u8"),
        ("copy_delay", "u4"),  # ns, longest from a packet to a certain copy of it
        ("again", "u4"),  # times that event time had gone back, and connections before with this key and start
        ("history", "u1", (HISTORY_LETTERS,)),  # ASCII
    ],
    align=True,
)  # fmt: skip

LINK = np.dtype(
    [
        ("since", "i8"),  # event time in ns from which the timeout counts
        ("next", "i4"), ("prev", "i4"),  # neighbours in the timer's list, -1 = none
    ],
    align=True,
)  # fmt: skip

# A side takes four cache lines; a packet without an event touches the first two.
SIDE = np.dtype(
    [
        ("high", "i8"),  # end of the sequence space seen, relative to base; 1 after a SYN
        ("acked", "i8"),  # highest acknowledgement from the other side, relative to base
        ("fin", "i8"),  # relative end of the FIN, 0 = none
        ("t_high", "i8"), ("t_acked", "i8"),  # ns when high and acked last rose
        ("packets", "u8"), ("ip_bytes", "u8"), ("payload", "u8"),
        ("base", "u4"),  # sequence number that counts as 0 in relative numbers
        ("last_ack", "u4"),  # acknowledgement number of the latest packet
        ("run_segments", "u4"),  # segments of a run outside the window, see below
        ("last_window", "u2"), ("hist", "u2"),  # hist: letters already written
        ("last_flags", "u1"), ("state", "u1"), ("prev_state", "u1"), ("did_close", "u1"),
        ("have_base", "u1"), ("fins", "u1"), ("holes", "u1"), ("probed", "u1"),
        ("run_flags", "u1"), ("far_flags", "u1"),
        ("t_syn", "i8"),  # ns of this side's (latest) SYN
        ("recovery_point", "i8"),  # sequence number whose acknowledgement ends the episode; 0 = no episode
        ("round_trip", "i8"),  # ns, shortest time between new data and its ACK; 0 = none measured
        ("t_recovery", "i8"), ("recovery_ns", "i8"),  # start of the episode; total time of all episodes
        ("missed", "u8"), ("again_bytes", "u8"),  # bytes acknowledged but never captured; bytes seen twice
        # A run of segments outside the window, believed once the peer acknowledges it (window.py); with far_flags 1
        # instead of a run: an acknowledgement of the peer far beyond `high` (run_begin), and how often (run_bytes).
        ("run_begin", "i8"), ("run_end", "i8"), ("t_run", "i8"),  # relative numbers; ns of the first
        ("run_seq", "u4"), ("run_bytes", "u4"), ("run_heard", "u4"),
        ("syn_seq", "u4"), ("fin_seq", "u4"), ("rst_seq", "u4"),  # latest seen, for the history
        ("duplicates", "u4"), ("spurious", "u4"), ("reordered", "u4"), ("late_fills", "u4"), ("partial", "u4"),
        ("keep_alive", "u4"), ("zero_window_probe", "u4"), ("zero_window", "u4"),
        ("capture_duplicate", "u4"), ("duplicate_ack", "u4"), ("episodes", "u4"), ("out_of_window", "u4"),
        ("rexmit", "u4"), ("gaps", "u4"),  # counts behind the history's t and g
    ],
    align=True,
)  # fmt: skip


class Table(NamedTuple):
    """All state of a connection table; kernels change it in place. ``slots`` = capacity + spare."""

    places: NDArray[np.int64]  # (2^k,) tag << 32 | slot + 1, 0 = empty; open addressing, linear probing
    rows: Rows  # (slots,) CONNECTION
    sides: Rows  # (2 * slots,) SIDE
    reported: NDArray[np.int64]  # (slots,) ns, start or latest interim row
    links: Rows  # (slots,) LINK; apart from the rows, so that a move within a list touches 16 bytes of a neighbour
    holes: NDArray[np.int64]  # (2 * slots, K, 4) begin, end (relative), ns when it opened, HOLE_ bits
    free: NDArray[np.int32]  # (slots,) stack of free slots
    heads: NDArray[np.int32]  # (len(Timer),) least recent slot of each list, -1 = empty
    tails: NDArray[np.int32]
    registers: NDArray[np.int64]  # (len(Registers),) a clock, then counters: see Registers
    fragments: NDArray[np.int64]  # (m, 4) hash, slot, start, side: the connection of each fragmented datagram
    copies: NDArray[np.int64]  # latest packets, to know copies of them: see copies.py
    origins: NDArray[np.uint64]  # (ORIGINS,) hash of a key; lowest bit: which of its ends was the originator
    openings: NDArray[
        np.uint64
    ]  # (OPENINGS,) hash of a key and a start; low 16 bits: how often it came again


class Registers(IntEnum):
    """Fields of Table.registers."""

    NOW = 0  # the first seven are the clock of engine/clock.py
    LEAPT = 1
    SEEN = 2
    LEAPS = 3
    BEHIND = 4
    IN_A_ROW = 5
    BACKS = 6
    FREE = 7  # slots on the free stack
    LIVE = 8  # connections in the index
    CAPACITY = 9
    OPENED = 10
    EVICTED = 11
    EXPIRED = 12
    LATE = 13  # packets older than event time
    LOST_AT = 14  # event time of the latest loss of packets
    NEXT_EXPIRY = 15  # no connection times out before this event time
    COLD_UNTIL = 16  # connections first seen before this event time may have begun before the first packet
    COPIES = 17  # copies that the capture made
    AGAIN = 18  # 1 from a packet too late for a copy until event time goes on: packets may be captured again


def _in_lines(n: int, kind: np.dtype[Any]) -> Rows:
    """(n,) rows of zeros that begin at a cache line."""
    raw = np.zeros(n * kind.itemsize + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + n * kind.itemsize].view(kind)


def allocate(capacity: int, spare: int, holes: int) -> Table:
    """An empty table for ``capacity`` live connections and ``spare`` closed ones not yet handed out."""
    slots = capacity + spare
    size = 1 << max(4, int(2 * capacity - 1).bit_length())
    registers = np.zeros(len(Registers), np.int64)
    for never in (Registers.NOW, Registers.LEAPT, Registers.BEHIND, Registers.LOST_AT, Registers.COLD_UNTIL):
        registers[never] = np.iinfo(np.int64).min
    registers[Registers.NEXT_EXPIRY] = np.iinfo(np.int64).max
    registers[Registers.FREE] = slots
    registers[Registers.CAPACITY] = capacity
    return Table(
        places=np.zeros(size, np.int64),
        rows=_in_lines(slots, CONNECTION),
        sides=_in_lines(2 * slots, SIDE),
        reported=np.zeros(slots, np.int64),
        links=np.zeros(slots, LINK),
        holes=np.zeros((2 * slots, holes, 4), np.int64),
        free=np.arange(slots - 1, -1, -1, dtype=np.int32),
        heads=np.full(len(Timer), -1, np.int32),
        tails=np.full(len(Timer), -1, np.int32),
        registers=registers,
        fragments=np.zeros((FRAGMENTS, 4), np.int64),
        copies=_in_lines(SETS * 2 * WAYS, np.dtype(np.int64)).reshape(SETS, 2 * WAYS),
        origins=np.zeros(ORIGINS, np.uint64),
        openings=np.zeros(OPENINGS, np.uint64),
    )
