"""Where a partition continues: at its newest intact snapshot, else at the log's start, else cold.

A state belongs to one offset of the log, so the snapshot decides and not the committed offset. A partition starts cold,
at the group's committed offset, only if it has no snapshot and its log no longer begins at 0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.consumer.snapshot import Snapshot, SnapshotStore, Stamp
from engine.errors import StateError
from engine.scoring.detector import Detector

logger = logging.getLogger(__name__)


class Log(Protocol):
    """The topic whose partitions are restored."""

    @property
    def partitions(self) -> int:
        """Current number of partitions of the topic."""

    def log(self, partition: int) -> tuple[int, int]:
        """The first offset in the log, and the offset after its last message."""

    def committed(self, partition: int) -> int | None:
        """The offset that the group committed; None without one."""


@dataclass(frozen=True)
class Restored:
    """A partition's detector, ready for the message at ``offset``."""

    detector: Detector
    offset: int
    log: tuple[int, int]  # first offset in the log, and the offset after its last message
    saved: bool  # whether this state comes from a snapshot
    cold: bool  # whether earlier packets of the partition were never seen


@dataclass(frozen=True)
class Recovery:
    """Restores partitions of one topic."""

    store: SnapshotStore
    stamp: Stamp
    build: Callable[[int], Detector]  # makes an empty detector of a partition
    identify: Callable[[], None] = lambda: None  # raises StateError if the topic was replaced

    def verify(self, log: Log) -> None:
        """Raise StateError if the topic is no longer the one in the stamp."""
        if log.partitions != self.stamp.partitions:
            raise StateError(
                f"the topic has {log.partitions} partitions now and had {self.stamp.partitions}: host pairs are "
                f"now on other partitions; stop all detectors, move {self.store.place} away and start again"
            )
        self.identify()

    def restore(self, partition: int, log: Log) -> Restored:
        """The detector of a partition and the offset at which it continues.

        Raises StateError when the log lacks messages after the snapshot.
        """
        found = self.store.newest(partition, self.stamp)
        first, end = log.log(partition)
        detector = self.build(partition)
        if found is not None:
            self._check(found, first, end)
            try:
                detector.restore(found.state)
            except StateError as error:
                repair = f"to start without it, move {self.store.place}/{partition} away"
                raise StateError(f"{error}; {repair}") from error
            return Restored(detector, found.offset, (first, end), saved=True, cold=False)
        if first == 0:
            logger.warning("partition=%d no snapshot, reading the log from its start", partition)
            return Restored(detector, 0, (first, end), saved=False, cold=False)
        offset = min(end, max(first, log.committed(partition) or 0))
        detector.start_cold()
        logger.warning(
            "partition=%d no snapshot and the log begins at %d: starting cold at %d, connections are marked midstream",
            partition, first, offset,
        )  # fmt: skip
        return Restored(detector, offset, (first, end), saved=False, cold=True)

    def _check(self, found: Snapshot, first: int, end: int) -> None:
        where = f"partition {found.partition}: the snapshot continues at offset {found.offset}"
        repair = f"to start without it, move {self.store.place}/{found.partition} away"
        if found.offset < first:
            raise StateError(
                f"{where}, but the log begins at {first}: {first - found.offset} messages are gone (the detector was "
                f"down for longer than the retention); {repair}, and raise the topic's retention"
            )
        if found.offset > end:
            raise StateError(
                f"{where}, but the log ends at {end}: it has lost messages that were processed; {repair}"
            )
