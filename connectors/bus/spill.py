"""The queue for a bus that is down: bounded memory, then a bounded file; the newest messages are kept.

Messages leave in the order in which they came. Taken messages are kept until they are released, so that they can
be taken again if they did not arrive.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from connectors.bus.disk_queue import DiskQueue, Held


class Spill:
    """A queue in two bounded places. Not thread-safe by itself."""

    def __init__(self, memory_bytes: int, directory: Path | None = None, disk_bytes: int = 0) -> None:
        """Raises SpillError if the directory cannot be used; takes over the messages in it."""
        self._bound = memory_bytes
        self._disk = DiskQueue(directory, disk_bytes) if directory is not None and disk_bytes else None
        self._memory: deque[Held] = deque()
        self._taken: deque[Held] = deque()  # taken, not released
        self._again: deque[Held] = deque()  # taken before, to be taken again
        self.memory_bytes = 0
        self._next = self._disk.next if self._disk else 1
        self.taken_over = self._disk.packets if self._disk else 0  # packets that an earlier process left
        self.dropped_packets = 0  # packets dropped, the oldest first

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not (self._again or self._memory or (self._disk and self._disk.messages))

    @property
    def unreleased(self) -> int:
        """Number of messages taken and not released."""
        return len(self._taken) + len(self._again)

    @property
    def waiting_packets(self) -> int:
        """Packets of all messages that are not released."""
        held = (*self._taken, *self._again, *self._memory)
        return sum(m.packets for m in held) + (self._disk.packets if self._disk else 0)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the file in use."""
        return self._disk.size if self._disk and self._disk.messages else 0

    def put(self, message: Held) -> None:
        """Keep a message; if there is no room, the oldest message not yet taken is dropped."""
        size = len(message.value)
        message.number, self._next = self._next, self._next + 1
        if self._disk is None:
            while (oldest := self._again or self._memory) and self.memory_bytes + size > self._bound:
                self._give_up(oldest.popleft())
        elif self._disk.messages or self.memory_bytes + size > self._bound:  # after those already there
            self._to_disk(self._disk, message)
            return
        if self.memory_bytes + size > self._bound:
            self.dropped_packets += message.packets
        else:
            self._memory.append(message)
            self.memory_bytes += size

    def _to_disk(self, disk: DiskQueue, message: Held) -> None:
        while not disk.put(message):
            oldest = disk.give_up_oldest()
            if oldest is None:  # not even one message fits
                self.dropped_packets += message.packets
                return
            self.dropped_packets += oldest

    def _give_up(self, message: Held) -> None:
        self.memory_bytes -= len(message.value)
        self.dropped_packets += message.packets

    def take(self) -> Held | None:
        """The next message in order, None without one. It is kept until ``release``."""
        if self._again:
            message: Held | None = self._again.popleft()
        elif self._memory:
            message = self._memory.popleft()
        else:
            message = self._disk.take() if self._disk else None
            if message is not None:
                self.memory_bytes += len(message.value)
        if message is not None:
            self._taken.append(message)
        return message

    def release(self, messages: int) -> int:
        """Drop the oldest taken messages, which have arrived; their packets."""
        released = [self._taken.popleft() for _ in range(messages)]
        for message in released:
            self._forget(message)
        return sum(m.packets for m in released)

    def _forget(self, message: Held) -> None:
        self.memory_bytes -= len(message.value)
        if message.stored and self._disk:
            self._disk.release(message.number)

    def rewind(self) -> None:
        """Give all messages that were taken but not released once more, before others."""
        self._again.extendleft(reversed(self._taken))
        self._taken.clear()

    def give_up(self, k: int) -> int:
        """Drop the k-th of the messages that are taken and not released; its packets."""
        message = self._taken[k]
        del self._taken[k]
        self._forget(message)
        return message.packets

    def close(self) -> int:
        """Put all messages on the disk, for the next process; packets for which there was no room."""
        self.rewind()
        waiting = [m for m in (*self._again, *self._memory) if not m.stored]
        lost = 0
        for message in reversed(waiting):
            if self._disk is None or lost or not self._disk.put(message):
                lost += message.packets  # the newest messages are kept
        if self._disk is not None:
            self._disk.close()
        return lost
