"""Apache Kafka as a bus, with the same contract as the embedded one, over the topics of a cluster.

A publisher bounds the number of bytes in flight, since kafka-python's ``send`` takes whatever it is given. A
subscriber leaves the starting position to its caller: the process that is assigned a partition restores its state and
then seeks, so nothing is fetched before that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
)

from connectors.bus.kafka_client import NO_TOPIC, KafkaBusError, KafkaSettings, connect, explain
from connectors.bus.memory import Message

logger = logging.getLogger(__name__)

IN_FLIGHT_BYTES = 32 << 20
TOPIC_SECONDS = 10.0  # seconds until a topic that cannot be seen counts as gone
EMPTY_SECONDS = 10.0  # seconds that a member without partitions waits with stop_at_end
FETCH_BYTES = 16 << 20  # bytes of one answer, at most; a block has up to half a megabyte
REFUSALS = ("MessageSizeTooLarge", "RecordTooLarge", "RecordListTooLarge", "InvalidRecord", "CorruptRecord")
STALE = (IllegalStateError, AssertionError, KeyError, ValueError)  # errors when a partition is no longer held


class UndeliveredError(KafkaBusError):
    """Messages did not reach the log. ``about``: the caller's name for the first of them."""

    def __init__(self, about: str, count: int, reason: str, number: int) -> None:
        super().__init__(f"{about} was not published ({count} messages in all): {reason}")
        self.about, self.count, self.reason = about, count, reason
        self.number = number  # number of the first, counted from 1

    @property
    def refused(self) -> bool:
        """Whether the cluster would refuse that message at every attempt."""
        return self.reason.startswith(REFUSALS)


class KafkaPublisher:
    """Appends messages to the partitions of one topic, each once and in order, or raises UndeliveredError."""

    def __init__(
        self, settings: KafkaSettings, topic: str, in_flight_bytes: int = IN_FLIGHT_BYTES, linger: float = 0.0
    ) -> None:
        """``linger``: seconds that small messages may wait to be sent together.

        Raises KafkaBusError when the cluster or the topic cannot be reached.
        """
        self.topic = settings.topic(topic)
        ours = {
            "linger_ms": round(linger * 1000),
            "batch_size": 1 << 20 if linger else 16384,
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": "lz4",
            "max_request_size": 8 << 20,
            "reconnect_backoff_max_ms": 2000,  # default: half a minute, in which packets pile up
        }
        given = {**ours, **settings.producer, "allow_auto_create_topics": False}
        self._producer = connect(KafkaProducer, settings, **given)
        self._bound = in_flight_bytes
        self._changed = threading.Condition()
        self._failed: list[tuple[int, str, str]] = []  # undelivered messages: number, name, reason
        self._open: dict[int, None] = {}  # numbers of messages that are not in the log, in order
        self.in_flight = 0  # bytes
        self.messages = 0  # messages handed over
        self.undelivered = 0
        self.partitions = self._count_partitions()

    def _count_partitions(self) -> int:
        try:
            found = self._producer.partitions_for(self.topic)
        except KafkaError as error:
            found, reason = None, explain(error)
        else:
            reason = NO_TOPIC
        if not found:
            self.close(0)
            raise KafkaBusError(f"topic {self.topic}: {reason}")
        return len(found)

    def publish(
        self, partition: int, value: bytes | None, key: bytes | None = None, *,
        about: str = "a message", headers: Sequence[tuple[str, bytes]] = (),
        packets: int = 0,  # noqa: ARG002 -- for buses that count them
    ) -> None:  # fmt: skip
        """Append a message; blocks while too many bytes are in flight. ``about``: its name in an error.

        Raises UndeliveredError once an earlier message has failed.
        """
        if not 0 <= partition < self.partitions:
            raise ValueError(f"partition {partition} is not one of {self.partitions}")
        size = len(value or b"") + len(key or b"")
        with self._changed:
            self._changed.wait_for(
                lambda: self._failed or not self.in_flight or self.in_flight + size <= self._bound
            )
            self.check()
            self.in_flight += size
            self.messages += 1
            number = self.messages
            self._open[number] = None
        try:
            future = self._producer.send(self.topic, value, key, list(headers), partition)
        except (KafkaError, AssertionError) as error:
            self._lost(size, number, about, error)
            self.check()
            return
        future.add_callback(lambda _: self._done(size, number))
        future.add_errback(lambda error: self._lost(size, number, about, error))

    def _done(self, size: int, number: int) -> None:
        with self._changed:
            self.in_flight -= size
            del self._open[number]
            self._changed.notify_all()

    def _lost(self, size: int, number: int, about: str, error: BaseException) -> None:
        with self._changed:
            self.in_flight -= size
            self.undelivered += 1
            self._failed.append((number, about, explain(error)))
            self._changed.notify_all()

    def check(self) -> None:
        """Raise UndeliveredError if a message could not be delivered."""
        if self._failed:
            number, about, reason = min(self._failed)
            raise UndeliveredError(about, self.undelivered, reason, number)

    @property
    def acknowledged(self) -> int:
        """Number of messages that are in the log together with all before them."""
        with self._changed:
            return next(iter(self._open), self.messages + 1) - 1

    @property
    def behind(self) -> bool:
        """Whether more than half of the allowed bytes are in flight."""
        return self.in_flight * 2 > self._bound

    def flush(self) -> None:
        """Wait until all messages are in the log. Raises UndeliveredError."""
        with self._changed:
            self._changed.wait_for(lambda: self.in_flight == 0)
            self.check()

    def close(self, timeout: float = 5.0) -> None:
        """Close; messages still in flight after ``timeout`` seconds are dropped."""
        try:
            self._producer.close(timeout=timeout)
        except KafkaError as error:
            logger.warning("producer closed: topic=%s error=%s", self.topic, explain(error))


