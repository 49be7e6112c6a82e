"""What waits for a bus that is down: order, bounds, what is given up, and what a restart finds."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.bus.disk_queue import DiskQueue, Held, SpillError
from connectors.bus.kafka import UndeliveredError
from connectors.bus.kafka_client import KafkaBusError
from connectors.bus.spill import Spill
from connectors.bus.spilling import Spilled, SpillingPublisher
from tests.support.disks import small_disk

KB = 1 << 10


def message(number: int, size: int = 100 * KB) -> Held:
    return Held(number % 4, 10, number.to_bytes(4, "big") * (size // 4), f"message {number}", number + 1)


def numbers(spill: Spill | DiskQueue) -> list[int]:
    """All that can be taken."""
    found = []
    while (taken := spill.take()) is not None:
        found.append(int.from_bytes(taken.value[:4], "big"))
    return found


def test_messages_leave_in_order_from_memory_and_disk(tmp_path: Path) -> None:
    spill = Spill(1000 * KB, tmp_path, 64 << 20)
    for k in range(40):
        spill.put(message(k))
    assert spill.memory_bytes <= 1000 * KB
    assert spill.disk_bytes > 2900 * KB
    assert spill.waiting_packets == 400
    taken = [spill.take() for _ in range(15)]
    assert all(m is not None and m.partition == int.from_bytes(m.value[:4], "big") % 4 for m in taken)
    spill.put(message(40))  # behind what is on the disk, although there is room in memory
    assert numbers(spill) == list(range(15, 41))
    assert spill.empty
    assert spill.waiting_packets == 410
    assert spill.release(41) == 410
    assert (spill.waiting_packets, spill.memory_bytes, spill.disk_bytes) == (0, 0, 0)
    spill.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_disk_the_oldest_in_memory_are_given_up() -> None:
    spill = Spill(1000 * KB)
    for k in range(25):
        spill.put(message(k))
    assert (spill.dropped_packets, spill.waiting_packets) == (150, 100)
    assert numbers(spill) == list(range(15, 25))


def test_what_was_taken_is_not_given_up() -> None:
    spill = Spill(500 * KB)
    for k in range(5):
        spill.put(message(k))
    assert [spill.take() for _ in range(5)][-1] is not None
    spill.put(message(5))  # no room: the others are on their way
    assert spill.dropped_packets == 10
    spill.rewind()
    assert numbers(spill) == [0, 1, 2, 3, 4]


def test_a_full_disk_ring_gives_up_its_oldest_and_keeps_the_newest(tmp_path: Path) -> None:
    spill = Spill(200 * KB, tmp_path, 2 << 20)
    for k in range(200):
        spill.put(message(k))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 2 << 20
    left = numbers(spill)
    assert left[:2] == [0, 1]  # in memory
    assert left[2:] == list(range(200 - len(left) + 2, 200))
    assert len(left) > 15
    assert spill.dropped_packets + 10 * len(left) == 2000


def test_taken_messages_come_once_more_after_a_rewind_first_and_in_order(tmp_path: Path) -> None:
    spill = Spill(300 * KB, tmp_path, 64 << 20)
    for k in range(10):
        spill.put(message(k))
    for _ in range(6):
        spill.take()
    assert spill.release(2) == 20
    spill.rewind()
    assert spill.unreleased == 4
    assert numbers(spill) == list(range(2, 10))
    spill.rewind()
    assert numbers(spill) == list(range(2, 10))


def test_a_restart_finds_what_was_left_in_order(tmp_path: Path) -> None:
    first = Spill(500 * KB, tmp_path, 64 << 20)
    for k in range(20):
        first.put(message(k))
    for _ in range(8):
        first.take()
    first.release(3)
    assert first.close() == 0
    second = Spill(500 * KB, tmp_path, 64 << 20)
    assert second.taken_over == second.waiting_packets == 170
    second.put(message(20))
    assert numbers(second) == list(range(3, 21))
    second.release(18)
    second.close()
    assert Spill(500 * KB, tmp_path, 64 << 20).taken_over == 0


def test_a_crash_keeps_what_was_on_the_disk(tmp_path: Path) -> None:
    first = Spill(200 * KB, tmp_path, 64 << 20)
    for k in range(10):
        first.put(message(k))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("spill*"):  # as a kill would leave it
        (copy / path.name).write_bytes(path.read_bytes())
    assert numbers(Spill(0, copy, 64 << 20)) == list(range(2, 10))


def test_what_finds_no_room_at_the_end_is_counted() -> None:
    spill = Spill(1000 * KB)
    for k in range(3):
        spill.put(message(k))
    assert spill.close() == 30


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "spill-00.sqlite").write_bytes(b"not a database at all" * 500)
    spill = Spill(0, tmp_path, 64 << 20)
    spill.put(message(1))
    assert numbers(spill) == [1]


def test_processes_that_share_a_directory_have_a_file_each(tmp_path: Path) -> None:
    first, second = DiskQueue(tmp_path, 1 << 20), DiskQueue(tmp_path, 1 << 20)
    assert first.put(message(1))
    assert second.put(message(2))
    assert (numbers(first), numbers(second)) == ([1], [2])
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / "spill-00.sqlite", timeout=0).execute("SELECT * FROM message")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpillError, match=r"file/below.*Not a directory"):
        Spill(0, tmp_path / "file" / "below", 1 << 20)


def test_a_disk_that_is_full_costs_the_oldest_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        spill = Spill(0, disk / "spill", 64 << 20)
        for k in range(60):
            spill.put(message(k))
        left = numbers(spill)
        assert len(left) > 8
        assert left == list(range(60 - len(left), 60))
        assert spill.dropped_packets == 600 - 10 * len(left)
        spill.close()


def test_at_the_end_what_is_newer_than_the_disk_goes_behind_it(tmp_path: Path) -> None:
    spill = Spill(600 * KB, tmp_path, 64 << 20)
    for k in range(10):  # five in memory, five on the disk
        spill.put(message(k))
    for _ in range(10):
        spill.take()
    spill.release(7)
    spill.put(message(10))  # in memory again, behind what was taken from the disk
    spill.close()
    assert numbers(Spill(600 * KB, tmp_path, 64 << 20)) == [7, 8, 9, 10]


def test_the_newest_are_kept_also_of_what_came_back() -> None:
    spill = Spill(500 * KB)
    for k in range(5):
        spill.put(message(k))
    for _ in range(5):
        spill.take()
    spill.rewind()
    for k in range(5, 12):
        spill.put(message(k))
    assert numbers(spill) == [7, 8, 9, 10, 11]
    assert spill.dropped_packets == 70


def test_a_disk_that_takes_no_more_writes_costs_packets_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = Spill(0, tmp_path, 64 << 20)
    for k in range(3):
        spill.put(message(k))
    assert spill._disk is not None
    spill._disk._file.execute("PRAGMA query_only=ON")  # as if mounted read-only

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    spill.put(message(3))
    assert spill.dropped_packets == 10
    assert numbers(spill) == [0, 1, 2]
    assert spill.release(3) == 30
    spill.close()


class Log:
    """A bus that is up, down, or refuses one message."""

    partitions = 4

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.down = threading.Event()
        self.refuses: bytes | None = None
        self.connections = 0

    def connect(self) -> Connection:
        if self.down.is_set():
            raise KafkaBusError("connection refused")
        self.connections += 1
        return Connection(self)


class Connection:
    """Delivers in order, until it fails once."""

    def __init__(self, log: Log) -> None:
        self.partitions, self.log = log.partitions, log
        self.acknowledged = self.sent = 0
        self.failed: UndeliveredError | None = None

    def publish(self, partition: int, value: bytes, *, about: str) -> None:
        self.check()
        if partition >= self.partitions:
            raise ValueError(f"partition {partition} is not one of {self.partitions}")
        self.sent += 1
        if self.log.down.is_set():
            self.failed = UndeliveredError(about, 1, "KafkaTimeoutError", self.sent)
        elif value == self.log.refuses:
            self.failed = UndeliveredError(about, 1, "MessageSizeTooLargeError", self.sent)
        else:
            self.log.taken.append(value)
            if self.acknowledged == self.sent - 1:
                self.acknowledged = self.sent

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed

    def close(self, timeout: float = 5.0) -> None:
        """Nothing."""


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within 20 s")


def test_what_the_bus_did_not_take_goes_out_in_order_when_it_is_back() -> None:
    log = Log()
    publisher = SpillingPublisher(log.connect, Spill(64 << 20))
    values = [bytes([k]) * 10 for k in range(30)]
    for value in values[:10]:
        publisher.publish(0, value, about="a", packets=1)
    wait_for(lambda: publisher.spilled().published == 10)
    log.down.set()
    for value in values[10:20]:
        publisher.publish(0, value, about="a", packets=1)
    wait_for(lambda: not publisher.up)
    assert publisher.spilled().waiting == 10
    log.down.clear()
    for value in values[20:]:
        publisher.publish(0, value, about="a", packets=1)
    assert publisher.close(20.0) == Spilled(published=30)
    assert log.taken == values
    assert log.connections == 2


def test_a_message_the_bus_will_never_take_is_given_up_and_counted_and_the_rest_goes_on() -> None:
    log = Log()
    values = [bytes([k]) * 10 for k in range(10)]
    log.refuses = values[4]
    publisher = SpillingPublisher(log.connect, Spill(64 << 20))
    for value in values:
        publisher.publish(0, value, about="a", packets=3)
    assert publisher.close(20.0) == Spilled(published=27, bus=3)
    assert [v for v in dict.fromkeys(log.taken) if v] == values[:4] + values[5:]


def test_a_bus_that_stays_down_is_waited_for_and_then_its_loss_is_counted(tmp_path: Path) -> None:
    log = Log()
    publisher = SpillingPublisher(log.connect, Spill(64 << 20))
    log.down.set()
    for k in range(5):
        publisher.publish(0, bytes([k]), about="a", packets=7)
    assert publisher.close(0.3) == Spilled(bus=35)
    log.down.clear()
    kept = SpillingPublisher(log.connect, Spill(64 << 20, tmp_path, 1 << 20))
    log.down.set()
    for k in range(5):
        kept.publish(0, bytes([k]), about="a", packets=7)
    assert kept.close(0.3).waiting == 35
    log.down.clear()
    after = SpillingPublisher(log.connect, Spill(64 << 20, tmp_path, 1 << 20))
    assert after.close(20.0) == Spilled(published=35)


def test_a_message_for_a_partition_that_is_gone_is_given_up_and_counted() -> None:
    log = Log()
    publisher = SpillingPublisher(log.connect, Spill(64 << 20))
    for partition in (0, 7, 1):
        publisher.publish(partition, bytes([partition]), about="a", packets=5)
    assert publisher.close(20.0) == Spilled(published=10, bus=5)
    assert log.taken == [b"\0", b"\1"]


def test_a_sender_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(64 << 20)
    monkeypatch.setattr(spill, "take", lambda: 1 // 0)
    publisher = SpillingPublisher(Log().connect, spill)
    publisher.publish(0, b"x", about="a", packets=5)
    wait_for(lambda: publisher.problem is not None)
    assert not publisher.up
    assert publisher.close(0.1) == Spilled(bus=5)


def test_a_publisher_never_waits() -> None:
    log = Log()
    log.down.clear()
    publisher = SpillingPublisher(log.connect, Spill(1000 * KB))
    log.down.set()
    for k in range(100):
        publisher.publish(0, message(k).value, about="a", packets=1)
    spilled = publisher.spilled()
    assert spilled.queue + spilled.waiting == 100
    assert spilled.memory_bytes <= 1000 * KB
    publisher.close(0.1)
