"""Packets in, connection slots and TCP classes out; each closed connection is handed over once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import BACKS, believe
from engine.connections.bounds import SPARE, TrackerConfig
from engine.connections.layout import FLAG_DROPPED, FLAG_MIDSTREAM, Ending, allocate
from engine.connections.saved import restore, state
from engine.connections.table import (
    EVICTED,
    EXPIRED,
    LIVE,
    NOW,
    OPENED,
    close_all,
    expire,
    live_slots,
    release,
)
from engine.connections.track_kernels import COLD_UNTIL, COPIES, LATE, LOST_AT, settle, track
from engine.types import Packets, Rows, rows_at

NO_SLOTS = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Tracked:
    """The tracker's results for packets begin..end of a block; arrays are indexed from begin."""

    begin: int
    end: int
    slot: NDArray[np.int32]  # (end - begin,) the packet's connection, -1 = none
    flags: NDArray[np.uint8]  # PACKET_ bits
    segment: NDArray[np.uint8]  # Segment
    seen: NDArray[
        np.uint32
    ]  # how much of a TCP packet's sequence space was seen before: bytes, SYN and FIN count 1
    closed: NDArray[np.int32]  # slots of the connections that ended, in order
    closed_at: NDArray[np.int64]  # row, counted from begin, of the packet at which each connection ended
    number: int = 0  # number of the first of these packets in the stream
    interim: NDArray[np.int32] = field(
        default_factory=lambda: NO_SLOTS
    )  # connections whose interim row is due

    def going_on(self) -> NDArray[np.int32]:
        """Slots of connections whose interim row is due and that have not ended meanwhile."""
        return np.unique(self.interim[~np.isin(self.interim, self.closed)]) if self.interim.size else NO_SLOTS


class Tracker:
    """The connection table of one partition. State is a pure function of the packets seen."""

    def __init__(self, config: TrackerConfig | None = None, spare: int = SPARE) -> None:
        """``spare``: most closed connections that wait to be handed over."""
        self.config = config or TrackerConfig()
        self.table = allocate(self.config.capacity, spare, self.config.holes)
        self._closed, self._closed_at = np.zeros(spare, np.int32), np.zeros(spare, np.int64)
        self._timeouts = self.config.timeouts()
        self._ports = self.config.server_ports()
        drop, vlans = self.config.copies == "drop", 0xFFFFFFFF if self.config.vlans else 0
        # whether copies are dropped, bits of the VLAN that tell connections apart, ns between interim rows
        self._options = np.array([drop, vlans, round(self.config.interim_seconds * 1e9)], np.int64)

    def track(self, p: Packets, number: int = 0) -> Iterator[Tracked]:
        """Process all packets of p. Slots in ``closed`` may be read until the next step.

        number: number of the first packet in the stream.
        """
        n, begin, again = p.ts.size, 0, False
        slot, flags, kind = np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.uint8)
        seen = np.empty(n, np.uint32)
        due = np.empty(n if self._options[2] else 0, np.int32)
        while begin < n:
            with np.errstate(over="ignore"):  # hashes wrap; numpy would warn when kernels run uncompiled
                end, n_closed, n_due = track(
                    self.table, p, begin, again, self._timeouts, self._ports, self._options, slot, flags, kind, seen,
                    self._closed, self._closed_at, due,
                )  # fmt: skip
            closed, at = self._closed[:n_closed], self._closed_at[:n_closed] - begin
            settle(self.table, closed)
            yield Tracked(
                begin, end, slot[begin:end], flags[begin:end], kind[begin:end], seen[begin:end], closed, at,
                number + begin, due[:n_due].copy(),
            )  # fmt: skip
            release(self.table, closed)
            begin, again = end, True

    def believe(self, now: int) -> int:
        """Let event time reach ``now``, which a sensor vouches for, without a packet; gives event time."""
        believe(self.table.registers, now)
        return int(self.table.registers[NOW])

    def expire(self) -> Iterator[NDArray[np.int32]]:
        """Yield the slots of connections that event time has ended."""
        more = True
        while more:
            with np.errstate(over="ignore"):
                n_closed = expire(self.table, self._timeouts, self._closed, 0)
            more = n_closed < 0
            closed = self._closed[: -1 - n_closed if more else n_closed]
            if closed.size:
                settle(self.table, closed)
                yield closed
                release(self.table, closed)

    def mark_loss(self) -> None:
        """Note that packets were just lost: the records of open connections will show it."""
        self.table.registers[LOST_AT] = self.table.registers[NOW]

    def mark_cold(self, first: int) -> None:
        """Note that nothing before event time ``first`` was seen: connections met soon after it may be older."""
        self.table.registers[COLD_UNTIL] = first + int(self._timeouts.max())

    def live(self) -> NDArray[np.int32]:
        """Slots of all live connections."""
        return live_slots(self.table)

    def flush(self) -> Iterator[NDArray[np.int32]]:
        """End all live connections, in batches, oldest start first, as at the end of a capture."""
        slots = live_slots(self.table)
        rows = rows_at(self.table.rows, slots)
        slots = slots[np.lexsort((rows["tag"], rows["a_port"], rows["start"]))]
        for begin in range(0, slots.size, self._closed.size):
            batch = slots[begin : begin + self._closed.size]
            with np.errstate(over="ignore"):
                close_all(self.table, batch, int(Ending.FLUSHED), self._closed)
            settle(self.table, batch)
            yield batch
            release(self.table, batch)

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of live, opened, evicted and expired connections, of late packets and copies, and of steps back."""
        c = self.table.registers
        return {
            "live": int(c[LIVE]), "opened": int(c[OPENED]), "evicted": int(c[EVICTED]),
            "expired": int(c[EXPIRED]), "late_packets": int(c[LATE]), "copies": int(c[COPIES]),
            "steps_back": int(c[BACKS]),
        }  # fmt: skip

    def rows(self, slots: NDArray[np.int32]) -> tuple[Rows, Rows]:
        """Copies of the CONNECTION rows (n,) and SIDE rows (n, 2) of the given slots."""
        rows, sides = rows_at(self.table.rows, slots), rows_at(self.table.sides.reshape(-1, 2), slots)
        registers, start = self.table.registers, rows["start"]
        rows["flags"] |= np.where(start <= registers[LOST_AT], FLAG_DROPPED, 0).astype(np.uint8)
        rows["flags"] |= np.where(start <= registers[COLD_UNTIL], FLAG_MIDSTREAM, 0).astype(np.uint8)
        return rows, sides

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of the live state; ``restore`` continues from it to the last bit."""
        return state(self.table)

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Take over the result of ``state``, in an unused tracker. ValueError or KeyError when it does not fit."""
        with np.errstate(over="ignore"):
            restore(self.table, saved)
