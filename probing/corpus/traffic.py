"""A capture as connections and their packets, by the engine's reader, decoder and tracker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from engine.commands.reading import frames
from engine.connections.bounds import SPARE
from engine.connections.layout import PACKET_COPY, PACKET_FROM_ORIGINATOR, PACKET_OPENED
from engine.connections.record import connection_table
from engine.connections.tracker import Tracked, Tracker
from engine.headers.decode import decode
from engine.types import Packets, Rows, join_rows

ETHERNET, IPV4, VLAN = 1, 0x0800, 0x8100
NO_TOS = -1  # of a frame whose IPv4 header was not found behind Ethernet

Tag = Callable[[Packets], Packets]  # gives packets their probe ids


class PacketColumns(NamedTuple):
    """Columns of n packets of IP connections, in capture order."""

    connection: NDArray[np.int64]  # row of the connection's record
    ts: NDArray[np.int64]  # ns since the epoch
    up: NDArray[np.bool_]  # whether the originator sent it
    size: NDArray[np.int64]  # bytes of the IP packet
    payload: NDArray[np.int64]  # bytes after the transport header
    flags: NDArray[np.int64]  # TCP flags
    window: NDArray[np.int64]  # unscaled
    ttl: NDArray[np.int64]
    ip_id: NDArray[np.int64]
    tos: NDArray[np.int64]  # IPv4's byte of service, NO_TOS when not found
    df: NDArray[np.int64]  # IPv4's bit Don't Fragment, NO_TOS when not found


@dataclass(frozen=True)
class Traffic:
    """The IP connections of a capture."""

    connections: pa.Table  # a record for each, in the schema of `wiresonde connections`
    packets: PacketColumns


def read_traffic(captures: Sequence[Path], tag: Tag | None = None) -> Traffic:
    """The connections of captures and their packets, all in memory. Raises InputError for a damaged capture."""
    collector = _Collector()
    for block in frames(captures, 4096):
        p = decode(block)
        collector.take(block, p if tag is None else tag(p))
    return collector.result()


class _Collector:
    """Packets and records so far."""

    def __init__(self) -> None:
        self._tracker = Tracker(spare=SPARE)
        self._number = np.full(self._tracker.table.rows.size, -1, np.int64)  # connection of each slot
        self._opened = 0
        self._packets: list[PacketColumns] = []
        self._closed: list[tuple[NDArray[np.int64], Rows, Rows]] = []

    def take(self, block: FrameBlock, p: Packets) -> None:
        """Track the packets of a block."""
        tos, df = _service(block)
        for tracked in self._tracker.track(p):
            self._follow(p, tracked, tos, df)
            self._close(tracked.closed)

    def _follow(self, p: Packets, tracked: Tracked, tos: NDArray[np.int64], df: NDArray[np.int64]) -> None:
        at = np.flatnonzero(tracked.slot >= 0)
        slot, flags = tracked.slot[at], tracked.flags[at]
        opened = slot[(flags & PACKET_OPENED) != 0]
        self._number[opened] = np.arange(self._opened, self._opened + opened.size)
        self._opened += opened.size
        at = at[(self._number[slot] >= 0) & ((flags & PACKET_COPY) == 0)]  # records do not count copies
        number = self._number[tracked.slot[at]]
        rows: NDArray[np.int64] = at + tracked.begin

        def of(column: NDArray[np.generic]) -> NDArray[np.int64]:
            return column[rows].astype(np.int64)

        self._packets.append(
            PacketColumns(
                number, of(p.ts), (tracked.flags[at] & PACKET_FROM_ORIGINATOR) != 0, of(p.ip_size), of(p.payload),
                of(p.tcp_flags), of(p.window), of(p.ttl), of(p.ip_id), tos[rows], df[rows],
            )
        )  # fmt: skip

    def _close(self, slots: NDArray[np.int32]) -> None:
        if slots.size:
            self._closed.append((self._number[slots], *self._tracker.rows(slots)))
            self._number[slots] = -1

    def result(self) -> Traffic:
        """Everything that was taken, frames that are not IP left out."""
        for slots in self._tracker.flush():
            self._close(slots)
        if not self._closed:
            empty = np.zeros(0, np.int64)
            return Traffic(connection_table(*self._tracker.rows(np.zeros(0, np.int32))),
                           PacketColumns(empty, empty, empty.astype(bool), *[empty] * 8))  # fmt: skip
        number = np.concatenate([part[0] for part in self._closed])
        rows, sides = (join_rows([part[k] for part in self._closed]) for k in (1, 2))
        shown = np.flatnonzero(rows["ethertype"] == 0)
        shown = shown[np.argsort(number[shown], kind="stable")]
        place = np.full(self._opened, -1, np.int64)
        place[number[shown]] = np.arange(shown.size)
        packets = PacketColumns._make(np.concatenate(columns) for columns in zip(*self._packets))
        connection = place[packets.connection]
        packets = packets._replace(connection=connection)
        kept = PacketColumns._make(column[connection >= 0] for column in packets)
        return Traffic(connection_table(rows[shown], sides[shown]), kept)


def _service(block: FrameBlock) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """IPv4's byte of service and its bit Don't Fragment of each frame, behind Ethernet and at most one VLAN tag."""
    tos, df = np.full(len(block), NO_TOS, np.int64), np.full(len(block), NO_TOS, np.int64)
    rows = np.flatnonzero((block.link_type == ETHERNET) & (block.captured >= 38))
    at = block.start[rows] + 12
    tagged = _word(block, at) == VLAN
    at = np.where(tagged, at + 4, at)
    found = _word(block, at) == IPV4
    rows, at = rows[found], at[found] + 2
    tos[rows] = block.buffer[at + 1]
    df[rows] = block.buffer[at + 6] >> 6 & 1
    return tos, df


def _word(block: FrameBlock, at: NDArray[np.int64]) -> NDArray[np.int64]:
    return block.buffer[at].astype(np.int64) << 8 | block.buffer[at + 1]
