"""A tap -> packet blocks on a bus, with heartbeats and a count of every loss."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from connectors.files.frames import FrameBlock
from connectors.live.bpf import FilterError
from connectors.live.capture import RingCapture
from connectors.live.clock_steps import ClockSteps
from connectors.live.netdev import InterfaceError
from connectors.live.privileges import PrivilegeError, UnknownUserError, drop
from connectors.live.settings import CaptureSettings, Counters
from connectors.live.sniffer import SniffedCapture
from engine.errors import ConfigError, InputError, OutputError
from engine.sensor.publisher import HEARTBEAT, LATENCY, Publisher


class Source(Protocol):
    """An open tap on an interface."""

    counters: Counters
    clock: ClockSteps

    def frames(self) -> Iterator[FrameBlock]:
        """Blocks as they come, until ``stop``; an empty one now and then during silence.

        Each is valid until the next is requested. Raises CaptureLostError.
        """

    def stop(self) -> None:
        """Take no more packets; ``frames`` gives those already taken and ends."""

    def change(self, expression: str, snaplen: int) -> None:
        """Set another filter. Raises FilterError or InterfaceError, and keeps the old filter then."""

    def close(self) -> None:
        """Close the interface."""


def open_source(interface: str, settings: CaptureSettings, warn: Callable[[str], object]) -> Source:
    """Open an interface. Raises InputError, or ConfigError if it cannot have the settings."""
    try:
        if settings.method != "scapy":
            if hasattr(socket, "AF_PACKET"):
                return RingCapture(interface, settings)
            if settings.method == "ring":
                raise ConfigError(
                    "capture.method ring: this system has no AF_PACKET sockets; use auto or scapy"
                )
            warn("no AF_PACKET ring here: capturing through scapy, which is slow")
        return SniffedCapture(interface, settings)
    except PermissionError:
        raise InputError(
            f"{interface}: no permission to capture: needs CAP_NET_RAW (as root, by setpriv, or in the systemd unit)"
        ) from None
    except FilterError as error:
        raise ConfigError(f"capture.{error}") from None
    except InterfaceError as error:
        raise InputError(str(error)) from None


def give_up_privileges(user: str | None) -> None:
    """Give up all privileges but the open sockets. Raises ConfigError or OutputError when that fails."""
    try:
        drop(user)
    except UnknownUserError as error:
        raise ConfigError(f"privacy.user: {error}") from None
    except PrivilegeError as error:
        raise OutputError(f"privileges: {error}") from None


def publish_live(
    source: Source, publisher: Publisher,
    look: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Publish packets as they come, none later than LATENCY, and a heartbeat every second.

    ``look``: called between blocks. Raises CaptureLostError, after publishing what came before.
    """
    flushed = beaten = clock()
    try:
        for frames in source.frames():
            publisher.add(frames)
            now = clock()
            if now - beaten >= HEARTBEAT:
                publisher.heartbeat(frames.now)
                flushed = beaten = now
            elif now - flushed >= LATENCY:
                publisher.flush()
                flushed = now
            look()
    finally:
        publisher.finish()


@dataclass
class CaptureReport:
    """Totals of a tap. ``received`` + ``taken_over`` = ``published`` + ``waiting`` + queue + bus."""

    interface: str
    seconds: float = 0.0
    received: int = 0  # packets received from the kernel
    published: int = 0  # packets acknowledged by the bus
    dropped: dict[str, int] = field(default_factory=dict)  # packets lost: kernel, ring, queue and bus
    waiting: int = 0  # packets left on disk for the next start
    taken_over: int = 0  # packets that the previous start left
    skipped: int = 0  # packets in a direction that is not captured
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)
