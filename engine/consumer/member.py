"""A member of a consumer group: takes partitions over, restores their state, processes, snapshots, commits.

The order on the way out is: flush the sinks, make them durable, snapshot, commit the snapshot's offset. So what a
crash undoes is done again from the snapshot, and rows that come twice carry the same (partition, offset, row).
Where to go on is the snapshot's to say, not the committed offset's: a state and its place in the log belong
together. All waiting for the cluster and the disk happens here and on the snapshot thread, never in a callback.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from connectors.bus.memory import Message
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet
from engine.consumer.snapshot import Snapshot, SnapshotStore, Stamp
from engine.errors import OutputError, StateError
from engine.metrics import Metrics
from engine.scoring.detector import Detector

logger = logging.getLogger(__name__)


class Change(Protocol):
    """A partition came (assigned), was asked back (revoked) or is gone already (lost)."""

    @property
    def kind(self) -> str: ...
    @property
    def partition(self) -> int: ...


class GroupBus(Protocol):
    """Where messages come from, shared with the other members of a group."""

    @property
    def joined(self) -> bool:
        """Whether this process is a member of the group now."""

    def poll(self, timeout: float | None = None) -> list[Message] | None:
        """The next messages of the partitions sought, [] after the timeout, None at the end wanted."""

    def changes(self) -> Sequence[Change]:
        """What came and went since the last call, in order."""

    def log(self, partition: int) -> tuple[int, int]:
        """First offset in the log and the one after its last message."""

    def committed(self, partition: int) -> int | None:
        """The group's committed offset."""

    def seek(self, partition: int, offset: int) -> None:
        """Read on from ``offset``."""

    def commit(self, partition: int, offset: int) -> bool:
        """Messages before ``offset`` are done with; False when the group did not take it."""

    def lag(self, partition: int) -> int | None:
        """Messages in the log and not yet polled."""

    def pause(self) -> None:
        """Give nothing until ``resume``."""

    def resume(self) -> None:
        """Go on."""

    @property
    def partitions(self) -> int:
        """Partitions of the topic."""


@dataclass(frozen=True)
class MemberConfig:
    """How often what is done, in seconds, and when rows are flushed before their time."""

    snapshot_seconds: float = 60.0
    flush_seconds: float = 1.0
    flush_rows: int = 8192
    end_connections: bool = False  # when the end of the log is reached: give rows of what is still live


@dataclass
class _Held:
    """A partition of this member."""

    detector: Detector
    next: int  # offset of the next message
    saved: int  # offset of the last snapshot
    saved_at: float  # when it was written, or the partition came
    tried_at: float  # when the last one was begun


