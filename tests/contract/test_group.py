"""The contract of every consumer group: one owner for each partition, no messages before a seek, shared commits.

To add a group, add it to GROUPS and ``site``. A member has the Protocol GroupBus of
engine/consumer/member.py.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from kafka import KafkaAdminClient, TopicPartition

from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaBusError, KafkaSettings
from connectors.bus.kafka_topics import PACKETS, Admin
from connectors.bus.memory import Message
from connectors.bus.memory_group import MemoryGroup
from connectors.bus.memory_topic import MemoryTopic, OffsetError

SECONDS = 30  # seconds after which a waiting test fails
CONSUMER = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 300}
GROUPS = ["memory", pytest.param("kafka", marks=pytest.mark.kafka)]


class Site(Protocol):
    """A topic of two partitions, and a group on it."""

    def publish(self, partition: int, *values: bytes) -> None: ...
    def trim(self, partition: int, first: int) -> None: ...
    def grow(self, partitions: int) -> None: ...
    def join(self, stop_at_end: bool = False) -> Any: ...
    def close(self) -> None: ...


class InMemory:
    """A site in memory."""

    def __init__(self) -> None:
        self._topic = MemoryTopic(2)
        self._group = MemoryGroup(self._topic)
        self.trim, self.grow = self._topic.trim, self._topic.grow

    def publish(self, partition: int, *values: bytes) -> None:
        for value in values:
            self._topic.publish(partition, value)

    def join(self, stop_at_end: bool = False) -> Any:
        return self._group.join(stop_at_end=stop_at_end)

    def close(self) -> None:
        """Do nothing."""


class InKafka:
    """A site in a cluster."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._settings = KafkaSettings((address,), prefix=f"c{uuid.uuid4().hex[:10]}.", consumer=CONSUMER)
        with Admin(self._settings) as admin:
            admin.create(2, 1, 24)
        self._publisher = KafkaPublisher(self._settings, PACKETS)
        self._members: list[KafkaSubscriber] = []

    def publish(self, partition: int, *values: bytes) -> None:
        for value in values:
            self._publisher.publish(partition, value)
        self._publisher.flush()

    def _change(self, change: Callable[[Any], object]) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self._address)
        change(admin)
        admin.close()

    def trim(self, partition: int, first: int) -> None:
        at = TopicPartition(self._settings.topic(PACKETS), partition)
        self._change(lambda admin: admin.delete_records({at: first}))

    def grow(self, partitions: int) -> None:
        self._change(lambda admin: admin.create_partitions({self._settings.topic(PACKETS): partitions}))

    def join(self, stop_at_end: bool = False) -> Any:
        member = KafkaSubscriber(self._settings, PACKETS, self._settings.prefix, stop_at_end=stop_at_end)
        self._members.append(member)
        return member

    def close(self) -> None:
        for member in self._members:
            member.close()
        self._publisher.close()


