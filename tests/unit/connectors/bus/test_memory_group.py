"""What may happen to a topic and a group in memory, where Kafka's clock and network would have a say."""

from __future__ import annotations

import pytest

from connectors.bus.memory_group import MemoryGroup, MemoryMember
from connectors.bus.memory_topic import MemoryTopic, OffsetError


def topic(*messages: int) -> MemoryTopic:
    """A topic with so many messages in each partition."""
    made = MemoryTopic(len(messages))
    for partition, n in enumerate(messages):
        for k in range(n):
            made.publish(partition, bytes([k]))
    return made


def offsets(some: MemoryTopic, partition: int, offset: int) -> list[int]:
    return [m.offset for m in some.read(partition, offset, 100)]


def told(member: MemoryMember) -> list[tuple[str, int]]:
    return [(change.kind, change.partition) for change in member.changes()]


def test_a_log_that_was_trimmed_begins_later_and_keeps_its_offsets() -> None:
    some = topic(5)
    some.trim(0, 3)
    assert some.log(0) == (3, 5)
    assert offsets(some, 0, 3) == [3, 4]
    with pytest.raises(OffsetError, match=r"partition 0: offset 2 is outside 3\.\.5"):
        some.read(0, 2, 1)
    assert some.publish(0, b"x") == 5


def test_a_log_trimmed_past_its_end_is_empty_and_goes_on_from_there() -> None:
    some = topic(2)
    some.trim(0, 7)
    assert some.log(0) == (7, 7)
    assert some.publish(0, b"x") == 7


def test_a_log_that_was_truncated_gives_its_offsets_again() -> None:
    some = topic(5)
    some.truncate(0, 2)
    assert some.log(0) == (0, 2)
    with pytest.raises(OffsetError, match=r"offset 4 is outside 0\.\.2"):
        some.read(0, 4, 1)
    assert some.publish(0, b"x") == 2


def test_reading_across_a_gap_goes_on_behind_it() -> None:
    some = topic(2)
    some.skip(0, 3)
    assert some.publish(0, b"x") == 5
    assert offsets(some, 0, 0) == [0, 1, 5]
    assert offsets(some, 0, 3) == [5]
    assert some.log(0) == (0, 6)


def test_a_topic_recreated_is_empty_and_has_another_id() -> None:
    some = topic(2, 1)
    before = some.id
    some.recreate()
    assert some.id != before
    assert [some.log(partition) for partition in range(some.partitions)] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("partition", [-1, 1])
def test_a_partition_that_does_not_exist_is_refused(partition: int) -> None:
    with pytest.raises(ValueError, match=f"partition {partition} is not one of 1"):
        topic(0).publish(partition, b"x")
    with pytest.raises(ValueError, match="partitions 0 must be at least 1"):
        MemoryTopic(0)


def test_members_keep_what_they_have_when_another_joins_or_leaves() -> None:
    group = MemoryGroup(MemoryTopic(5))
    first = group.join()
    assert told(first) == [("assigned", p) for p in range(5)]
    second = group.join()
    assert (told(first), told(second)) == (
        [("revoked", 3), ("revoked", 4)],
        [("assigned", 3), ("assigned", 4)],
    )
    third = group.join()
    assert (told(first), told(second), told(third)) == ([("revoked", 2)], [], [("assigned", 2)])
    second.close()
    assert (told(first), told(third)) == ([("assigned", 3)], [("assigned", 4)])


def test_a_member_that_expired_lost_its_partitions_and_joins_again_when_it_polls() -> None:
    group = MemoryGroup(topic(1, 1))
    first, second = group.join(), group.join()
    first.poll()
    second.poll()
    told(first)
    told(second)
    first.seek(0, 0)
    group.expire(first)
    joined = [first.joined]
    assert told(first) == [("lost", 0)]
    assert told(second) == [("assigned", 0)]
    assert first.position(0) is None
    assert first.poll() == []
    assert [*joined, first.joined] == [False, True]
    assert told(first) == [("assigned", 1)]
    assert told(second) == [("revoked", 1)]


def test_a_member_that_has_not_polled_since_a_rebalance_cannot_commit() -> None:
    group = MemoryGroup(topic(3, 3))
    first = group.join()
    first.poll()
    assert first.commit(0, 1)
    group.rebalance()
    assert not first.joined
    assert not first.commit(0, 2)
    assert group.committed == {0: 1}
    first.poll()
    assert first.commit(0, 2)


def test_a_fenced_member_cannot_commit_until_it_is_not() -> None:
    group = MemoryGroup(topic(3))
    member = group.join()
    member.poll()
    member.fenced = True
    assert not member.commit(0, 2)
    assert member.committed(0) is None
    member.fenced = False
    assert member.commit(0, 2)


def test_a_partition_can_be_moved_by_hand() -> None:
    group = MemoryGroup(topic(2, 2))
    first, second = group.join(), group.join()
    told(first)
    told(second)
    group.move(0, second)
    assert (told(first), told(second)) == ([("revoked", 0)], [("assigned", 0)])
    second.seek(0, 1)
    assert [m.offset for m in second.poll() or []] == [1]


def test_no_partition_waits_for_ever_behind_a_busy_one() -> None:
    some = topic(50, 50, 50)
    member = MemoryGroup(some).join(most=2)
    member.poll()
    for partition in range(3):
        member.seek(partition, 0)
    seen = [m.partition for _ in range(3) for m in member.poll() or []]
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]
