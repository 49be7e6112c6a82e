"""A topic in memory: a log a partition, kept until it is trimmed, and what may happen to logs.

MemoryBus drops what is committed; here messages stay, so that any number of groups can read them, from any offset.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from connectors.bus.memory import Message


class OffsetError(Exception):
    """A member's next offset is no longer in the log."""


@dataclass
class _Log:
    """Messages of one partition."""

    first: int = 0  # offset at which the log begins
    end: int = 0  # offset of the next message
    messages: list[Message] = field(default_factory=list)  # by offset, perhaps with gaps


class MemoryTopic:
    """Logs of a topic's partitions, and what may happen to them. One thread publishes to a partition."""

    def __init__(self, partitions: int) -> None:
        if partitions < 1:
            raise ValueError(f"partitions {partitions} must be at least 1")
        self.partitions = partitions
        self._logs = [_Log() for _ in range(partitions)]
        self._number = 1  # count of topics that had this name

    @property
    def id(self) -> str:
        """Identity of this topic; another one once it is recreated."""
        return f"topic-{self._number}"

    def publish(self, partition: int, value: bytes, *, about: str = "", packets: int = 0) -> int:  # noqa: ARG002
        """Append a message and return its offset."""
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} is not one of {self.partitions}")
        log = self._logs[partition]
        offset, log.end = log.end, log.end + 1  # first, so that no reader in another thread gets past the end
        log.messages.append(Message(partition, offset, value))
        return offset

    def log(self, partition: int) -> tuple[int, int]:
        """First offset in the log, and the offset after its last message."""
        return self._logs[partition].first, self._logs[partition].end

    def read(self, partition: int, offset: int, most: int) -> list[Message]:
        """At most ``most`` messages from ``offset`` on. OffsetError when the log does not reach that offset."""
        log = self._logs[partition]
        if not log.first <= offset <= log.end:
            raise OffsetError(f"partition {partition}: offset {offset} is outside {log.first}..{log.end}")
        at = bisect_left(log.messages, offset, key=lambda m: m.offset)
        return log.messages[at : at + most]

    def trim(self, partition: int, first: int) -> None:
        """Delete the messages before ``first``, as retention does."""
        log = self._logs[partition]
        log.first, log.end = first, max(first, log.end)
        log.messages = [m for m in log.messages if m.offset >= first]

    def truncate(self, partition: int, end: int) -> None:
        """Delete the messages from ``end`` on, as a leader does that had fewer than the one before it."""
        log = self._logs[partition]
        log.first, log.end = min(log.first, end), end
        log.messages = [m for m in log.messages if m.offset < end]

    def skip(self, partition: int, offsets: int) -> None:
        """Leave a gap: the next message comes ``offsets`` later than it would."""
        self._logs[partition].end += offsets

    def grow(self, partitions: int) -> None:
        """Add empty partitions, to have ``partitions`` in all. Groups divide them at their next poll."""
        self._logs += [_Log() for _ in range(partitions - self.partitions)]
        self.partitions = partitions

    def recreate(self) -> None:
        """Delete the topic and make an empty one of its name, with another id."""
        self._number += 1
        self._logs = [_Log() for _ in self._logs]
