"""The sensor's half: what it publishes when, what it says of losses, and what becomes of its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from connectors.bus.memory import MemoryBus, Message
from connectors.files.frames import FrameBlock
from engine import wire
from engine.clock import NEVER
from engine.connections.layout import FLAG_DROPPED
from engine.headers.decode import DecodeConfig
from engine.partition import partitions
from engine.sensor import publisher as publisher_module
from engine.sensor.publisher import Pace, Producer, Publisher, Sensor, replay
from engine.types import PacketBlock, Packets, concatenate
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector
from tests.support.frames import frames_of

SECOND = 10**9
PATIENCE = 20.0  # seconds after which a test that waits has failed


def publisher(bus: Producer, block_packets: int = 1 << 20, epoch: int = 0) -> Publisher:
    return Publisher(Sensor("s", epoch, block_packets, DecodeConfig()), bus)


def hosts(first: int, n: int, at: int) -> Packets:
    """A datagram from each of n hosts to one other, a microsecond apart."""
    p = udp([at + 1000 * k for k in range(n)], range(1, n + 1))
    p.src_lo[:] += np.arange(first, first + n).astype("u8") << np.uint64(8)
    return p


def blocks(messages: list[Message], count: int) -> list[list[PacketBlock]]:
    """Blocks by partition."""
    out: list[list[PacketBlock]] = [[] for _ in range(count)]
    for message in messages:
        out[message.partition].append(wire.decode(message.value))
    return out


def drained(bus: MemoryBus) -> list[Message]:
    """All messages of a bus to which nothing more will come."""
    bus.end()
    messages: list[Message] = []
    while (some := bus.poll()) is not None:
        messages += some
    return messages


def waited_for(bus: MemoryBus, n: int, messages: list[Message]) -> None:
    """Poll until there are n messages, or patience ends."""
    deadline = time.monotonic() + PATIENCE
    while len(messages) < n and time.monotonic() < deadline:
        messages += bus.poll(timeout=1.0) or []


# ----------------------------------------------------------------------------------------------- losses


def lost(bus: MemoryBus) -> list[tuple[int, dict[int, bool]]]:
    """What detectors say of the messages of a bus, by partition: packets dropped; by the time at which a connection
    began, in seconds from T0, whether its record says that packets were lost."""
    out = []
    for partition, mine in enumerate(blocks(drained(bus), bus.partitions)):
        d = detector(partition)
        for block in mine:
            assert not d.process(block)
        told: dict[int, bool] = {}
        for said in d.flush():
            for start, flags in zip(said.rows["start"].tolist(), said.rows["flags"].tolist()):
                marked = bool(flags & FLAG_DROPPED)
                assert told.setdefault((start - T0) // SECOND, marked) == marked
        out.append((d.dropped, told))
    return out


@pytest.mark.parametrize("count", [1, 4])
def test_a_loss_at_the_sensor_is_counted_once_and_marks_what_is_open_in_every_partition(count: int) -> None:
    bus = MemoryBus(count, 1000)
    sensor = publisher(bus)
    sensor.add(frames_of(hosts(0, 60, T0)))
    sensor.flush()
    later = hosts(100, 1, T0 + SECOND)  # only one partition has a packet after the loss
    sensor.add(frames_of(later, dropped=7))
    sensor.finish()
    told = lost(bus)
    goes = int(partitions(later, count)[0])
    assert sum(dropped for dropped, _ in told) == 7
    assert [marks for _, marks in told] == [
        {0: True, 1: False} if k == goes else {0: True} for k in range(count)
    ]


def test_a_loss_is_told_of_once() -> None:
    bus = MemoryBus(3, 1000)
    sensor = publisher(bus)
    sensor.add(frames_of(hosts(0, 60, T0), dropped=2))
    sensor.finish()
    sensor.add(frames_of(hosts(0, 60, T0 + SECOND)))
    sensor.finish()
    for mine in blocks(drained(bus), 3):
        assert [block.loss for block in mine] == [True, False, False, False]


@pytest.mark.parametrize("block_packets", [1 << 20, 1000])
def test_a_loss_marks_also_what_waited_for_its_block_to_fill(block_packets: int) -> None:
    bus = MemoryBus(4, 1000)
    sensor = publisher(bus, block_packets)
    sensor.add(frames_of(hosts(0, 60, T0)))
    sensor.add(frames_of(hosts(0, 60, T0 + SECOND), dropped=7))
    sensor.finish()
    told = lost(bus)
    assert sum(dropped for dropped, _ in told) == 7
    assert [marks[0] for _, marks in told] == [True] * 4


def test_a_read_that_lost_everything_is_counted_too() -> None:
    bus = MemoryBus(2, 1000)
    sensor = publisher(bus)
    sensor.add(frames_of(hosts(0, 60, T0)))
    sensor.add(frames_of(hosts(0, 0, T0), dropped=7))
    sensor.finish()
    assert sum(dropped for dropped, _ in lost(bus)) == 7


# ----------------------------------------------------------------------------------------------- numbers and times


@pytest.mark.parametrize("count", [1, 3])
def test_packets_are_numbered_in_each_partition_and_none_is_left_out(count: int) -> None:
    bus = MemoryBus(count, 1000)
    sensor = publisher(bus, block_packets=7, epoch=5)
    for k in range(10):
        sensor.add(frames_of(hosts(0, 20, T0 + k * SECOND)))
    sensor.finish()
    told = blocks(drained(bus), count)
    for mine in told:
        assert {(block.sensor, block.epoch) for block in mine} == {("s", 5)}
        sizes = [len(block) for block in mine]
        assert [block.seq for block in mine] == [sum(sizes[:k]) for k in range(len(sizes))]
        assert all(size >= 7 for size in sizes[:-2])
    assert sum(len(block) for mine in told for block in mine) == sensor.packets == 200


def test_the_end_tells_every_partition_how_late_it_is() -> None:
    bus = MemoryBus(4, 1000)
    one = hosts(0, 1, T0)
    replay(iter([frames_of(one), frames_of(hosts(0, 1, T0 + 90 * SECOND))]), publisher(bus), Pace())
    for partition, mine in enumerate(blocks(drained(bus), 4)):
        assert (len(mine[-1]), mine[-1].now) == (0, T0 + 90 * SECOND)
        assert len(mine) == (2 if partition == int(partitions(one, 4)[0]) else 1)


def test_a_capture_without_packets_publishes_nothing() -> None:
    bus = MemoryBus(2, 10)
    replay(iter([]), publisher(bus), Pace())
    assert drained(bus) == []


# ---------------------------------------------------------------------------------------- while a source is silent


def test_packets_that_wait_are_published_without_another_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "HEARTBEAT", 3600.0)  # which would publish them too
    bus, messages = MemoryBus(1, 100), list[Message]()

    def source() -> Iterator[FrameBlock]:
        yield frames_of(hosts(0, 3, T0))
        waited_for(bus, 1, messages)  # and is silent meanwhile
        assert [len(wire.decode(m.value)) for m in messages] == [3]
        yield frames_of(hosts(0, 2, T0 + SECOND))

    replay(source(), publisher(bus), Pace(latency=0.01))
    assert [len(wire.decode(m.value)) for m in drained(bus)] == [2, 0]


def test_without_a_latency_packets_wait_until_their_block_is_full() -> None:
    bus = MemoryBus(1, 100)

    def source() -> Iterator[FrameBlock]:
        for k in range(4):
            yield frames_of(hosts(0, 3, T0 + k * SECOND))
            assert len(bus.poll(timeout=0.05) or []) == (k == 2)

    replay(source(), publisher(bus, block_packets=8), Pace())


def test_a_silent_source_sends_every_partition_a_heartbeat_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publisher_module, "HEARTBEAT", 0.2)
    bus, messages = MemoryBus(3, 1000), list[Message]()
    one = concatenate([hosts(0, 1, T0 - 1), hosts(0, 1, T0)])

    def source() -> Iterator[FrameBlock]:
        yield frames_of(one)
        began = time.monotonic()
        waited_for(bus, 1 + 4 * 3, messages)
        # the first may come up to a tick early, as that was begun before the source fell silent
        assert time.monotonic() - began > 3 * 0.2

    replay(source(), publisher(bus), Pace(latency=0.02))
    goes = int(partitions(one, 3)[0])
    for partition, mine in enumerate(blocks(messages, 3)):
        beats = mine[1:] if partition == goes else mine
        assert len(beats) >= 4
        assert {(len(block), block.now, block.seq) for block in beats} == {(0, T0, 2 * (partition == goes))}


def test_the_time_of_a_single_packet_is_not_passed_on_to_others() -> None:
    bus = MemoryBus(1, 10)
    for name, times in (("a", [T0, T0 + 10**9]), ("b", [T0 + 365 * 86400 * 10**9])):
        publisher = Publisher(Sensor(name, 0, 100, DecodeConfig()), bus)
        publisher.add(frames_of(udp(times, [1] * len(times))))
        publisher.finish()
    blocks = [wire.decode(m.value) for m in bus.poll(0.0) or []]
    beats = {b.sensor: b.now for b in blocks if not len(b)}
    assert beats == {"a": T0 + 10**9, "b": NEVER}


def test_heartbeats_come_about_every_second() -> None:
    assert 0.5 <= publisher_module.HEARTBEAT <= 2.0  # seconds


def test_a_source_that_has_said_nothing_yet_sends_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "HEARTBEAT", 0.01)
    bus = MemoryBus(2, 1000)

    def source() -> Iterator[FrameBlock]:
        assert bus.poll(timeout=0.2) == []
        yield frames_of(hosts(0, 1, T0))

    replay(source(), publisher(bus), Pace(latency=0.01))
    assert [len(block) for mine in blocks(drained(bus), 2) for block in mine] != []


class Refusing:
    """A bus that fails once and then takes everything."""

    partitions = 1

    def __init__(self) -> None:
        self.refused = threading.Event()
        self.taken: list[bytes] = []

    def publish(self, partition: int, value: bytes, *, about: str, packets: int) -> object:  # noqa: ARG002
        if not self.refused.is_set():
            self.refused.set()
            raise OSError(f"no room for {about} in {partition}")
        self.taken.append(value)
        return None


def test_an_error_while_packets_wait_is_raised_with_the_next_frame() -> None:
    bus = Refusing()

    def source() -> Iterator[FrameBlock]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:  # until the error is noticed
            yield frames_of(hosts(0, 1, T0))
            if bus.taken:
                return

    with pytest.raises(OSError, match=r"no room for packet 0 of the stream \(partition 0\) in 0"):
        replay(source(), publisher(bus), Pace(latency=0.01))
    assert bus.taken == []


def test_an_error_while_packets_wait_is_raised_also_when_no_frame_comes_any_more() -> None:
    bus = Refusing()

    def source() -> Iterator[FrameBlock]:
        yield frames_of(hosts(0, 1, T0))
        assert bus.refused.wait(PATIENCE)

    with pytest.raises(OSError, match="no room for packet 0"):
        replay(source(), publisher(bus), Pace(latency=0.01))


# -------------------------------------------------------------------------------------------- pauses of a paced replay


@pytest.mark.parametrize(
    ("factor", "max_gap", "waits"), [(1.0, 0.0, 9001.0), (1.0, 5.0, 13.0), (10.0, 5.0, 1.3)]
)
def test_pauses_last_no_longer_than_the_bound(factor: float, max_gap: float, waits: float) -> None:
    """Times t, t+1 | t+500, t+501 | t+9000, t+9001: two pauses, and 3 s between them."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    times = [T0 + k * SECOND for k in (0, 1, 500, 501, 9000, 9001)]
    bus = MemoryBus(1, 100)
    pace = Pace(factor, clock=lambda: now[0], sleep=sleep, max_gap=max_gap)
    replay(iter([frames_of(concatenate([hosts(0, 1, ts) for ts in times]))]), publisher(bus), pace)
    assert now[0] == pytest.approx(waits)
    assert (pace.drift.gaps, pace.drift.skipped) == ((2, pytest.approx(8988.0)) if max_gap else (0, 0.0))
    published = concatenate([wire.decode(m.value).packets for m in drained(bus)])
    assert published.ts.tolist() == times
