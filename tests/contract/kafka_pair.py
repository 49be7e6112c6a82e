"""A Kafka publisher and a subscriber on one topic of their own, with the embedded bus' interface for the contract."""

from __future__ import annotations

import time
import uuid

from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaSettings
from connectors.bus.kafka_topics import PACKETS, Admin
from connectors.bus.memory import Message

SECONDS = 20.0


class KafkaPair:
    """Publishes and reads through a broker. A poll waits for what was published, as the network takes its time."""

    def __init__(self, address: str, partitions: int) -> None:
        settings = KafkaSettings((address,), prefix=f"c{uuid.uuid4().hex[:10]}.")
        with Admin(settings) as admin:
            admin.create(partitions, 1, 24)
        self.partitions = partitions
        self._publisher = KafkaPublisher(settings, PACKETS)
        self._subscriber = KafkaSubscriber(settings, PACKETS, settings.prefix)
        self._published = [0] * partitions
        self._ended = False
        self._held: set[int] = set()
        until = time.monotonic() + SECONDS
        while len(self._held) < partitions:
            assert time.monotonic() < until, "no assignment"
            self._poll(0.1, 1)

    def _poll(self, timeout: float, most: int) -> list[Message]:
        messages = self._subscriber.poll(timeout, most)
        for change in self._subscriber.changes():
            assert change.kind == "assigned"
            self._subscriber.seek(change.partition, 0)
            self._held.add(change.partition)
        return messages or []

    def publish(self, partition: int, value: bytes) -> None:
        self._publisher.publish(partition, value)
        self._publisher.flush()
        self._published[partition] += 1

    def end(self) -> None:
        self._ended = True

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        until = time.monotonic() + (SECONDS if timeout is None else timeout)
        batch: list[Message] = []
        while len(batch) < most:
            left = sum(self.lag(p) for p in range(self.partitions))
            if not left and (batch or self._ended or time.monotonic() >= until):
                break
            assert time.monotonic() < until + SECONDS, f"{left} messages do not come"
            batch += self._poll(0.1, most - len(batch))
        return None if not batch and self._ended else batch

    def position(self, partition: int) -> int:
        return self._subscriber.position(partition) or 0

    def lag(self, partition: int) -> int:
        return self._published[partition] - self.position(partition)

    def seek(self, partition: int, offset: int) -> None:
        self._subscriber.seek(partition, offset)

    def commit(self, partition: int, offset: int) -> None:
        until = time.monotonic() + SECONDS
        # a member may have to join again first, which a poll does
        while not self._subscriber.commit(partition, offset):
            assert time.monotonic() < until, "the group does not take it"
            self._subscriber.pause()
            assert self._poll(0.1, 1) == []
            self._subscriber.resume()
        assert self._subscriber.committed(partition) == offset

    def close(self) -> None:
        self._subscriber.close()
        self._publisher.close()
