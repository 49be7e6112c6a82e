"""A live source -> packet blocks on a bus, with heartbeats and everything that was lost counted."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from connectors.bus.kafka_client import KafkaBusError, Secret
from connectors.files.frames import FrameBlock
from connectors.live.bpf import FilterError
from connectors.live.capture import RingCapture
from connectors.live.clock_steps import ClockSteps
from connectors.live.netdev import InterfaceError
from connectors.live.privileges import PrivilegeError, UnknownUserError, drop
from connectors.live.settings import CaptureSettings, Counters
from connectors.live.sniffer import SniffedCapture
from engine.config import Config
from engine.errors import ConfigError, InputError, OutputError
from engine.labels.rules import Labels
from engine.sensor.pseudonyms import Pseudonymiser, read_key
from engine.sensor.publisher import HEARTBEAT, LATENCY, Publisher, Sensor
from engine.types import Packets


class Source(Protocol):
    """An interface that packets are taken from."""

    counters: Counters
    clock: ClockSteps

    def frames(self) -> Iterator[FrameBlock]:
        """Blocks as they come, until ``stop``; empty ones now and then when nothing does.

        Each is valid until the next is asked for. Raises CaptureLostError.
        """

    def stop(self) -> None:
        """Take no more packets; give what was taken, and end."""

    def change(self, expression: str, snaplen: int) -> None:
        """Filter otherwise. Raises FilterError or InterfaceError, and goes on as before then."""

    def close(self) -> None:
        """Let go of the interface."""


def open_source(interface: str, settings: CaptureSettings, warn: Callable[[str], object]) -> Source:
    """Open an interface. Raises InputError, or ConfigError for what the settings ask of it in vain."""
    try:
        if settings.method != "scapy":
            if hasattr(socket, "AF_PACKET"):
                return RingCapture(interface, settings)
            if settings.method == "ring":
                raise ConfigError("capture.method ring: this system has no AF_PACKET sockets")
            warn("no AF_PACKET ring here: capturing through scapy, which is slow")
        return SniffedCapture(interface, settings)
    except PermissionError:
        raise InputError(
            f"{interface}: not allowed to capture: CAP_NET_RAW is needed (root, or setpriv, or the systemd unit)"
        ) from None
    except FilterError as error:
        raise ConfigError(f"capture.{error}") from None
    except InterfaceError as error:
        raise InputError(str(error)) from None


def give_up_privileges(user: str | None) -> None:
    """Keep nothing but what is open. Raises ConfigError or OutputError when that cannot be."""
    try:
        drop(user)
    except UnknownUserError as error:
        raise ConfigError(f"privacy.user: {error}") from None
    except PrivilegeError as error:
        raise OutputError(f"privileges: {error}") from None


def live_sensor(config: Config, block_packets: int, labels: Labels | None = None) -> Sensor:
    """Who publishes what an interface gives. Each start is a run of its own, told apart by when it began."""
    epoch = config.sensor.epoch
    return Sensor(
        config.sensor.name,
        time.time_ns() if epoch is None else epoch,
        block_packets,
        config.decode,
        labels,
        _hide(config),
    )


def _hide(config: Config) -> Callable[[Packets], Packets] | None:
    secret = config.privacy.pseudonym_key
    if secret is None:
        return None
    try:
        return Pseudonymiser(read_key(Secret(secret.env, secret.file).read("privacy.pseudonym_key"))).apply
    except (ValueError, KafkaBusError) as error:
        raise ConfigError(
            f"privacy.pseudonym_key: {str(error).removeprefix('privacy.pseudonym_key: ')}"
        ) from None


def publish_live(
    source: Source, publisher: Publisher,
    look: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Publish packets as they come, none later than LATENCY, and a heartbeat every second.

    ``look``: called between blocks. Raises CaptureLostError when what came before is published.
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
    """What a live capture came to. ``received`` + ``taken_over`` = ``published`` + ``waiting`` + queue + bus."""

    interface: str
    seconds: float = 0.0
    received: int = 0  # packets that the kernel handed over
    published: int = 0  # packets that the bus has
    dropped: dict[str, int] = field(default_factory=dict)  # kernel, ring, queue and bus
    waiting: int = 0  # left on disk for the next start
    taken_over: int = 0  # left by the start before
    skipped: int = 0  # of a direction that is not wanted
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def spill_directory(config: Config, interface: str) -> Path | None:
    """Where a sensor's packets of an interface wait."""
    return None if config.spill.directory is None else config.spill.directory / interface
