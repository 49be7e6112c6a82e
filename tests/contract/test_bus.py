"""The contract of every bus: order, offsets, each message once, back-pressure, seek and commit.

To add a bus, add it to BUSES and ``new``.
"""

from __future__ import annotations

import queue
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connectors.bus.memory import BusClosedError, MemoryBus
from tests.contract.group_pair import GroupPair, kafka_pair, memory_pair

NewBus = Callable[[int, int], Any]  # number of partitions, capacity of a partition -> bus
SECONDS = 10  # seconds after which a waiting test fails

BUSES = ["memory", "memory group", pytest.param("kafka", marks=pytest.mark.kafka)]
embedded_only = pytest.mark.parametrize(
    "new", ["memory"], indirect=True
)  # tests of behaviour that only a bus in one process has


@pytest.fixture(params=BUSES)
def new(request: pytest.FixtureRequest) -> Iterator[NewBus]:
    """Factory of one kind of bus; a log has room for all messages, whatever the capacity."""
    made: list[GroupPair] = []
    if request.param == "memory":
        yield MemoryBus
    elif request.param == "memory group":
        yield lambda partitions, _: memory_pair(partitions)
    else:
        address = request.getfixturevalue("kafka_address")

        def make(partitions: int, _: int) -> GroupPair:
            made.append(kafka_pair(address, partitions))
            return made[-1]

        yield make
    for pair in made:
        pair.close()


def in_thread(work: Callable[[], Any]) -> queue.Queue[Any]:
    """Start ``work``; the queue receives what it returns or raises."""
    result: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            result.put(work())
        except BaseException as error:
            result.put(error)

    threading.Thread(target=run, daemon=True).start()
    return result


def still_waits(result: queue.Queue[Any]) -> bool:
    try:
        result.get(timeout=0.05)
    except queue.Empty:
        return True
    return False


def drain(bus: Any, commit: bool = True) -> list[tuple[int, int, bytes]]:
    """All messages up to the end of the bus."""
    got = []
    while (messages := bus.poll(timeout=SECONDS)) is not None:
        for message in messages:
            got.append((message.partition, message.offset, message.value))
            if commit:
                bus.commit(message.partition, message.offset + 1)
    return got


def test_each_message_comes_once_and_in_order_with_offsets_from_zero(new: NewBus) -> None:
    bus = new(3, 100)
    for k in range(90):
        bus.publish(k % 3, str(k).encode())
    bus.end()
    got = drain(bus)
    for partition in range(3):
        mine = [(offset, value) for p, offset, value in got if p == partition]
        assert mine == [(k, str(3 * k + partition).encode()) for k in range(30)]


def test_a_poll_gives_at_most_the_requested_number_of_messages(new: NewBus) -> None:
    bus = new(2, 100)
    for k in range(20):
        bus.publish(k % 2, b"x")
    assert [len(bus.poll(0, most=7) or []) for _ in range(4)] == [7, 7, 6, 0]


def test_a_poll_without_messages_gives_an_empty_list_after_the_timeout(new: NewBus) -> None:
    assert new(1, 1).poll(timeout=0.01) == []


def test_a_waiting_poll_gets_the_message_that_comes(new: NewBus) -> None:
    bus = new(1, 1)
    polled = in_thread(lambda: bus.poll(timeout=SECONDS))
    assert still_waits(polled)
    bus.publish(0, b"late")
    assert [m.value for m in polled.get(timeout=SECONDS)] == [b"late"]


@embedded_only
def test_a_full_partition_blocks_its_publisher_until_messages_are_committed(new: NewBus) -> None:
    bus = new(2, 2)
    bus.publish(0, b"a")
    bus.publish(0, b"b")
    third = in_thread(lambda: bus.publish(0, b"c"))
    assert still_waits(third)
    assert bus.publish(1, b"other partitions have room") == 0
    bus.poll(0)
    assert still_waits(third)  # polled messages are kept, since they may be read again
    bus.commit(0, 1)
    assert third.get(timeout=SECONDS) == 2


def test_uncommitted_messages_come_again_after_a_seek(new: NewBus) -> None:
    bus = new(1, 10)
    for k in range(5):
        bus.publish(0, str(k).encode())
    bus.poll(0)
    bus.commit(0, 2)
    bus.seek(0, 2)
    again = bus.poll(0)
    assert again is not None
    assert [(m.offset, m.value) for m in again] == [(2, b"2"), (3, b"3"), (4, b"4")]


def test_a_seek_forward_skips_messages(new: NewBus) -> None:
    bus = new(1, 10)
    for _ in range(4):
        bus.publish(0, b"x")
    bus.seek(0, 3)
    assert [m.offset for m in bus.poll(0) or []] == [3]


@embedded_only
@pytest.mark.parametrize("offset", [0, 1, 5, -1])
def test_a_seek_to_a_dropped_or_future_offset_is_refused(new: NewBus, offset: int) -> None:
    bus = new(1, 10)
    for _ in range(4):
        bus.publish(0, b"x")
    bus.poll(0)
    bus.commit(0, 2)
    with pytest.raises(ValueError, match=f"{offset} must be in 2..4"):
        bus.seek(0, offset)


