"""A member of a consumer group: takes over partitions, restores their state, processes, snapshots, commits.

The order of output is: flush the sinks, make them durable, snapshot, commit the snapshot's offset. After a crash, work
is repeated from the snapshot, and repeated rows carry the same (partition, offset, model, row). restore.py decides
where a partition continues. Waiting for the cluster and the disk happens only here and on the snapshot thread, never
in a callback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from connectors.bus.memory import Message
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet
from engine.consumer.restore import Log, Recovery
from engine.consumer.snapshot import Snapshot
from engine.consumer.snapshot_thread import SnapshotThread
from engine.errors import OutputError, StateError
from engine.metrics import Metrics
from engine.scoring.detector import Detector

logger = logging.getLogger(__name__)


class Change(Protocol):
    """A partition was assigned, must be given up (revoked), or is already taken away (lost)."""

    @property
    def kind(self) -> str: ...
    @property
    def partition(self) -> int: ...


class GroupBus(Log, Protocol):
    """The source of messages, shared with the other members of a group."""

    @property
    def joined(self) -> bool:
        """Whether this process is currently a member of the group."""

    def poll(self, timeout: float | None = None) -> list[Message] | None:
        """The next messages of sought partitions; [] after the timeout; None once a wanted end is reached."""

    def changes(self) -> Sequence[Change]:
        """Partitions assigned, revoked and lost since the last call, in order."""

    def seek(self, partition: int, offset: int) -> None:
        """Continue reading at ``offset``. Does nothing if the partition was taken away: a change follows."""

    def commit(self, partition: int, offset: int) -> bool:
        """Record that messages before ``offset`` are processed; False if the group refuses."""

    def lag(self, partition: int) -> int | None:
        """Number of messages in the log that are not polled yet; None if unknown."""

    def pause(self) -> None:
        """Hold messages back until ``resume``."""

    def resume(self) -> None:
        """Give messages again."""


@dataclass(frozen=True)
class Processing:
    """The stages of a message from the bus to the sinks, and its metrics."""

    intake: Intake
    outlet: Outlet
    metrics: Metrics
    busy: Callable[[], bool] = lambda: False  # whether sinks are behind and need a pause


@dataclass(frozen=True)
class MemberConfig:
    """Times of flushes and snapshots, and handling of the log's end."""

    snapshot_seconds: float = 60.0  # seconds between snapshots of a partition
    flush_seconds: float = 1.0  # most seconds that rows wait for the sinks
    flush_rows: int = 8192  # number of waiting rows that are flushed at once
    end_connections: bool = False  # whether the end of the log ends the connections that are still live


@dataclass
class _Held:
    """A partition held by this member."""

    detector: Detector
    next: int  # offset of the next message
    saved: int  # offset of the last snapshot
    saved_at: float  # time when that snapshot was written, or the partition assigned
    tried_at: float  # time when the last snapshot was begun


