"""The loop over the embedded bus: poll, process, flush sinks, commit. engine/member.py is its twin for Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from connectors.memory import Message
from engine.detector import Detector
from engine.intake import Intake
from engine.outlet import Outlet


class Consumer(Protocol):
    """Where messages come from."""

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        """The next messages of all partitions in order, [] after the timeout, None when nothing will come."""

    def commit(self, partition: int, offset: int) -> None:
        """Messages before ``offset`` will not be asked for again."""


class Worker:
    """Feeds the detectors of some partitions from a bus, and sinks and metrics from the detectors."""

    def __init__(
        self, bus: Consumer, detectors: Sequence[Detector], intake: Intake, outlet: Outlet,
        flush_after: tuple[int, int] = (8192, 16),
    ) -> None:  # fmt: skip
        """``flush_after``: so many connections or messages may wait before sinks are flushed and offsets
        committed; not more messages than the bus holds, or publishing would wait for ever.
        """
        self._bus = bus
        self._intake = intake
        self._outlet = outlet
        for detector in detectors:
            intake.adopt(detector)
        self._flush_rows, self._flush_messages = flush_after
        self._next: dict[int, int] = {}  # partition -> offset after the last message taken

    def run(self) -> None:
        """Work until the bus has ended; then end all connections, flush and commit.

        When sinks are flushed depends on the messages alone, not on how many a poll gives, as long as they
        keep coming. Raises what the publisher ended with, before anything is ended here.
        """
        while (messages := self._bus.poll(timeout=1.0)) is not None:
            for message in messages:
                self._next[message.partition] = message.offset + 1
                self._outlet.keep(message.partition, message.offset, self._intake.take(message))
                if self._outlet.rows >= self._flush_rows or self._outlet.messages >= self._flush_messages:
                    self._flush()
            if not messages and self._outlet.messages:
                self._flush()
            self._intake.measure()
        self.close()

    def close(self) -> None:
        """End all connections, flush and commit."""
        for partition, detector in self._intake.detectors.items():
            after = self._next.get(partition, 0)
            self._outlet.end(partition, after, detector.flush(after))
        self._flush()
        self._intake.measure()

    def _flush(self) -> None:
        self._outlet.flush()
        for partition, offset in self._next.items():
            self._bus.commit(partition, offset)
