"""Detector processes in memory: real parts round an in-memory consumer group, driven round by round.

A process's clock moves one second a round, and a round ends when its snapshots are written. So a test kills a process
exactly where it wants to, and nothing depends on the speed of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from connectors.bus.memory_group import MemoryGroup
from connectors.bus.memory_topic import MemoryTopic
from engine.consumer.intake import Intake
from engine.consumer.member import Member, MemberConfig, Processing
from engine.consumer.outlet import Outlet, Spans
from engine.consumer.restore import Recovery
from engine.consumer.snapshot import SnapshotStore, Stamp
from engine.errors import StateError
from engine.headers.decode import DecodeConfig
from engine.labels.rules import NO_PROBES
from engine.labels.slices import Slices
from engine.metrics import Metrics
from engine.scoring.batch import ScoreBatch
from engine.scoring.columns import as_dicts, score_table
from engine.scoring.detector import Detector
from engine.sensor.publisher import Publisher, Sensor
from engine.types import take
from tests.support.detectors import detector
from tests.support.frames import frames_of
from tests.support.streams import stream

PARTITIONS = 3
CONFIG = MemberConfig(snapshot_seconds=4.0, flush_seconds=2.0, end_connections=True)  # in rounds

Identity = tuple[int, int, str, int]  # partition, offset, model, row
Row = tuple[Identity, str]  # every column, in a text in which floats that differ in a bit differ


class KilledError(Exception):
    """The process is killed here."""


@dataclass
class Outcome:
    """What all processes of a test gave to the world."""

    sent: dict[Identity, str] = field(default_factory=dict)  # rows that were flushed
    rows: dict[Identity, str] = field(default_factory=dict)  # rows that were made durable
    offsets: dict[int, set[int]] = field(
        default_factory=dict
    )  # messages whose rows are durable, by partition


class Recorder:
    """Sink of one process. Rows that it flushed but did not sync are lost with it, though others have seen them."""

    def __init__(self, outcome: Outcome, at: Callable[[str], None]) -> None:
        """``at``: called before and after each flush and sync; may raise KilledError or move partitions."""
        self._outcome, self._at = outcome, at
        self._written: list[Row] = []
        self._flushed: list[Row] = []
        self._spans: list[tuple[int, int, int]] = []  # partition, first offset, next offset

    def write(self, batch: ScoreBatch) -> None:
        for row in as_dicts(score_table(batch)):
            identity = (row["partition"], row["offset"], row["model"], row["row"])
            self._written.append((identity, repr(row)))

    def flush(self, spans: Spans) -> None:
        self._at("before flush")
        for identity, row in self._written:
            assert self._outcome.sent.setdefault(identity, row) == row
        self._flushed += self._written
        self._written = []
        self._spans += [(partition, *span) for partition, span in spans.items()]
        self._at("after flush")

    def sync(self, partition: int) -> None:
        self._at("before sync")
        self._outcome.rows.update(row for row in self._flushed if row[0][0] == partition)
        self._flushed = [row for row in self._flushed if row[0][0] != partition]
        for whose, first, after in self._spans:
            if whose == partition:
                self._outcome.offsets.setdefault(partition, set()).update(range(first, after))
        self._spans = [span for span in self._spans if span[0] != partition]
        self._at("after sync")


class Site:
    """A topic with traffic in it, a group, a folder of snapshots, and what came out."""

    def __init__(self, state: Path | str, group: MemoryGroup | None = None) -> None:
        """``state``: place of the snapshots. ``group``: one on a topic of the caller's."""
        self.group = group or MemoryGroup(published())
        self.topic = self.group.topic
        self.store = SnapshotStore(str(state), "packets")
        self.outcome = Outcome()

    def process(self, **options: object) -> Process:
        """Start a process; ``options``: those of Process."""
        return Process(self, **options)  # type: ignore[arg-type]

    def run(self, **options: object) -> Process:
        """Run a process to the end of the log."""
        process = self.process(**options)
        process.finish()
        return process

    def snapshots(self) -> dict[int, int]:
        """Offset of the newest snapshot of each partition that has one."""
        found = {p: self.store.offsets(p) for p in range(self.topic.partitions)}
        return {partition: offsets[0] for partition, offsets in found.items() if offsets}

    def ends(self) -> dict[int, int]:
        """Offset after the last message of each partition."""
        return {p: self.topic.log(p)[1] for p in range(self.topic.partitions)}

    def path(self, partition: int) -> Path:
        """File of a partition's newest snapshot."""
        return Path(self.store.place) / str(partition) / f"{self.snapshots()[partition]:020d}.safetensors"


