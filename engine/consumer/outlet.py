"""Rows for the sinks: kept until the next flush, and then counted in the metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.labels.rules import Probes
from engine.labels.slices import Slices
from engine.metrics import Metrics
from engine.scoring.batch import Records, ScoreBatch, join, of_new_hosts, shown_version

FLUSHED_ROW = 1 << 31  # first row number of connections ended by the end of the log

Spans = Mapping[int, tuple[int, int]]  # partition -> first offset, and the offset after the last


class Sink(Protocol):
    """Takes scores of connections."""

    def write(self, batch: ScoreBatch) -> None:
        """Take a batch; may keep it until ``flush``."""

    def flush(self, spans: Spans) -> None:
        """Send the batches written: all rows of the messages in ``spans``, and no later rows.

        Raises OutputError on failure.
        """

    def sync(self, partition: int) -> None:
        """Make flushed rows of a partition durable. Raises OutputError."""


class Outlet:
    """Numbers rows from detectors, and gives them to sinks and metrics."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        metrics: Metrics,
        probes: Probes,
        slices: Slices,
        resolve: Callable[[set[int]], None] = lambda _: None,
    ) -> None:
        """``probes``: may grow. ``resolve``: called with unknown probe ids, to look them up."""
        self._sinks = list(sinks)
        self._metrics = metrics
        self._probes = probes
        self._slices = slices
        self._resolve = resolve
        self._waiting: list[ScoreBatch] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self.rows = 0  # rows waiting to be flushed
        self.messages = 0  # messages waiting to be flushed

    def keep(self, partition: int, offset: int, batches: Sequence[ScoreBatch]) -> None:
        """Take the rows of a message, and number them."""
        self._take(partition, offset, batches, 0)
        self._cover(partition, offset, offset + 1)

    def end(self, partition: int, after: int, batches: Sequence[ScoreBatch]) -> None:
        """Take rows of connections ended by the end of the log, at offset ``after``.

        They are numbered after the last message's own rows, but cover no message: the last one is already covered,
        perhaps by a file that is already written.
        """
        self._take(partition, max(0, after - 1), batches, FLUSHED_ROW)
        self._cover(partition, after, after)

    def _take(self, partition: int, offset: int, batches: Sequence[ScoreBatch], first_row: int) -> None:
        next_row: dict[str, int] = {}  # numbered by model, so that models do not affect each other
        for batch in batches:
            first = next_row.get(batch.model, first_row)
            batch.scores["partition"], batch.scores["offset"] = partition, offset
            batch.scores["row"] = np.arange(first, first + len(batch))
            next_row[batch.model] = first + len(batch)
            self._waiting.append(batch)
            self.rows += len(batch)

    def _cover(self, partition: int, first: int, after: int) -> None:
        self._spans[partition] = self._spans.get(partition, (first, first))[0], after
        self.messages += 1

    def flush(self) -> None:
        """Give the sinks all rows, and count them."""
        if self._waiting:
            records, batches = join(self._waiting)
            self._meet(records)
            for batch in batches:
                for sink in self._sinks:
                    sink.write(batch)
                self._count_scores(batch)
            self._count(records)
        for sink in self._sinks:
            sink.flush(self._spans)
        self._waiting, self._spans = [], {}
        self.rows = self.messages = 0

    def sync(self, partition: int) -> None:
        """Make flushed rows of a partition durable."""
        for sink in self._sinks:
            sink.sync(partition)

    def _meet(self, records: Records) -> None:
        probes = records.rows["probe"]
        unknown = set(np.unique(probes).tolist()) - self._probes.keys()
        if unknown:
            self._resolve(unknown)
            if lost := unknown - self._probes.keys():
                with self._metrics.collector.lock:
                    self._metrics.unknown_probes.add((), int(np.isin(probes, list(lost)).sum()))
        self._slices.meet(self._probes)

    def _count(self, records: Records) -> None:
        """Count connections that ended: once each, however many models scored them."""
        probes = records.rows["probe"][records.rows["ending"] != 0]
        with self._metrics.collector.lock:
            for values, of in self._divided(probes):
                self._metrics.connections.add(values, int(np.count_nonzero(of)))
            for k, n in zip(*(column.tolist() for column in np.unique(probes, return_counts=True))):
                for name in self._slices.folded(k):
                    self._metrics.folded.add((name,), n)

    def _count_scores(self, batch: ScoreBatch) -> None:
        ended = batch.scores["final"]
        score, alarm = batch.scores["score"][ended], batch.scores["alarm"][ended]
        new = of_new_hosts(batch.scores)[ended]
        version = shown_version(batch.version, np.fmax.reduce(batch.scores["threshold"]))
        with self._metrics.collector.lock:
            for values, of in self._divided(batch.rows["probe"][ended]):
                labels = (batch.model, version, *values)
                self._metrics.scores(labels, score[of], None if batch.shadow else alarm[of], new[of])

    def _divided(self, probes: NDArray[np.uint32]) -> Iterator[tuple[tuple[str, ...], NDArray[np.bool_]]]:
        """The label values of each slice among the rows, and a mask of its rows."""
        met, which = np.unique(probes, return_inverse=True)
        values = [self._slices.values(k) for k in met.tolist()]
        slices = list(dict.fromkeys(values))  # far fewer than probes
        of = np.array([slices.index(v) for v in values], np.int64)[which]
        for k, one in enumerate(slices):
            yield one, of == k