@embedded_only
def test_messages_never_polled_cannot_be_committed(new: NewBus) -> None:
    bus = new(1, 10)
    bus.publish(0, b"x")
    with pytest.raises(ValueError, match="offset 1 is past 0"):
        bus.commit(0, 1)
    assert [m.value for m in bus.poll(0) or []] == [b"x"]


def test_a_repeated_or_earlier_commit_changes_nothing(new: NewBus) -> None:
    bus = new(1, 10)
    for _ in range(3):
        bus.publish(0, b"x")
    bus.poll(0)
    for offset in (2, 2, 1):
        bus.commit(0, offset)
    bus.seek(0, 2)
    assert [m.offset for m in bus.poll(0) or []] == [2]


def test_positions_and_lag_follow_polls_and_seeks(new: NewBus) -> None:
    bus = new(2, 10)
    assert (bus.position(0), bus.lag(0)) == (0, 0)
    for _ in range(3):
        bus.publish(0, b"x")
    assert (bus.position(0), bus.lag(0)) == (0, 3)
    bus.poll(0, most=2)
    assert (bus.position(0), bus.lag(0)) == (2, 1)
    bus.seek(0, 1)
    assert (bus.position(0), bus.lag(0)) == (1, 2)
    assert (bus.position(1), bus.lag(1)) == (0, 0)


@embedded_only
def test_an_ended_bus_gives_its_remaining_messages_and_then_none(new: NewBus) -> None:
    bus = new(1, 10)
    bus.publish(0, b"x")
    bus.end()
    assert [m.value for m in bus.poll() or []] == [b"x"]
    assert bus.poll() is None
    assert bus.poll() is None


@embedded_only
def test_an_end_wakes_a_waiting_poll(new: NewBus) -> None:
    bus = new(1, 1)
    polled = in_thread(bus.poll)
    assert still_waits(polled)
    bus.end()
    assert polled.get(timeout=SECONDS) is None


@embedded_only
def test_the_publishers_error_arrives_after_its_last_message(new: NewBus) -> None:
    bus = new(2, 10)
    bus.publish(0, b"x")
    bus.publish(1, b"y")
    bus.end(OSError("damaged at byte 7"))
    assert len(bus.poll(most=1) or []) == 1
    assert len(bus.poll(most=1) or []) == 1
    with pytest.raises(OSError, match="damaged at byte 7"):
        bus.poll()


@embedded_only
def test_an_end_after_an_end_does_not_hide_the_error(new: NewBus) -> None:
    bus = new(1, 10)
    bus.end(OSError("damaged"))
    bus.end()
    with pytest.raises(OSError, match="damaged"):
        bus.poll()


@embedded_only
def test_an_ended_bus_releases_a_blocked_publisher_and_accepts_no_more_messages(new: NewBus) -> None:
    bus = new(1, 1)
    bus.publish(0, b"x")
    blocked = in_thread(lambda: bus.publish(0, b"y"))
    assert still_waits(blocked)
    bus.end()
    assert isinstance(blocked.get(timeout=SECONDS), BusClosedError)
    with pytest.raises(BusClosedError):
        bus.publish(0, b"z")
    assert [m.value for m in bus.poll() or []] == [b"x"]


@pytest.mark.parametrize("partition", [-1, 2])
def test_a_partition_that_does_not_exist_is_refused(new: NewBus, partition: int) -> None:
    with pytest.raises(ValueError, match=f"partition {partition} is not one of 2"):
        new(2, 1).publish(partition, b"x")


@embedded_only
def test_no_partition_waits_for_ever_behind_a_busy_one(new: NewBus) -> None:
    bus = new(3, 4)
    for partition in (0, 1, 2):
        for _ in range(4):
            bus.publish(partition, b"x")
    seen = set()
    for _ in range(3):
        for message in bus.poll(0, most=2) or []:
            seen.add(message.partition)
            bus.commit(message.partition, message.offset + 1)
            bus.publish(message.partition, b"and at once another")
    assert seen == {0, 1, 2}


def test_many_publishers_and_a_slow_reader_lose_nothing(new: NewBus) -> None:
    bus = new(4, 3)

    def publish(partition: int) -> None:
        for k in range(200):
            bus.publish(partition, k.to_bytes(2, "big"))

    def all_publish() -> None:
        threads = [threading.Thread(target=publish, args=(p,)) for p in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bus.end()

    done = in_thread(all_publish)
    got = drain(bus)
    done.get(timeout=SECONDS)
    for partition in range(4):
        assert [v for p, _, v in got if p == partition] == [k.to_bytes(2, "big") for k in range(200)]


@embedded_only
def test_memory_does_not_grow_with_the_number_of_messages(new: NewBus) -> None:
    bus = new(1, 4)
    tracemalloc.start()
    try:
        for k in range(3000):
            bus.publish(0, k.to_bytes(4, "big") * 1024)
            for message in bus.poll(0) or []:
                bus.commit(0, message.offset + 1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000  # 3,000 messages of 4 KiB passed


def test_a_bus_without_partitions_or_room_is_refused() -> None:
    for partitions, capacity in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            MemoryBus(partitions, capacity)
