"""Live packets from an interface: an AF_PACKET ring that the kernel fills and numba walks (Linux).

Packets that the kernel could not put into the ring are counted, and reported after the blocks that were full then.
connectors/live/sniffer.py is the portable fallback.
"""

from __future__ import annotations

import logging
import mmap
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from connectors.files.frames import FrameBlock
from connectors.files.window import block, columns
from connectors.live import bpf
from connectors.live.clock_steps import ClockSteps
from connectors.live.netdev import (
    ANY,
    ETHERNET,
    Interface,
    InterfaceError,
    bind_to_all,
    interface_drops,
    look_up,
    softnet_drops,
    stamp_in_hardware,
)
from connectors.live.ring import RESERVED, Geometry, Wanted, ready, release, walk
from connectors.live.settings import QUIET, CaptureLostError, CaptureSettings, Counters

logger = logging.getLogger(__name__)

ETH_P_ALL, SOL_PACKET = 3, 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 1, 5, 6, 10
PACKET_RESERVE, PACKET_TIMESTAMP, PACKET_FANOUT = 12, 17, 18
PACKET_MR_PROMISC, TPACKET_V3 = 1, 2
FANOUT_HASH, FANOUT_CBPF = 0, 6
RAW_HARDWARE = 1 << 6  # SOF_TIMESTAMPING_RAW_HARDWARE

RETIRE = 20  # ms after which the kernel hands over a block that is not full
DRAINS = 50  # most looks at the ring at the end, while packets that the kernel put into it are missing
MOST = 1 << 16  # most packets in a block of ours
EVERYTHING = 1 << 62
COUNTERS = 1.0  # seconds between reads of the interface's counters


class Loss(NamedTuple):
    """Packets lost after blocks that were full at the time."""

    blocks: int  # blocks still to be given first
    packets: int


def _compile() -> None:
    """Compile the kernels before the first packet, on an empty ring."""
    data = np.zeros(8192, np.uint8)
    words, geometry = data.view(np.uint32), Geometry(4096, 2)
    ready(words, 0, geometry, MOST)
    walk(data, words, 0, 0, geometry, Wanted(ETHERNET, True, True), columns(0))