@pytest.fixture(params=GROUPS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    made: Site = (
        InMemory() if request.param == "memory" else InKafka(request.getfixturevalue("kafka_address"))
    )
    yield made
    made.close()


class Reader:
    """A member with the changes and messages it got; it seeks only on request."""

    def __init__(self, member: Any, seek: bool = True) -> None:
        """``seek``: whether to read each assigned partition from the start of its log."""
        self.member, self._seek = member, seek
        self.told: list[tuple[str, int]] = []
        self.held: set[int] = set()
        self.got: list[Message] = []
        self.ended = False

    def poll(self) -> None:
        messages = self.member.poll(0.05)
        self.ended = messages is None
        for change in self.member.changes():
            self.told.append((change.kind, change.partition))
            self.held.discard(change.partition)
            if change.kind == "assigned":
                self.held.add(change.partition)
                if self._seek:
                    self.member.seek(change.partition, self.member.log(change.partition)[0])
        self.got += messages or []

    def offsets(self, partition: int) -> list[int]:
        return [m.offset for m in self.got if m.partition == partition]


def until(condition: Callable[[], object], *readers: Reader) -> None:
    """Poll all members in turn until the condition holds."""
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends, [reader.told for reader in readers]
        for reader in readers:
            reader.poll()


def sharing(site: Site) -> tuple[Reader, Reader]:
    """Two members with a partition each."""
    first = Reader(site.join())
    until(lambda: first.held == {0, 1}, first)
    second = Reader(site.join())
    until(lambda: len(first.held) == len(second.held) == 1, first, second)
    return first, second


def committed(reader: Reader, partition: int, offset: int) -> None:
    """Commit, after a few polls if the group is still dividing its partitions."""
    until(lambda: reader.member.joined and reader.member.commit(partition, offset), reader)


def test_an_assigned_partition_gives_no_messages_before_a_seek(site: Site) -> None:
    site.publish(0, b"a", b"b", b"c")
    site.publish(1, b"d")
    reader = Reader(site.join(), seek=False)
    until(lambda: reader.held == {0, 1}, reader)
    for _ in range(5):
        reader.poll()
    assert reader.got == []
    reader.member.seek(0, 1)
    until(lambda: len(reader.got) == 2, reader)
    for _ in range(5):
        reader.poll()
    assert [(m.partition, m.offset, m.value) for m in reader.got] == [(0, 1, b"b"), (0, 2, b"c")]


def test_each_assigned_partition_is_reported_once(site: Site) -> None:
    reader = Reader(site.join())
    assert not reader.member.joined
    until(lambda: reader.member.joined, reader)
    assert sorted(reader.told) == [("assigned", 0), ("assigned", 1)]
    assert reader.member.changes() == []
    assert reader.member.partitions == 2


def test_a_second_member_gets_the_partition_that_the_first_must_give_up(site: Site) -> None:
    first, second = sharing(site)
    assert first.held | second.held == {0, 1}
    (moved,) = second.held
    assert first.told[2:] == [("revoked", moved)]
    assert second.told == [("assigned", moved)]


def test_each_message_reaches_the_member_that_has_its_partition_and_no_other(site: Site) -> None:
    first, second = sharing(site)
    site.publish(0, b"a", b"b")
    site.publish(1, b"c")
    until(lambda: len(first.got) + len(second.got) == 3, first, second)
    for reader in (first, second):
        assert {m.partition for m in reader.got} == reader.held


def test_the_partitions_of_a_member_that_leaves_go_to_the_others(site: Site) -> None:
    first, second = sharing(site)
    second.member.close()
    until(lambda: first.held == {0, 1}, first)


def test_a_committed_offset_is_seen_by_the_next_member(site: Site) -> None:
    site.publish(0, b"a", b"b", b"c")
    first = Reader(site.join())
    assert first.member.committed(0) is None
    until(lambda: len(first.got) == 3, first)
    committed(first, 0, 2)
    assert first.member.committed(0) == 2
    first.member.close()
    second = Reader(site.join())
    until(lambda: second.held == {0, 1}, second)
    assert second.member.committed(0) == 2
    assert second.member.committed(1) is None


def test_a_paused_member_gives_no_messages_and_later_continues_where_it_was(site: Site) -> None:
    site.publish(0, b"a", b"b")
    reader = Reader(site.join())
    until(lambda: len(reader.got) == 2, reader)
    reader.member.pause()
    site.publish(0, b"c", b"d")
    for _ in range(10):
        reader.poll()
    assert len(reader.got) == 2
    reader.member.resume()
    until(lambda: len(reader.got) == 4, reader)
    assert reader.offsets(0) == [0, 1, 2, 3]
    assert reader.told == [("assigned", 0), ("assigned", 1)]


def test_a_pause_holds_for_partitions_sought_while_it_lasts(site: Site) -> None:
    site.publish(0, b"a")
    reader = Reader(site.join())
    reader.member.pause()
    until(lambda: reader.held == {0, 1}, reader)
    for _ in range(10):
        reader.poll()
    assert reader.got == []
    reader.member.resume()
    until(lambda: reader.got, reader)


def test_the_bounds_of_the_log_follow_publishing_and_retention(site: Site) -> None:
    reader = Reader(site.join())
    until(lambda: reader.held == {0, 1}, reader)
    assert reader.member.log(0) == (0, 0)
    site.publish(0, b"a", b"b", b"c", b"d")
    assert reader.member.log(0) == (0, 4)
    site.trim(0, 3)
    assert reader.member.log(0) == (3, 4)
    assert reader.member.log(1) == (0, 0)


def test_messages_deleted_by_retention_are_an_error_and_not_skipped(site: Site) -> None:
    site.publish(0, b"a", b"b", b"c", b"d")
    site.trim(0, 3)
    reader = Reader(site.join(), seek=False)
    until(lambda: reader.held == {0, 1}, reader)
    reader.member.seek(0, 1)
    with pytest.raises((KafkaBusError, OffsetError), match="offset 1"):
        until(lambda: reader.got, reader)


def test_a_member_that_stops_at_the_end_reads_the_log_and_no_later_messages(site: Site) -> None:
    site.publish(0, b"a", b"b")
    site.publish(1, b"c")
    reader = Reader(site.join(stop_at_end=True))
    until(lambda: reader.held == {0, 1}, reader)
    assert not reader.ended
    until(lambda: reader.ended, reader)
    assert sorted((m.partition, m.offset) for m in reader.got) == [(0, 0), (0, 1), (1, 0)]


def test_lag_and_position_are_those_of_held_partitions(site: Site) -> None:
    site.publish(0, b"a", b"b", b"c")
    first = Reader(site.join(), seek=False)
    until(lambda: first.held == {0, 1}, first)
    first.member.seek(0, 1)
    until(lambda: first.got, first)
    until(lambda: (first.member.position(0), first.member.lag(0)) == (3, 0), first)
    second = Reader(site.join())
    until(lambda: len(first.held) == len(second.held) == 1, first, second)
    (gone,) = second.held
    assert (first.member.position(gone), first.member.lag(gone)) == (None, None)
    first.member.seek(gone, 0)  # another member has it by now: nothing happens
    assert first.member.position(gone) is None


def test_new_partitions_are_divided_too(site: Site) -> None:
    reader = Reader(site.join())
    until(lambda: reader.held == {0, 1}, reader)
    site.grow(4)
    until(lambda: reader.held == {0, 1, 2, 3}, reader)
    assert reader.member.partitions == 4