class Process:
    """A detector process of a site."""

    def __init__(
        self, site: Site, *, at: Callable[[str], None] = lambda _: None, built: Callable[[int], None] = lambda _: None,
        busy: Callable[[], bool] = lambda: False, most: int = 3, settings: str = "settings",
    ) -> None:  # fmt: skip
        """``at``: see Recorder. ``built``: called when a detector of a partition is built, before it is restored.

        ``most``: messages a round. ``settings``: stands for the configuration in the snapshots' stamp.
        """
        self._site, self._built = site, built
        self.bus = site.group.join(stop_at_end=True, most=most)
        self.now = 0.0  # seconds
        self.metrics = Metrics()
        self._id = site.topic.id
        self.restored: dict[int, int] = {}  # offset at which it took each partition over, the last time
        self.member = Member(
            self.bus,
            Recovery(
                site.store, Stamp(self._id, site.topic.partitions, settings), self._build, self._identify
            ),
            Processing(
                Intake(self.metrics),
                Outlet([Recorder(site.outcome, at)], self.metrics, NO_PROBES, Slices()),
                self.metrics,
                busy,
            ),
            CONFIG,
            lambda: self.now,
        )

    def _build(self, partition: int) -> Detector:
        self._built(partition)
        return detector(partition, capacity=64, mapping=50, flows=256)

    def _identify(self) -> None:
        if self._site.topic.id != self._id:
            raise StateError(f"the topic is {self._site.topic.id} now and was {self._id}")

    def round(self) -> bool:
        """One round of the member's loop, and the snapshots that it began; False at the end of the log."""
        going = self.member.step()
        self.member.snapshots.wait()
        self.now += 1.0
        for (partition,), offset in self.metrics.restored_offset.values.items():
            self.restored[int(partition)] = int(offset)
        return going

    def rounds(self, n: int) -> Process:
        """``n`` rounds, before the end of the log."""
        for _ in range(n):
            assert self.round()
        return self

    def finish(self) -> None:
        """Work to the end of the log, end as a process does, and leave the group."""
        for _ in range(1000):
            if not self.round():
                break
        else:
            raise AssertionError("not at the end after 1,000 rounds")
        self.member.run()
        self.bus.close()

    def stop(self) -> None:
        """End before the end of the log, as on SIGTERM."""
        self.member.stop()
        self.member.run()
        self.bus.close()

    def kill(self) -> None:
        """End here and now, with nothing flushed, saved or committed."""
        self.member.snapshots.close()
        self.bus.close()

    def count(self, name: str) -> int:
        """Value of a metric without labels."""
        return int(getattr(self.metrics, name).values[()])


def together(*processes: Process) -> None:
    """Run processes side by side to the end of the log, a round each in turn."""
    while [process for process in processes if process.round()]:
        pass
    for process in processes:
        process.finish()


@cache
def traffic() -> tuple[tuple[int, int, bytes], ...]:
    """Messages (partition, offset, bytes) of 1,500 packets; each partition has enough to learn and calibrate.

    Every fourth message is followed by an older one again, as after a sensor's retry: a detector has to know its past.
    """
    topic = MemoryTopic(PARTITIONS)
    publisher = Publisher(Sensor("s", 0, 20, DecodeConfig()), topic)
    p = stream(4, 1500, ordered=True)
    for begin in range(0, 1500, 20):
        publisher.add(frames_of(take(p, slice(begin, begin + 20))))
    publisher.finish()
    out = []
    for partition in range(PARTITIONS):
        values = [m.value for m in topic.read(partition, 0, 1500)]
        again = [v for k, one in enumerate(values) for v in ([one, values[k - 2]] if k % 4 == 3 else [one])]
        out += [(partition, offset, value) for offset, value in enumerate(again)]
    return tuple(out)


def published() -> MemoryTopic:
    """A topic that holds the traffic."""
    topic = MemoryTopic(PARTITIONS)
    for partition, _, value in traffic():
        topic.publish(partition, value)
    return topic


@cache
def undisturbed() -> Outcome:
    """What one process that nothing happens to makes of the traffic."""
    site = Site("memory://undisturbed")
    site.run()
    return site.outcome


def assert_equal(site: Site, wanted: Outcome | None = None) -> None:
    """Every message's rows are durable, and equal to the last bit to those of a process that nothing happened to."""
    wanted = wanted or undisturbed()
    assert site.outcome.offsets == wanted.offsets
    assert site.outcome.rows == wanted.rows
    assert site.outcome.sent == wanted.rows
