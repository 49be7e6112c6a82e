"""Live packets through scapy's sniffer: slow, but wherever scapy runs. connectors/live/capture.py is the fast way."""

from __future__ import annotations

import logging
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from connectors.files.frames import FrameBlock
from connectors.files.window import block, columns
from connectors.live.clock_steps import ClockSteps
from connectors.live.netdev import ANY, InterfaceError
from connectors.live.settings import QUIET, CaptureLostError, CaptureSettings, Counters

logger = logging.getLogger(__name__)

MOST = 256  # most packets in a block
DRAIN = 1.0  # seconds for reading the rest of the socket at the end
LINK_TYPES = {"Ether": 1, "IP": 101, "IPv6": 101, "CookedLinux": 113, "Loopback": 0}  # by scapy's layer


class SniffedCapture:
    """An open tap. ``frames`` gives blocks until ``stop``."""

    def __init__(self, interface: str, settings: CaptureSettings, clock: ClockSteps | None = None) -> None:
        """Raises InterfaceError or PermissionError. Has no fanout and no hardware time stamps."""
        import scapy.arch  # noqa: F401 -- chooses conf.L2listen
        from scapy.config import conf
        from scapy.error import Scapy_Exception

        if settings.fanout is not None or settings.timestamps == "hardware":
            raise InterfaceError(f"{interface}: fanout and hardware time stamps need capture.method ring")
        if interface == ANY:
            raise InterfaceError(
                f"{ANY}: all interfaces together need capture.method ring, on Linux: name one"
            )
        if interface not in (name for _, name in socket.if_nameindex()):
            known = ", ".join(name for _, name in socket.if_nameindex())
            raise InterfaceError(f"{interface}: no such interface; choose one of {known}")
        self.name, self._settings = interface, settings
        self.clock = clock or ClockSteps()
        self.counters = Counters()
        self._stopped = False
        self._conf, self._refusal = conf, Scapy_Exception
        self._socket = self._open()

    def _open(self) -> Any:
        s = self._settings
        try:
            return self._conf.L2listen(iface=self.name, filter=s.filter or None, promisc=s.promiscuous)
        except PermissionError:
            raise
        except (OSError, ImportError, self._refusal) as error:
            raise InterfaceError(f"{self.name}: {' '.join(str(error).split())}") from None

    def change(self, expression: str, snaplen: int) -> None:
        """Set another filter. Raises InterfaceError, and keeps the old filter then."""
        before, self._settings = self._settings, replace(self._settings, filter=expression, snaplen=snaplen)
        try:
            fresh = self._open()
        except InterfaceError:
            self._settings = before
            raise
        except PermissionError:  # the permission was given up once the first socket was open
            self._settings = before
            raise InterfaceError(
                f"{self.name}: the scapy method cannot change its filter while it runs"
            ) from None
        self._socket.close()
        self._socket = fresh

    def stop(self) -> None:
        """Take no more packets. A signal handler may call it."""
        self._stopped = True

    def frames(self, wait: float = 0.05) -> Iterator[FrameBlock]:
        """Blocks of packets; after ``wait`` seconds without any, an empty one whose ``now`` is the time.

        Raises CaptureLostError when the interface is gone.
        """
        while not self._stopped:
            now = self.clock.now()
            found = self._gather(wait)
            yield self._block(found) if found else replace(self._block([]), now=now - QUIET)
        ends = time.monotonic() + DRAIN
        while time.monotonic() < ends and (found := self._gather(0.0)):
            yield self._block(found)

    def _gather(self, wait: float) -> list[tuple[int, bytes, int]]:
        """Packets that come within ``wait`` seconds of each other, up to a block."""
        found: list[tuple[int, bytes, int]] = []
        while len(found) < MOST and select.select([self._socket], [], [], wait)[0]:
            if (packet := self._receive()) is not None:
                found.append(packet)
                wait = 0.0
        return found

    def _receive(self) -> tuple[int, bytes, int] | None:
        """Link type, bytes and time of one packet, None if it is not wanted."""
        try:
            kind, data, when = self._socket.recv_raw()
        except OSError as error:
            if self.name not in (name for _, name in socket.if_nameindex()):
                raise CaptureLostError(f"{self.name}: the interface is gone") from error
            logger.warning("interface: interface=%s error=%s", self.name, error)
            return None
        if data is None:
            return None
        link_type = LINK_TYPES.get(getattr(kind, "__name__", ""), 1)
        return link_type, bytes(data), time.time_ns() if when is None else int(when * 1_000_000_000)

    def _block(self, found: list[tuple[int, bytes, int]]) -> FrameBlock:
        rows = columns(len(found))
        kept = [data[: self._settings.snaplen] for _, data, _ in found]
        sizes = np.array([len(data) for data in kept], np.int64)
        rows.start[:] = np.cumsum(sizes) - sizes
        rows.captured[:] = sizes
        rows.wire[:] = [len(data) for _, data, _ in found]
        rows.ts[:] = [when for _, _, when in found]
        rows.link_type[:] = [link_type for link_type, _, _ in found]
        self.counters.received += len(found)
        made = block(np.frombuffer(b"".join(kept), np.uint8), rows, len(found))
        return replace(made, ts=self.clock.corrected(made.ts), dropped=self._lost())

    def _lost(self) -> int:
        """Packets that the socket lost since the last call, where the system reports them (Linux)."""
        inner = getattr(self._socket, "ins", None)
        if not isinstance(inner, socket.socket) or not hasattr(socket, "AF_PACKET"):
            return 0
        try:
            _, lost = struct.unpack("@2I", inner.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
        except OSError:
            return 0
        self.counters.ring += lost
        return int(lost)

    def close(self) -> None:
        """Close the interface."""
        self._socket.close()
