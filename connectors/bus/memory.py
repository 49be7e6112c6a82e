"""The embedded bus: partitions, offsets, bounded queues with back-pressure, inside one process.

It keeps what tests/contract/test_bus.py asks of every bus, with one consumer and no group (memory_group.py has
those): ``publish`` blocks while a partition holds ``capacity`` messages that are not committed; ``poll`` gives each
partition's messages in order, each once unless the consumer seeks back; what is committed is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from itertools import islice


class BusClosedError(Exception):
    """The bus is closed: it takes and gives no more messages."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the bus."""

    partition: int
    offset: int
    value: bytes
    time: float | None = None  # seconds since the epoch at which it was published; None: unknown


class MemoryBus:
    """One topic. Any number of publishing threads, one consuming thread for each partition."""

    def __init__(self, partitions: int, capacity: int = 64) -> None:
        """``capacity``: messages a partition holds before publish blocks."""
        if partitions < 1 or capacity < 1:
            raise ValueError(f"partitions {partitions} and capacity {capacity} must be at least 1")
        self.partitions = partitions
        self._capacity = capacity
        self._log: list[deque[Message]] = [deque() for _ in range(partitions)]
        self._end = [0] * partitions
        self._position = [0] * partitions
        self._turn = 0  # partition with which poll begins
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def publish(self, partition: int, value: bytes, *, about: str = "", packets: int = 0) -> int:  # noqa: ARG002
        """Append a message and return its offset; blocks while the partition is full."""
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} is not one of {self.partitions}")
        with self._changed:
            while len(self._log[partition]) >= self._capacity and not self._ended:
                self._changed.wait()
            if self._ended:
                raise BusClosedError("the bus was closed")
            offset = self._end[partition]
            self._log[partition].append(Message(partition, offset, value))
            self._end[partition] = offset + 1
            self._changed.notify_all()
            return offset

    def end(self, error: BaseException | None = None) -> None:
        """Announce the end of messages; with an error, ``poll`` raises it after the last message.

        Either side may call it, and the first call counts. A waiting publisher is released.
        """
        with self._changed:
            if not self._ended:
                self._ended = True
                self._error = error
                self._changed.notify_all()

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        """The next messages of all partitions, [] after ``timeout`` seconds, None after the end.

        Raises the publisher's error, after its last message.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._ready(), timeout)
            batch: list[Message] = []
            turn, self._turn = self._turn, (self._turn + 1) % self.partitions  # so that all get their turn
            for partition in (*range(turn, self.partitions), *range(turn)):
                log = self._log[partition]
                done = self._position[partition] - (log[0].offset if log else 0)
                new = list(islice(log, done, done + most - len(batch)))
                batch += new
                self._position[partition] += len(new)
            if not batch and self._ended:
                if self._error is not None:
                    raise self._error
                return None
            return batch

    def _ready(self) -> bool:
        return any(position < end for position, end in zip(self._position, self._end))

    def position(self, partition: int) -> int:
        """Offset of the message that poll gives next."""
        with self._changed:
            return self._position[partition]

    def seek(self, partition: int, offset: int) -> None:
        """Read on from ``offset``. Raises ValueError when it was dropped already or is past the end."""
        with self._changed:
            first = self._log[partition][0].offset if self._log[partition] else self._end[partition]
            if not first <= offset <= self._end[partition]:
                raise ValueError(f"offset {offset} must be in {first}..{self._end[partition]}")
            self._position[partition] = offset
            self._changed.notify_all()

    def commit(self, partition: int, offset: int) -> None:
        """Drop the messages before ``offset``: nobody will need them again.

        Raises ValueError when not all of them were polled.
        """
        with self._changed:
            if offset > self._position[partition]:
                raise ValueError(
                    f"offset {offset} is past {self._position[partition]}, the next to be polled"
                )
            log = self._log[partition]
            while log and log[0].offset < offset:
                log.popleft()
            self._changed.notify_all()

    def lag(self, partition: int) -> int:
        """Messages published and not yet polled."""
        with self._changed:
            return self._end[partition] - self._position[partition]
