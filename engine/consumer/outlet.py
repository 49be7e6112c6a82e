"""Rows on their way out: kept until the sinks are flushed, and counted in the metrics then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from engine.labels.file import Probes, Slices
from engine.metrics import Metrics
from engine.types import ScoreBatch, join

FLUSHED_ROW = 1 << 31  # first row number of connections that the end of the log ends

Spans = Mapping[int, tuple[int, int]]  # partition -> offsets first..next


class Sink(Protocol):
    """Takes scores of connections."""

    def write(self, batch: ScoreBatch) -> None:
        """Take a batch; may keep it back until ``flush``."""

    def flush(self, spans: Spans) -> None:
        """Send what was written on its way: all rows of the messages of ``spans``, and of none behind them.

        Raises OutputError when that cannot be.
        """

    def sync(self, partition: int) -> None:
        """Make what was flushed of a partition durable. Raises OutputError."""


class Outlet:
    """Between detectors and sinks."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        metrics: Metrics,
        probes: Probes,
        slices: Slices,
        resolve: Callable[[set[int]], None] = lambda _: None,
    ) -> None:
        """``probes``: may grow. ``resolve``: called with probe ids that are not among them, to look them up."""
        self._sinks = list(sinks)
        self._metrics = metrics
        self._probes = probes
        self._slices = slices
        self._resolve = resolve
        self._waiting: dict[tuple[str, str], list[ScoreBatch]] = {}
        self._spans: dict[int, tuple[int, int]] = {}
        self.rows = 0  # waiting
        self.messages = 0  # waiting to be flushed

    def keep(self, partition: int, offset: int, batches: Sequence[ScoreBatch]) -> None:
        """Take the rows that a message gave, and give them their numbers."""
        self._take(partition, offset, batches, 0)
        self._cover(partition, offset, offset + 1)

    def end(self, partition: int, after: int, batches: Sequence[ScoreBatch]) -> None:
        """Take rows of connections that the end of the log, at offset ``after``, ended.

        They count as the last message's, behind its own, but cover no message: that one is covered already, perhaps in
        a file that is written.
        """
        self._take(partition, max(0, after - 1), batches, FLUSHED_ROW)
        self._cover(partition, after, after)

    def _take(self, partition: int, offset: int, batches: Sequence[ScoreBatch], first_row: int) -> None:
        for batch in batches:
            batch.scores["partition"], batch.scores["offset"] = partition, offset
            batch.scores["row"] = np.arange(first_row, first_row + len(batch))
            first_row += len(batch)
            self._waiting.setdefault((batch.model, batch.version), []).append(batch)
            self.rows += len(batch)

    def _cover(self, partition: int, first: int, after: int) -> None:
        self._spans[partition] = self._spans.get(partition, (first, first))[0], after
        self.messages += 1

    def flush(self) -> None:
        """Give the sinks all rows, and count them."""
        for batches in self._waiting.values():
            batch = join(batches)
            self._meet(batch)
            for sink in self._sinks:
                sink.write(batch)
            self._count(batch)
        for sink in self._sinks:
            sink.flush(self._spans)
        self._waiting, self._spans = {}, {}
        self.rows = self.messages = 0

    def sync(self, partition: int) -> None:
        """Make durable what was flushed of a partition."""
        for sink in self._sinks:
            sink.sync(partition)

    def _meet(self, batch: ScoreBatch) -> None:
        unknown = set(np.unique(batch.rows["probe"]).tolist()) - self._probes.keys()
        if unknown:
            self._resolve(unknown)
            if lost := unknown - self._probes.keys():
                with self._metrics.collector.lock:
                    self._metrics.unknown_probes.add((), int(np.isin(batch.rows["probe"], list(lost)).sum()))
        self._slices.meet(self._probes)

    def _count(self, batch: ScoreBatch) -> None:
        ended = batch.scores["final"]
        probe, score, alarm = (
            batch.rows["probe"][ended],
            batch.scores["score"][ended],
            batch.scores["alarm"][ended],
        )
        with self._metrics.collector.lock:
            met, which, counts = np.unique(probe, return_inverse=True, return_counts=True)
            values = [self._slices.values(k) for k in met.tolist()]
            slices = list(dict.fromkeys(values))  # far fewer than probes
            of = np.array([slices.index(v) for v in values], np.int64)[which]
            for k, slice_values in enumerate(slices):
                self._metrics.scores((batch.model, *slice_values), score[of == k], alarm[of == k])
            for k, n in zip(met.tolist(), counts.tolist()):
                for name in self._slices.folded(k):
                    self._metrics.folded.add((name,), n)