class RingCapture:
    """An open tap. ``frames`` gives blocks until ``stop``; each is valid until the next is requested."""

    def __init__(self, interface: str, settings: CaptureSettings, clock: ClockSteps | None = None) -> None:
        """Raises InterfaceError, FilterError, or PermissionError without CAP_NET_RAW."""
        self.interface: Interface = look_up(interface)
        self.clock = clock or ClockSteps()
        self.counters = Counters()
        self._settings = settings
        _compile()
        self._geometry = Geometry(settings.block_bytes, max(2, settings.ring_bytes // settings.block_bytes))
        program = bpf.compiled(settings.filter, self.interface.link_type, settings.snaplen)
        self._stopped = False
        self._at = self._taken = 0  # the ring's next block, and number of blocks from there on in use
        self._arrived = 0  # packets that the kernel put into the ring
        self._pending: list[Loss] = []  # losses to report after the blocks that were full before
        # ns that the packets' clock is ahead of the machine's; None: unknown
        self._ahead = None if settings.timestamps == "hardware" else 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            bpf.attach(self._socket, bpf.NOTHING)  # no packets until all is set up
            self._open_ring()
            self._join()
            bpf.attach(self._socket, program)
        except BaseException:
            self._socket.close()
            raise
        self._interface_drops = interface_drops(interface)
        self._softnet_drops = softnet_drops()
        self._looked = 0.0

    def _open_ring(self) -> None:
        s, sock = self._settings, self._socket
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        sock.setsockopt(SOL_PACKET, PACKET_RESERVE, RESERVED)
        if s.timestamps == "hardware":
            if not self.interface.index:
                raise InterfaceError(f"{ANY}: hardware time stamps need one interface: name it")
            stamp_in_hardware(self.interface.name)
            sock.setsockopt(SOL_PACKET, PACKET_TIMESTAMP, RAW_HARDWARE)
        try:
            sock.setsockopt(SOL_PACKET, PACKET_RX_RING, self._geometry.request(RETIRE))
        except OSError as error:
            size = self._geometry.block * self._geometry.blocks
            raise InterfaceError(
                f"{self.interface.name}: no ring of {size} bytes: {error.strerror} (lower capture.ring_bytes)"
            ) from None
        self._memory = mmap.mmap(sock.fileno(), self._geometry.block * self._geometry.blocks)
        self._data = np.frombuffer(self._memory, np.uint8)
        self._words = self._data.view(np.uint32)

    def _join(self) -> None:
        s, sock, index = self._settings, self._socket, self.interface.index
        try:
            if index:
                sock.bind((self.interface.name, ETH_P_ALL))
            else:
                bind_to_all(sock, ETH_P_ALL)
        except OSError as error:
            raise InterfaceError(f"{self.interface.name}: {error.strerror}") from None
        if s.promiscuous and index and not self.interface.loopback:
            request = struct.pack("@iHH8s", index, PACKET_MR_PROMISC, 0, b"")
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
        if s.fanout is None:
            return
        kind = FANOUT_CBPF if s.fanout_by == "hosts" else FANOUT_HASH
        try:
            sock.setsockopt(SOL_PACKET, PACKET_FANOUT, s.fanout | kind << 16)
        except OSError as error:
            raise InterfaceError(
                f"{self.interface.name}: fanout group {s.fanout}: {error.strerror} "
                "(another interface or fanout_by uses it already)"
            ) from None
        if kind == FANOUT_CBPF:
            bpf.attach_fanout(sock, bpf.by_hosts())

    def _wanted(self) -> Wanted:
        s, device = self._settings, self.interface
        return Wanted(
            device.link_type,
            s.direction != "out",
            s.direction != "in" and not device.loopback,  # on loopback each packet comes in as well
        )

    def change(self, expression: str, snaplen: int) -> None:
        """Set another filter. Raises FilterError, and keeps the old filter then."""
        bpf.attach(self._socket, bpf.compiled(expression, self.interface.link_type, snaplen))
        self._settings = replace(self._settings, filter=expression, snaplen=snaplen)

    def stop(self) -> None:
        """Take no more packets; ``frames`` gives those already taken and ends. A signal handler may call it."""
        self._stopped = True

    def frames(self, wait: float = 0.05) -> Iterator[FrameBlock]:
        """Blocks of packets; after ``wait`` seconds without any, an empty one whose ``now`` is the time.

        Raises CaptureLostError when the interface is gone, after its last packets.
        """
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        while not self._stopped:
            now = self.clock.now()
            yield from self._ready()
            gone = self._gone()
            if poller.poll(wait * 1000) and self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                gone = gone or self._gone()
                logger.warning("interface down: interface=%s", self.interface.name)
            if not ready(self._words, self._at, self._geometry, 1)[0]:
                yield self._silence(now)
            if gone:
                yield from self._drain()
                raise CaptureLostError(f"{self.interface.name}: the interface is gone")
        yield from self._drain()

    def _ready(self) -> Iterator[FrameBlock]:
        """Blocks that the kernel has handed over, until ``stop``."""
        while not self._stopped and (found := self._next()) is not None:
            yield found
            self._give_back()

    def _drain(self) -> Iterator[FrameBlock]:
        """The rest of the ring, once the kernel puts no more into it."""
        bpf.attach(self._socket, bpf.NOTHING)
        for _ in range(DRAINS):
            while (found := self._next()) is not None:
                yield found
                self._give_back()
            self._pending.append(Loss(0, self._count_lost()))
            if self.counters.received + self.counters.skipped == self._arrived:
                break
            time.sleep(RETIRE / 1000)
        yield self._silence(self.clock.now())

    def _next(self) -> FrameBlock | None:
        self._taken, packets = ready(self._words, self._at, self._geometry, MOST)
        return self._take(self._taken, packets) if self._taken else None

    def _give_back(self) -> None:
        release(self._words, self._at, self._taken, self._geometry)
        self._at = (self._at + self._taken) % self._geometry.blocks

    def _take(self, blocks: int, packets: int) -> FrameBlock:
        rows = columns(packets)
        walked = walk(self._data, self._words, self._at, blocks, self._geometry, self._wanted(), rows)
        self.counters.received += walked.rows
        self.counters.skipped += walked.skipped
        if self._settings.timestamps == "hardware":
            self.counters.unstamped += walked.software
        made = block(self._data, rows, walked.rows)
        dropped = self._lost(blocks)
        if self._settings.timestamps == "hardware":  # a clock of its own, which is not set with the machine's
            if walked.rows:
                self._ahead = int(made.ts[-1]) - self.clock.now()
            return replace(made, dropped=dropped)
        return replace(made, ts=self.clock.corrected(made.ts), dropped=dropped)

    def _silence(self, now: int) -> FrameBlock:
        made = block(self._data, columns(0), 0)
        told = None if self._ahead is None else now + self._ahead - QUIET
        return replace(made, dropped=self._lost(0), now=told)

    def _lost(self, blocks: int) -> int:
        """Packets lost before the given number of blocks, which come next.

        The kernel loses packets while every block waits to be read, so its losses until now belong after those blocks.
        """
        lost = self._count_lost()
        told = sum(loss.packets for loss in self._pending if loss.blocks <= 0)
        self._pending = [
            Loss(loss.blocks - blocks, loss.packets) for loss in self._pending if loss.blocks > 0
        ]
        if lost:
            waiting, _ = ready(self._words, self._at, self._geometry, EVERYTHING)
            if not waiting:
                told += lost
            else:
                self._pending.append(Loss(waiting - blocks, lost))
        return told

    def _count_lost(self) -> int:
        """Packets lost since the last call."""
        packets, lost, _ = struct.unpack("@3I", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
        self._arrived += packets - lost
        self.counters.ring += lost
        now = time.monotonic()
        if now - self._looked >= COUNTERS:
            self._looked = now
            drops = interface_drops(self.interface.name)
            if drops > self._interface_drops:
                lost += drops - self._interface_drops
                self.counters.kernel += drops - self._interface_drops
            self._interface_drops = drops
            self.counters.softnet = softnet_drops() - self._softnet_drops
        return int(lost)

    def _gone(self) -> bool:
        if not self.interface.index:
            return False
        try:
            return socket.if_nametoindex(self.interface.name) != self.interface.index
        except OSError:
            return True

    def close(self) -> None:
        """Close the interface. Blocks given before are no longer valid."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
