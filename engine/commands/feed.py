"""Captures onto the embedded bus."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from connectors.bus.memory import MemoryBus
from engine.commands.reading import Choice, Progress, check_captures, frames
from engine.config import Config
from engine.errors import InputError
from engine.labels.rules import Labels
from engine.sensor.publisher import LATENCY, Pace, Publisher, Sensor, replay
from engine.sensor.tally import Tally


class Feed(Protocol):
    """The source of a run's packets: captures, or an interface (tap.py)."""

    name: str  # name of this run, for a directory
    tally: Tally  # counts of what was read
    endless: bool  # whether the source runs until stopped: rows are then made durable as they come

    def publish(self, bus: MemoryBus) -> None:
        """Publish until the source ends or is stopped. Raises InputError at damage, after the packets before it."""

    def stop(self) -> None:
        """End early. A signal handler may call it."""

    @property
    def labelled(self) -> int | None:
        """Number of packets that match a label, None if not counted."""


@dataclass(frozen=True)
class Replay:
    """How captures are replayed."""

    speed: float = 0.0  # multiple of real time; 0: as fast as possible
    progress: Progress | None = None
    choice: Choice = field(default_factory=Choice)  # packets to publish
    max_gap: float = 0.0  # longest pause in seconds of the capture; 0: as long as they are


class CaptureFeed:
    """A feed of captures, one after the other."""

    name = "captures"
    endless = False

    def __init__(self, captures: Sequence[Path], config: Config, labels: Labels | None, how: Replay) -> None:
        """Raises InputError for a capture that is missing."""
        check_captures(captures)
        self._captures, self._config, self._labels, self._how = captures, config, labels, how
        self.tally = how.choice.tally
        self._stopped = threading.Event()
        self._publisher: Publisher | None = None

    @property
    def labelled(self) -> int | None:
        """Number of packets that match a label, None without labels."""
        if self._labels is None:
            return None
        return self._publisher.labelled if self._publisher else 0

    def publish(self, bus: MemoryBus) -> None:
        """Publish all captures. Raises InputError at damage, after the packets before it."""
        config, how = self._config, self._how
        sensor = Sensor(
            config.sensor.name,
            config.sensor.epoch or 0,
            config.bus.block_packets,
            config.decode,
            self._labels,
        )
        publisher = self._publisher = Publisher(sensor, bus, self.tally)
        blocks = frames(self._captures, config.bus.block_packets, how.progress, how.choice)
        live = how.speed > 0 or any(str(path) == "-" for path in self._captures)
        pace = Pace(how.speed, LATENCY if live else None, sleep=self._stopped.wait, max_gap=how.max_gap)
        try:
            replay(blocks, publisher, pace)
        except InputError:  # packets before the damage are still scored
            publisher.finish()
            raise
        finally:
            self.tally.pauses, self.tally.pause_seconds = pace.drift.gaps, pace.drift.skipped

    def stop(self) -> None:
        """Stop waiting between packets."""
        self._stopped.set()
