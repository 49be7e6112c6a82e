"""When a worker over the embedded bus flushes and makes durable, while messages never stop coming."""

from __future__ import annotations

from connectors.bus.memory import Message
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet, Spans
from engine.consumer.worker import Flushing, Worker
from engine.labels.rules import NO_PROBES
from engine.labels.slices import Slices
from engine.metrics import Metrics
from engine.scoring.batch import ScoreBatch
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.detectors import detector
from tests.unit.engine.consumer.test_intake import message


class Steady:
    """A bus that gives a message a poll, each a second after the one before."""

    def __init__(self, n: int) -> None:
        self.now, self.n, self.committed = 0.0, n, 0

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:  # noqa: ARG002
        at = int(self.now)
        if at == self.n:
            return None
        self.now += 1.0
        return [Message(0, at, message(udp([T0 + at], [1]), seq=at))]

    def commit(self, partition: int, offset: int) -> None:  # noqa: ARG002
        self.committed = offset


class Notes:
    """A sink that notes when it is flushed and synced."""

    def __init__(self, bus: Steady) -> None:
        self.bus = bus
        self.flushed: list[float] = []
        self.synced: list[float] = []

    def write(self, batch: ScoreBatch) -> None:
        """Nothing."""

    def flush(self, spans: Spans) -> None:  # noqa: ARG002
        self.flushed.append(self.bus.now)

    def sync(self, partition: int) -> None:  # noqa: ARG002
        self.synced.append(self.bus.now)


def worked(n: int, seconds: float | None = None, sync: float | None = None) -> Notes:
    bus = Steady(n)
    notes = Notes(bus)
    outlet = Outlet([notes], Metrics(), NO_PROBES, Slices())
    when = Flushing(1 << 20, 1 << 20, seconds, sync)
    Worker(bus, [detector()], Intake(Metrics()), outlet, when, lambda: bus.now).run()
    assert bus.committed == n
    return notes


def test_rows_wait_no_longer_than_they_may() -> None:
    notes = worked(20, 3.0, 9.0)
    assert notes.flushed == [3, 6, 9, 12, 15, 18, 20]
    assert notes.synced == [9, 18, 20]


def test_without_a_limit_only_the_messages_count() -> None:
    notes = worked(20)
    assert notes.flushed == notes.synced == [20]
