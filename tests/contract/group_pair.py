"""A publisher and one member of a group, with the embedded bus' interface, so that one contract covers both."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Protocol

from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaSettings
from connectors.bus.kafka_topics import PACKETS, Admin
from connectors.bus.memory import Message
from connectors.bus.memory_group import MemoryGroup, MemoryMember
from connectors.bus.memory_topic import MemoryTopic

SECONDS = 20.0


class Publishes(Protocol):
    """The publishing half of a bus."""

    def publish(self, partition: int, value: bytes) -> object: ...


class GroupPair:
    """Publishes, and reads as the only member. A poll waits until published messages have crossed the network."""

    def __init__(
        self, publisher: Publishes, member: KafkaSubscriber | MemoryMember, partitions: int,
        flush: Callable[[], None] = lambda: None, close: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``flush``: returns when published messages are in the log."""
        self.partitions = partitions
        self._publisher, self._member, self._flush, self.close = publisher, member, flush, close
        self._published = [0] * partitions
        self._ended = False
        self._held: set[int] = set()
        until = time.monotonic() + SECONDS
        while len(self._held) < partitions:
            assert time.monotonic() < until, "no assignment"
            self._poll(0.1, 1)

    def _poll(self, timeout: float, most: int) -> list[Message]:
        messages = self._member.poll(timeout, most)
        for change in self._member.changes():
            assert change.kind == "assigned"
            self._member.seek(change.partition, 0)
            self._held.add(change.partition)
        return messages or []

    def publish(self, partition: int, value: bytes) -> None:
        self._publisher.publish(partition, value)
        self._flush()
        self._published[partition] += 1

    def end(self) -> None:
        self._ended = True

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        until = time.monotonic() + (SECONDS if timeout is None else timeout)
        batch: list[Message] = []
        ended = False
        while len(batch) < most:
            ended = self._ended  # read first: messages published before the end still count
            left = sum(self.lag(p) for p in range(self.partitions))
            if not left and (batch or ended or time.monotonic() >= until):
                break
            assert time.monotonic() < until + SECONDS, f"{left} messages do not come"
            batch += self._poll(0.1, most - len(batch))
        return None if not batch and ended else batch

    def position(self, partition: int) -> int:
        return self._member.position(partition) or 0

    def lag(self, partition: int) -> int:
        return self._published[partition] - self.position(partition)

    def seek(self, partition: int, offset: int) -> None:
        self._member.seek(partition, offset)

    def commit(self, partition: int, offset: int) -> None:
        until = time.monotonic() + SECONDS
        # a member may have to join again first, which a poll does
        while not self._member.commit(partition, offset):
            assert time.monotonic() < until, "the group does not take it"
            self._member.pause()
            assert self._poll(0.1, 1) == []
            self._member.resume()
        assert self._member.committed(partition) == offset


def kafka_pair(address: str, partitions: int) -> GroupPair:
    """A pair with its own topic and group in a cluster."""
    settings = KafkaSettings((address,), prefix=f"c{uuid.uuid4().hex[:10]}.")
    with Admin(settings) as admin:
        admin.create(partitions, 1, 24)
    publisher = KafkaPublisher(settings, PACKETS)
    subscriber = KafkaSubscriber(settings, PACKETS, settings.prefix)

    def close() -> None:
        subscriber.close()
        publisher.close()

    return GroupPair(publisher, subscriber, partitions, publisher.flush, close)


def memory_pair(partitions: int) -> GroupPair:
    """A pair with its own topic and group in memory."""
    topic = MemoryTopic(partitions)
    return GroupPair(topic, MemoryGroup(topic).join(), partitions)
