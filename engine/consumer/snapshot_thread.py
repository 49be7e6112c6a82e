"""The thread that writes snapshots, one at a time, so that a slow disk does not hold up detection."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.consumer.snapshot import Snapshot, SnapshotStore, Stamp


@dataclass(frozen=True)
class Written:
    """The outcome of one snapshot."""

    partition: int
    offset: int
    seconds: float
    size: int  # bytes
    problem: str | None  # reason for a failure; None: the snapshot is in the store


class SnapshotThread:
    """Writes snapshots to a store in the background. Each is a copy that its detector does not change."""

    def __init__(self, store: SnapshotStore, stamp: Stamp, clock: Callable[[], float]) -> None:
        self._store, self._stamp, self._clock = store, stamp, clock
        self._todo: queue.Queue[Snapshot | None] = queue.Queue(1)
        self._written: queue.Queue[Written] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written or waits to be."""
        return self._todo.unfinished_tasks > 0

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot after the previous one; blocks while another one is waiting."""
        self._todo.put(snapshot)

    def wait(self) -> None:
        """Block until every snapshot given so far is written or has failed."""
        self._todo.join()

    def written(self) -> list[Written]:
        """Outcomes since the last call, in order."""
        return [self._written.get() for _ in range(self._written.qsize())]

    def close(self) -> None:
        """Write waiting snapshots, and end the thread."""
        self._todo.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (snapshot := self._todo.get()) is not None:
            began, size, problem = self._clock(), 0, None
            try:
                size = self._store.save(snapshot, self._stamp)
            except Exception as error:
                problem = str(error)
            seconds = self._clock() - began
            self._written.put(Written(snapshot.partition, snapshot.offset, seconds, size, problem))
            self._todo.task_done()
        self._todo.task_done()  # counts the end itself, so that a late wait returns