@dataclass(frozen=True, slots=True)
class Change:
    """A partition was assigned to this member, revoked, or lost without notice."""

    kind: str  # assigned, revoked or lost
    partition: int


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Called on the client's own thread, where nothing may block: it only pauses and notes."""

    def __init__(self, subscriber: KafkaSubscriber) -> None:
        self._subscriber = subscriber

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._subscriber.hold(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._subscriber.note("revoked", revoked)

    def on_partitions_lost(self, lost: Any) -> None:
        self._subscriber.note("lost", lost)


class KafkaSubscriber:
    """A member of a consumer group on one topic.

    ``changes`` gives the partitions that came and went since the last call. A new partition gives no messages until
    ``seek``. Committed offsets are only for others to see: the caller knows where to continue.
    """

    def __init__(
        self, settings: KafkaSettings, topic: str, group: str, *,
        instance: str | None = None, stop_at_end: bool = False, most: int = 8,
    ) -> None:  # fmt: skip
        """``instance``: name of a static member. ``most``: messages a poll. Raises KafkaBusError."""
        self.topic = settings.topic(topic)
        ours = {
            "max_poll_records": most, "fetch_max_bytes": FETCH_BYTES, "max_partition_fetch_bytes": 4 << 20,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
        }  # fmt: skip
        fixed = {
            "auto_offset_reset": "none", "enable_auto_commit": False, "allow_auto_create_topics": False,
            "group_id": group, "group_instance_id": instance,
        }  # fmt: skip
        self._consumer = connect(KafkaConsumer, settings, **{**ours, **settings.consumer, **fixed})
        self._changes: deque[Change] = deque()
        self._stop_at_end = stop_at_end
        self._ends: dict[int, int] = {}  # offsets at which to stop
        self._sought: set[int] = set()  # partitions held whose position is known
        self._paused = False
        self._empty_since: float | None = None  # time since which this member has had no partitions
        self.rebalances = 0
        try:
            _ = self.partitions  # the client learns them, for the group's leader to divide
        except KafkaBusError:
            self._consumer.close(autocommit=False)
            raise
        self._consumer.subscribe([self.topic], listener=_Listener(self))

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def hold(self, assigned: Any) -> None:
        """Keep new partitions from being fetched until the caller seeks. Called by the client."""
        for at in assigned:
            self._sought.discard(at.partition)
            self._consumer.pause(at)
            self._consumer.seek(at, 0)  # any position, else the client looks for a committed offset
        self.note("assigned", assigned)

    def note(self, kind: str, partitions: Any) -> None:
        """Note a change. Called by the client."""
        self.rebalances += 1
        self._changes.extend(Change(kind, at.partition) for at in sorted(partitions))

    def changes(self) -> list[Change]:
        """Changes since the last call, in order."""
        return [self._changes.popleft() for _ in range(len(self._changes))]

    def poll(self, timeout: float | None = 1.0, most: int | None = None) -> list[Message] | None:
        """The next messages of all sought partitions, [] after the timeout.

        With ``stop_at_end``, None once every held partition has given all that its log held when it was assigned.
        Raises KafkaBusError, also when an offset is no longer in the log.
        """
        self._resume_join()
        if self._stop_at_end and not self.joined:
            self._empty_since = None
        elif self._stop_at_end and not self._changes and self._all_read():
            return None
        try:
            records = self._consumer.poll(
                round(1000 * (1.0 if timeout is None else timeout)), max_records=most
            )
        except OffsetOutOfRangeError as error:
            where = ", ".join(f"{at.partition} at offset {offset}" for at, offset in error.args[0].items())
            raise KafkaBusError(f"topic {self.topic}: no longer in the log: partition {where}") from None
        except NoOffsetForPartitionError:  # assigned a moment ago, before ``hold`` gave it a position
            return []
        except KafkaError as error:
            if getattr(error, "retriable", False):
                logger.warning("poll: topic=%s error=%s", self.topic, explain(error))
                return []
            raise KafkaBusError(f"topic {self.topic}: {explain(error)}") from None
        return [
            Message(at.partition, record.offset, record.value or b"", record.timestamp * 1e-3)
            for at in sorted(records)
            for record in records[at]
        ]

    def _resume_join(self) -> None:
        """Make the client finish a join that it has forgotten.

        kafka-python (3.0) joins again when the topic's metadata changed, and clears that reason while it joins. If the
        poll's time runs out in between, later polls see no reason to join and leave the answer unread: the member sends
        no heartbeats, cannot commit, and never comes back to the group.
        """
        coordinator = self._consumer._coordinator  # no public call makes a member join
        if coordinator.rebalance_in_progress() and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    @property
    def joined(self) -> bool:
        """Whether this is a member now, perhaps without partitions; false during a rebalance or after a loss."""
        group = self._consumer.group_metadata()
        return group.state is MemberState.STABLE and group.generation_id >= 0

    def _all_read(self) -> bool:
        held = [at.partition for at in self._consumer.assignment()]
        if not held:  # partitions may come with the second round of a cooperative rebalance
            now = time.monotonic()
            self._empty_since = self._empty_since or now
            return now - self._empty_since > EMPTY_SECONDS
        self._empty_since = None
        return all(p in self._ends and (self.position(p) or 0) >= self._ends[p] for p in held)

    def position(self, partition: int) -> int | None:
        """Offset of the message that poll gives next; None when the partition is not held."""
        try:
            at: int | None = self._consumer.position(self._at(partition), timeout_ms=0)
        except (KafkaError, *STALE):
            return None
        return at

    def seek(self, partition: int, offset: int) -> None:
        """Read on from ``offset``. Does nothing when the partition was taken away: ``changes`` reports that."""
        try:
            self._consumer.seek(self._at(partition), offset)
            self._sought.add(partition)
            if not self._paused:
                self._consumer.resume(self._at(partition))
        except STALE:
            logger.info("seek: partition=%d was taken away", partition)

    def pause(self) -> None:
        """Fetch nothing until ``resume``, but stay in the group: for callers that cannot keep up."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(*self._consumer.assignment())

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._consumer.resume(*(at for at in self._consumer.assignment() if at.partition in self._sought))

    def log(self, partition: int) -> tuple[int, int]:
        """First offset in the log, and the one after the last; ``stop_at_end`` stops there."""
        at = self._at(partition)
        begin = self._ask(lambda: self._consumer.beginning_offsets([at])[at])
        end = self._ask(lambda: self._consumer.end_offsets([at])[at])
        self._ends.setdefault(partition, end)
        return begin, end

    def committed(self, partition: int) -> int | None:
        """The group's committed offset, None without one."""
        offset: int | None = self._ask(
            lambda: self._consumer.committed(self._at(partition), timeout_ms=10_000)
        )
        return offset

    def _ask(self, question: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Ask the cluster; repeat while it is between two leaders."""
        ends = time.monotonic() + seconds
        while True:
            try:
                return question()
            except KafkaError as error:
                if time.monotonic() > ends:
                    raise KafkaBusError(f"topic {self.topic}: {explain(error)}") from None
                time.sleep(0.2)

    def commit(self, partition: int, offset: int) -> bool:
        """Tell the group that messages before ``offset`` are done; False when it refused."""
        try:
            self._consumer.commit({self._at(partition): OffsetAndMetadata(offset, "", -1)}, timeout_ms=5_000)
        except (RebalanceInProgressError, CommitFailedError, KafkaError, AssertionError) as error:
            logger.info("commit: partition=%d offset=%d error=%s", partition, offset, explain(error))
            return False
        return True

    def lag(self, partition: int) -> int | None:
        """Messages in the log and not yet polled, as of the last fetch; None when unknown."""
        try:
            high, at = self._consumer.highwater(self._at(partition)), self.position(partition)
        except STALE:
            return None
        return None if high is None or at is None else max(0, high - at)

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic."""
        ends = time.monotonic() + TOPIC_SECONDS
        while not (found := self._ask(lambda: self._consumer.partitions_for_topic(self.topic))):
            if time.monotonic() > ends:  # between two leaders a client may know of none for a moment
                raise KafkaBusError(f"topic {self.topic}: {NO_TOPIC}")
            time.sleep(0.2)
        return len(found)

    def close(self) -> None:
        """Leave the group; a static member keeps its partitions until the session times out."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=5_000)
        except KafkaError as error:
            logger.warning("consumer closed: topic=%s error=%s", self.topic, explain(error))
