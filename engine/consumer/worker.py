"""The loop over the embedded bus: poll, process, flush sinks, commit. member.py is its twin for Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from connectors.bus.memory import Message
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet
from engine.scoring.detector import Detector


class Consumer(Protocol):
    """The source of messages."""

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        """The next messages of all partitions in order; [] after the timeout; None at the end."""

    def commit(self, partition: int, offset: int) -> None:
        """Record that messages before ``offset`` are not needed again."""


@dataclass(frozen=True)
class Flushing:
    """Limits after which rows go to the sinks and are made durable."""

    rows: int = 8192  # most rows that wait for the sinks
    messages: int = (
        16  # most messages that wait for a commit; no more than the bus holds, or publishing would stop
    )
    seconds: float | None = None  # most seconds that rows wait, for an endless source
    sync_seconds: float | None = None  # seconds between making rows durable, for an endless source


class Worker:
    """Feeds detectors from a bus, and sinks and metrics from the detectors."""

    def __init__(
        self, bus: Consumer, detectors: Sequence[Detector], intake: Intake, outlet: Outlet,
        when: Flushing | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """``detectors``: those of all partitions of the bus."""
        self._bus = bus
        self._intake = intake
        self._outlet = outlet
        for detector in detectors:
            intake.adopt(detector)
        self._when, self._clock = when or Flushing(), clock
        self._flushed = self._synced = clock()
        self._next: dict[int, int] = {}  # partition -> offset after the last message taken

    def run(self) -> None:
        """Process messages until the bus ends; then end all connections, flush and commit.

        While messages keep coming, the times of flushes depend only on the messages, not on the size of polls. An
        error of the publisher is raised before connections are ended.
        """
        while (messages := self._bus.poll(timeout=1.0)) is not None:
            for message in messages:
                self._next[message.partition] = message.offset + 1
                self._outlet.keep(message.partition, message.offset, self._intake.take(message))
                if self._outlet.rows >= self._when.rows or self._outlet.messages >= self._when.messages:
                    self._flush()
            if self._outlet.messages and (not messages or self._is_due()):
                self._flush()
            self._intake.measure()
        self.close()

    def close(self) -> None:
        """End all connections, flush and commit."""
        for partition, detector in self._intake.detectors.items():
            after = self._next.get(partition, 0)
            self._outlet.end(partition, after, detector.flush())
        self._flush()
        self._sync()
        self._intake.measure()

    def _is_due(self) -> bool:
        return self._when.seconds is not None and self._clock() - self._flushed >= self._when.seconds

    def _sync(self) -> None:
        for partition in self._next:
            self._outlet.sync(partition)
        self._synced = self._clock()

    def _flush(self) -> None:
        self._outlet.flush()
        self._flushed = self._clock()
        every = self._when.sync_seconds
        if every is not None and self._flushed - self._synced >= every:
            self._sync()
        for partition, offset in self._next.items():
            self._bus.commit(partition, offset)