class Member:
    """One process of a group. ``run`` ends with ``stop``, or at the end of the log where the bus says so."""

    def __init__(
        self, bus: GroupBus, store: SnapshotStore, stamp: Stamp, build: Callable[[int], Detector],
        intake: Intake, outlet: Outlet, metrics: Metrics, config: MemberConfig | None = None,
        busy: Callable[[], bool] = lambda: False, clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time, identify: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """``build``: an empty detector of a partition. ``busy``: whether sinks want a pause.

        ``identify``: raises StateError when the topic is no longer that of the stamp.
        """
        self._bus, self._store, self._stamp, self._build = bus, store, stamp, build
        self._intake, self._outlet, self._metrics = intake, outlet, metrics
        self._config = config or MemberConfig()
        self._busy, self._clock, self._wall = busy, clock, wall
        self._published: list[float] = []  # when the messages taken since the last round were published
        self._held: dict[int, _Held] = {}
        self._writer = _Writer(store, stamp, clock)
        self._identify = identify
        self._flushed_at = clock()
        self._stopped = threading.Event()
        self.progress = clock()  # when the loop last came round
        self.ready = False  # joined, and every partition held is restored

    def stop(self) -> None:
        """End after the messages at hand. A signal handler may call it."""
        self._stopped.set()

    def run(self) -> None:
        """Work until stopped or at the end; then flush, snapshot and commit.

        Raises StateError when a partition cannot be gone on with, OutputError when a sink fails.
        """
        try:
            while not self._stopped.is_set():
                messages = self._bus.poll(0.2)
                for change in self._bus.changes():
                    messages = [m for m in messages or () if m.partition != change.partition]
                    self._change(change)
                if messages is None:
                    break
                for message in messages:
                    self._take(message)
                self._round()
            self._finish()
        finally:
            self._writer.close()

    def _round(self) -> None:
        """What is due whether messages came or not."""
        now = self.progress = self._clock()
        late = now - self._flushed_at >= self._config.flush_seconds
        if self._outlet.rows >= self._config.flush_rows or (late and self._outlet.messages):
            self._flush()
        self._committed()
        if not self._writer.busy:
            due = [p for p, h in self._held.items() if now - h.tried_at >= self._config.snapshot_seconds]
            if due:
                self._snapshot(min(due, key=lambda p: self._held[p].tried_at))
        if self._busy():
            self._bus.pause()
        else:
            self._bus.resume()
        self.ready = self._bus.joined
        self._measure()

    def _change(self, change: Change) -> None:
        partition = change.partition
        with self._metrics.collector.lock:
            self._metrics.rebalances.add((change.kind,), 1)
        logger.info("partition=%d %s", partition, change.kind)
        if change.kind == "assigned":
            self._give_up(partition)  # back before its going was noticed: the state may be behind another's
            self._restore(partition)
        elif change.kind == "revoked" and partition in self._held:
            self._flush()
            self._snapshot(partition)  # spares the next owner work; it may start before this is written
            self._drop(partition)
        else:
            self._give_up(partition)

    def _give_up(self, partition: int) -> None:
        """Let go of a partition that is another's already; its rows up to here are good."""
        if partition in self._held:
            self._flush()
        self._drop(partition)

    def _drop(self, partition: int) -> None:
        self._held.pop(partition, None)
        self._intake.drop(partition)
        m, label = self._metrics, (str(partition),)
        with m.collector.lock:
            for series in (m.restored_offset, m.restore_seconds, m.snapshot_seconds, m.snapshot_bytes):
                series.values.pop(label, None)

    def _restore(self, partition: int) -> None:
        if self._bus.partitions != self._stamp.partitions:
            raise StateError(
                f"the topic has {self._bus.partitions} partitions now and had {self._stamp.partitions}: host pairs "
                f"are divided otherwise; let all detectors end, move {self._store.place} away and start anew"
            )
        self._identify()
        began = self._clock()
        unreadable = self._store.unreadable
        found = self._store.newest(partition, self._stamp)
        first, end = self._bus.log(partition)
        detector = self._build(partition)
        if found is not None:
            self._check(found, first, end)
            detector.restore(found.state)
            at = found.offset
        else:
            at = self._start(detector, partition, first, end)
        now = self._clock()
        self._held[partition] = _Held(detector, at, at if found else -1, now, now)
        self._intake.adopt(detector)
        self._bus.seek(partition, at)
        with self._metrics.collector.lock:
            self._metrics.snapshots_unreadable.add((), self._store.unreadable - unreadable)
            self._metrics.restored_offset.set((str(partition),), at)
            self._metrics.restore_seconds.set((str(partition),), self._clock() - began)
        logger.info("partition=%d restored offset=%d log=%d..%d", partition, at, first, end)
        if found is None and at > 0:  # whoever comes next shall begin at the same place
            self._snapshot(partition)

    def _check(self, found: Snapshot, first: int, end: int) -> None:
        where = f"partition {found.partition}: the snapshot goes on at offset {found.offset}"
        repair = f"to start without it, move {self._store.place}/{found.partition} away"
        if found.offset < first:
            raise StateError(
                f"{where}, but the log begins at {first}: {first - found.offset} messages are gone (retention is "
                f"shorter than the detector stood still); {repair}, and raise the topic's retention"
            )
        if found.offset > end:
            raise StateError(
                f"{where}, but the log ends at {end}: it has lost messages that were processed; {repair}"
            )

    def _start(self, detector: Detector, partition: int, first: int, end: int) -> int:
        """Where to begin without a snapshot: at the log's start, or cold where that is not the stream's."""
        if first == 0:
            logger.warning("partition=%d no snapshot, reading the log from its start", partition)
            return 0
        at = min(end, max(first, self._bus.committed(partition) or 0))
        detector.start_cold()
        logger.warning(
            "partition=%d no snapshot and the log begins at %d: starting cold at %d, connections are marked midstream",
            partition, first, at,
        )  # fmt: skip
        with self._metrics.collector.lock:
            self._metrics.cold_starts.add((), 1)
        return at

    def _take(self, message: Message) -> None:
        held = self._held.get(message.partition)
        if held is None or message.offset < held.next:  # from before a seek
            return
        if message.offset > held.next:
            raise StateError(
                f"partition {message.partition}: offset {message.offset} follows {held.next - 1}: the log lacks "
                f"{message.offset - held.next} messages; to start without the state, move "
                f"{self._store.place}/{message.partition} away"
            )
        held.next += 1
        self._outlet.keep(message.partition, message.offset, self._intake.take(message))
        if message.time is not None:
            self._published.append(self._wall() - message.time)

    def _flush(self) -> None:
        self._outlet.flush()
        self._flushed_at = self._clock()

    def _snapshot(self, partition: int) -> None:
        """Flush, make durable, and hand a copy of the state to the snapshot thread."""
        held = self._held[partition]
        held.tried_at = self._clock()
        if held.next == held.saved:
            held.saved_at = held.tried_at  # nothing has come since
            return
        self._flush()
        self._outlet.sync(partition)
        self._writer.write(Snapshot(partition, held.next, held.detector.state()))

    def _committed(self) -> None:
        """Commit what the snapshot thread has written."""
        for done in self._writer.done():
            label = (str(done.partition),)
            with self._metrics.collector.lock:
                if done.problem is None:
                    self._metrics.snapshot_seconds.set(label, done.seconds)
                    self._metrics.snapshot_bytes.set(label, done.size)
                else:
                    self._metrics.snapshot_failures.add((), 1)
            if done.problem is not None:
                logger.warning("snapshot failed: partition=%d error=%s", done.partition, done.problem)
            elif done.partition in self._held:
                held = self._held[done.partition]
                held.saved, held.saved_at = done.offset, self._clock()
                self._bus.commit(done.partition, done.offset)

    def _finish(self) -> None:
        """Leave nothing undone: rows durable, state on disk, offsets committed.

        At the end of the log, the connections still live are ended for the sinks; the snapshot is from before,
        so that more packets go on with them.
        """
        self._flush()
        ended = not self._stopped.is_set()
        for partition, held in self._held.items():
            self._snapshot(partition)
            self._writer.wait()
            if ended and self._config.end_connections:
                self._outlet.end(partition, held.next, held.detector.flush())
        self._committed()
        self._flush()
        for partition in self._held:
            self._outlet.sync(partition)
        self._measure()
        failed = [p for p, h in self._held.items() if h.saved != h.next]
        if failed:
            raise OutputError(f"{self._store.place}: no snapshot of partitions {failed}; see the log")

    def _measure(self) -> None:
        self._intake.measure()
        now = self._clock()
        m = self._metrics
        delays, self._published = np.array(self._published), []
        with m.collector.lock:
            m.delay.observe((), delays)
            for series in (m.lag, m.snapshot_age, m.next_offset):
                series.values.clear()
            for partition, held in self._held.items():
                label = (str(partition),)
                lag = self._bus.lag(partition)
                if lag is not None:
                    m.lag.set(label, lag)
                m.snapshot_age.set(label, now - held.saved_at)
                m.next_offset.set(label, held.next)


@dataclass(frozen=True)
class _Done:
    """A snapshot that was written, or not."""

    partition: int
    offset: int
    seconds: float
    size: int
    problem: str | None


class _Writer:
    """The snapshot thread: one at a time, from a copy."""

    def __init__(self, store: SnapshotStore, stamp: Stamp, clock: Callable[[], float]) -> None:
        self._store, self._stamp, self._clock = store, stamp, clock
        self._todo: queue.Queue[Snapshot | None] = queue.Queue(1)
        self._done: queue.Queue[_Done] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written."""
        return self._todo.unfinished_tasks > 0

    def write(self, snapshot: Snapshot) -> None:
        """Write when the one before is written; waits while one waits already."""
        self._todo.put(snapshot)

    def wait(self) -> None:
        """Until all is written."""
        self._todo.join()

    def done(self) -> list[_Done]:
        """What was finished since the last call."""
        return [self._done.get() for _ in range(self._done.qsize())]

    def close(self) -> None:
        """Finish what waits, and end."""
        self._todo.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (snapshot := self._todo.get()) is not None:
            began, size, problem = self._clock(), 0, None
            try:
                size = self._store.save(snapshot, self._stamp)
            except Exception as error:
                problem = str(error)
            self._done.put(_Done(snapshot.partition, snapshot.offset, self._clock() - began, size, problem))
            self._todo.task_done()
