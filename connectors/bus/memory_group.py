"""A consumer group in memory, the twin of KafkaSubscriber: its members share a MemoryTopic's partitions.

A partition has one owner at a time. Nothing here waits, reads a clock or runs a thread: the caller says who joins,
leaves, loses partitions or is refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from connectors.bus.memory import Message
from connectors.bus.memory_topic import MemoryTopic


@dataclass(frozen=True, slots=True)
class Change:
    """A partition came to a member, was asked back, or was lost without being asked."""

    kind: str  # assigned, revoked or lost
    partition: int


class MemoryGroup:
    """Members that share a topic's partitions, and the offsets they committed."""

    def __init__(self, topic: MemoryTopic) -> None:
        self.topic = topic
        self.committed: dict[int, int] = {}
        self.generation = 0  # number of rebalances; a member that has not polled since one cannot commit
        self.members: list[MemoryMember] = []
        self.owner: dict[int, MemoryMember] = {}  # by partition

    def join(self, *, stop_at_end: bool = False, most: int = 8) -> MemoryMember:
        """Add a member, which gets its share. ``stop_at_end``, ``most``: as of KafkaSubscriber."""
        member = MemoryMember(self, stop_at_end, most)
        self.admit(member)
        return member

    def admit(self, member: MemoryMember) -> None:
        """Take a member in, again if it was expired."""
        if member not in self.members:
            self.members.append(member)
            self.rebalance()

    def expire(self, member: MemoryMember) -> None:
        """Throw out a member that was not heard of for too long; it joins again when it polls."""
        self.members.remove(member)
        for partition in self._held(member):
            del self.owner[partition]
            member.note("lost", partition)
        self.rebalance()

    def move(self, partition: int, to: MemoryMember) -> None:
        """Give a partition to another member, or back to the one that has it."""
        self.generation += 1
        if partition in self.owner:
            self.owner[partition].note("revoked", partition)
        self.owner[partition] = to
        to.note("assigned", partition)

    def rebalance(self) -> None:
        """Divide the partitions evenly; members keep what they have up to their share."""
        self.generation += 1
        free = [p for p in range(self.topic.partitions) if p not in self.owner]
        order = sorted(self.members, key=lambda m: -len(self._held(m)))  # who has most keeps one more
        shares = {}
        for k, member in enumerate(order):
            few, more = divmod(self.topic.partitions, len(order))
            shares[member] = few + (k < more)
            for partition in self._held(member)[shares[member] :]:
                self.owner.pop(partition).note("revoked", partition)
                free.append(partition)
        for member in order:
            while len(self._held(member)) < shares[member]:
                self.owner[min(free)] = member
                member.note("assigned", min(free))
                free.remove(min(free))

    def _held(self, member: MemoryMember) -> list[int]:
        return sorted(p for p, owner in self.owner.items() if owner is member)


class MemoryMember:
    """One member, with KafkaSubscriber's interface: a partition that came gives nothing until ``seek``."""

    def __init__(self, group: MemoryGroup, stop_at_end: bool, most: int) -> None:
        """Use ``MemoryGroup.join``."""
        self._group, self._topic = group, group.topic
        self._stop_at_end, self._most = stop_at_end, most
        self._changes: deque[Change] = deque()
        self._position: dict[int, int] = {}  # next offset, of partitions that are held and sought
        self._ends: dict[int, int] = {}  # offsets at which to stop
        self._turn = 0  # partition that poll begins with
        self._paused = False
        self._generation = -1  # of the group, when this member last polled
        self.fenced = False  # whether the group refuses its commits, as if another had taken its name

    def note(self, kind: str, partition: int) -> None:
        """Remember a change. Called by the group."""
        self._position.pop(partition, None)
        self._changes.append(Change(kind, partition))

    def changes(self) -> list[Change]:
        """Partitions that came and went since the last call, in order."""
        return [self._changes.popleft() for _ in range(len(self._changes))]

    @property
    def joined(self) -> bool:
        """Whether this is a member, and no rebalance came since it last polled."""
        return self in self._group.members and self._generation == self._group.generation

    def poll(self, timeout: float | None = None, most: int | None = None) -> list[Message] | None:  # noqa: ARG002
        """The next messages of all partitions that are sought; [] at once when there are none.

        With ``stop_at_end``, None once every partition held has given what its log held when it came. Raises
        OffsetError when the next offset of a partition is no longer in the log.
        """
        self._group.admit(self)
        if len(self._group.owner) < self._topic.partitions:
            self._group.rebalance()
        self._generation = self._group.generation
        if self._stop_at_end and not self._changes and self._all_read():
            return None
        if self._paused:
            return []
        batch: list[Message] = []
        order = sorted(self._position, key=lambda p: (p - self._turn) % self._topic.partitions)
        self._turn = (self._turn + 1) % self._topic.partitions  # so that none waits for ever
        for partition in order:
            new = self._topic.read(partition, self._position[partition], (most or self._most) - len(batch))
            batch += new
            if new:
                self._position[partition] = new[-1].offset + 1
        return batch

    def _all_read(self) -> bool:
        held = [p for p, owner in self._group.owner.items() if owner is self]
        return all(p in self._ends and self._position.get(p, 0) >= self._ends[p] for p in held)

    def position(self, partition: int) -> int | None:
        """Offset of the message that poll gives next; None when the partition is not held and sought."""
        return self._position.get(partition)

    def seek(self, partition: int, offset: int) -> None:
        """Read on from ``offset``. Nothing happens when the partition was taken away: a change tells of it."""
        if self._group.owner.get(partition) is self:
            self._position[partition] = offset

    def pause(self) -> None:
        """Give no messages until ``resume``, but stay in the group."""
        self._paused = True

    def resume(self) -> None:
        """Give messages again."""
        self._paused = False

    def log(self, partition: int) -> tuple[int, int]:
        """First offset in the log, and the offset after its last message; where ``stop_at_end`` stops."""
        first, end = self._topic.log(partition)
        self._ends.setdefault(partition, end)
        return first, end

    def committed(self, partition: int) -> int | None:
        """The group's committed offset, None without one."""
        return self._group.committed.get(partition)

    def commit(self, partition: int, offset: int) -> bool:
        """Tell the group that messages before ``offset`` are done with; False when it does not take it."""
        if self.fenced or not self.joined:
            return False
        self._group.committed[partition] = offset
        return True

    def lag(self, partition: int) -> int | None:
        """Messages in the log and not yet polled; None when the partition is not held and sought."""
        at = self._position.get(partition)
        return None if at is None else max(0, self._topic.log(partition)[1] - at)

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic."""
        return self._topic.partitions

    def close(self) -> None:
        """Leave the group; the others get its partitions."""
        if self in self._group.members:
            self._group.expire(self)
            self._changes.clear()