class Member:
    """One process of a group. ``run`` ends after ``stop``, or at the end of the log if the bus reports it."""

    def __init__(
        self, bus: GroupBus, recovery: Recovery, processing: Processing, config: MemberConfig | None = None,
        clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """``clock``: seconds, for due times. ``wall``: seconds since the epoch, for the delay of messages."""
        self._bus, self._recovery = bus, recovery
        self._intake, self._outlet = processing.intake, processing.outlet
        self._metrics, self._busy = processing.metrics, processing.busy
        self._config = config or MemberConfig()
        self._clock, self._wall = clock, wall
        self._delays: list[float] = []  # seconds from publishing to here of messages since the last round
        self._held: dict[int, _Held] = {}
        self.snapshots = SnapshotThread(recovery.store, recovery.stamp, clock)
        self._flushed_at = clock()
        self._stopped = threading.Event()
        self.progress = clock()  # time of the loop's last round
        self.ready = False  # whether this process has joined and restored all its partitions

    def stop(self) -> None:
        """End after the messages already polled. A signal handler may call it."""
        self._stopped.set()

    def run(self) -> None:
        """Process messages until stopped or at the end; then flush, snapshot and commit.

        Raises StateError when a partition cannot be continued, OutputError when a sink fails.
        """
        try:
            while self.step():
                pass
            self._finish()
        finally:
            self.snapshots.close()

    def step(self) -> bool:
        """Poll once, follow changes, process messages, and do what is due; False at the end."""
        if self._stopped.is_set():
            return False
        messages = self._bus.poll(0.2)
        for change in self._bus.changes():
            messages = [m for m in messages or () if m.partition != change.partition]
            self._change(change)
        if messages is None:
            return False
        for message in messages:
            self._take(message)
        self._round()
        return True

    def _round(self) -> None:
        """Do what is due, with or without messages."""
        now = self.progress = self._clock()
        late = now - self._flushed_at >= self._config.flush_seconds
        if self._outlet.rows >= self._config.flush_rows or (late and self._outlet.messages):
            self._flush()
        self._committed()
        if not self.snapshots.busy:
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
            self._give_up(partition)  # it left and came back: another member's state may be newer
            self._restore(partition)
        elif change.kind == "revoked" and partition in self._held:
            self._flush()
            self._snapshot(partition)  # saves the next owner work, unless it starts before this is written
            self._drop(partition)
        else:
            self._give_up(partition)

    def _give_up(self, partition: int) -> None:
        """Give up a partition that another member already has; its rows so far are valid."""
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
        recovery = self._recovery
        recovery.verify(self._bus)
        began = self._clock()
        unreadable = recovery.store.unreadable
        found = recovery.restore(partition, self._bus)
        now = self._clock()
        saved = found.offset if found.saved else -1
        self._held[partition] = _Held(found.detector, found.offset, saved, now, now)
        self._intake.adopt(found.detector)
        self._bus.seek(partition, found.offset)
        m, label = self._metrics, (str(partition),)
        with m.collector.lock:
            m.cold_starts.add((), int(found.cold))
            for name in found.detector.cold:
                m.cold_models.add((name,), 1)
            m.snapshots_unreadable.add((), recovery.store.unreadable - unreadable)
            m.restored_offset.set(label, found.offset)
            m.restore_seconds.set(label, self._clock() - began)
        for name in found.detector.cold:
            logger.warning(
                "partition=%d model=%s starts without state: the snapshot has none", partition, name
            )
        logger.info("partition=%d restored offset=%d log=%d..%d", partition, found.offset, *found.log)
        if not found.saved and found.offset > 0:  # the next owner must begin at the same offset
            self._snapshot(partition)

    def _take(self, message: Message) -> None:
        held = self._held.get(message.partition)
        if held is None or message.offset < held.next:  # polled before a seek
            return
        if message.offset > held.next:
            raise StateError(
                f"partition {message.partition}: offset {message.offset} follows {held.next - 1}: the log lacks "
                f"{message.offset - held.next} messages; to start without the state, move "
                f"{self._recovery.store.place}/{message.partition} away"
            )
        held.next += 1
        self._outlet.keep(message.partition, message.offset, self._intake.take(message))
        if message.time is not None:
            self._delays.append(self._wall() - message.time)

    def _flush(self) -> None:
        self._outlet.flush()
        self._flushed_at = self._clock()

    def _snapshot(self, partition: int) -> None:
        """Flush, make durable, and hand a copy of the state to the snapshot thread."""
        held = self._held[partition]
        held.tried_at = self._clock()
        if held.next == held.saved:
            held.saved_at = held.tried_at  # no messages since then
            return
        self._flush()
        self._outlet.sync(partition)
        self.snapshots.write(Snapshot(partition, held.next, held.detector.state()))

    def _committed(self) -> None:
        """Commit the offsets of snapshots that have been written."""
        for done in self.snapshots.written():
            label = (str(done.partition),)
            with self._metrics.collector.lock:
                if done.problem is None:
                    self._metrics.snapshot_seconds.set(label, done.seconds)
                    self._metrics.snapshot_bytes.set(label, done.size)
                else:
                    self._metrics.snapshot_failures.add((), 1)
            if done.problem is not None:
                logger.warning("snapshot failed: partition=%d error=%s", done.partition, done.problem)
            elif done.partition in self._held and done.offset >= self._held[done.partition].saved:
                held = self._held[done.partition]
                held.saved, held.saved_at = done.offset, self._clock()
                self._bus.commit(done.partition, done.offset)

    def _finish(self) -> None:
        """Make rows durable, write snapshots, and commit offsets.

        At the end of the log, live connections are ended for the sinks only. The snapshot is taken before that, so
        that later packets continue these connections.
        """
        self._flush()
        ended = not self._stopped.is_set()
        for partition, held in self._held.items():
            self._snapshot(partition)
            self.snapshots.wait()
            if ended and self._config.end_connections:
                self._outlet.end(partition, held.next, held.detector.flush())
        self._committed()
        self._flush()
        for partition in self._held:
            self._outlet.sync(partition)
        self._measure()
        failed = [p for p, h in self._held.items() if h.saved != h.next]
        if failed:
            raise OutputError(
                f"{self._recovery.store.place}: no snapshot of partitions {failed} was written; see the warnings above"
            )

    def _measure(self) -> None:
        self._intake.measure()
        now = self._clock()
        m = self._metrics
        delays, self._delays = np.array(self._delays), []
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
