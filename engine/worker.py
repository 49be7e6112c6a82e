"""The consumer loop: poll, process, flush sinks, commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from connectors.codec import CodecError, NewerFormatError
from connectors.memory import Message
from engine import wire
from engine.detector import Detector
from engine.errors import StateError
from engine.labels import slice_values
from engine.metrics import Metrics
from engine.types import PHASES, ScoreBatch, join

logger = logging.getLogger(__name__)


class Consumer(Protocol):
    """Where messages come from."""

    def poll(self, timeout: float | None = None, most: int = 16) -> list[Message] | None:
        """The next messages of all partitions in order, [] after the timeout, None when nothing will come."""

    def commit(self, partition: int, offset: int) -> None:
        """Messages before ``offset`` will not be asked for again."""


class Sink(Protocol):
    """Takes scores of connections."""

    def write(self, batch: ScoreBatch) -> None:
        """Take a batch; may keep it back until ``flush``."""

    def flush(self) -> None:
        """Make what was written durable. Raises OutputError when that cannot be."""


class Worker:
    """Feeds the detectors of some partitions from a bus, and sinks and metrics from the detectors."""

    def __init__(
        self,
        bus: Consumer,
        detectors: Sequence[Detector],
        sinks: Sequence[Sink],
        metrics: Metrics,
        probes: Sequence[dict[str, str]] = ({},),
        slices: tuple[Sequence[str], int] = ((), 32),
        flush_after: tuple[int, int] = (8192, 16),
    ) -> None:
        """``probes``: labels by probe id. ``slices``: names of the slice labels and how many values each.

        ``flush_after``: so many connections or messages may wait before sinks are flushed and offsets
        committed; not more messages than the bus holds, or publishing would wait for ever.
        """
        self._bus = bus
        self._detectors = {d.partition: d for d in detectors}
        self._sinks = list(sinks)
        self._metrics = metrics
        self._slice_names = tuple(slices[0])
        self._slices, self._folded = slice_values(probes, slices[0], slices[1])
        combos = list(dict.fromkeys(self._slices))
        self._combos = combos
        self._combo_of = np.array([combos.index(values) for values in self._slices], np.int64)
        self._flush_connections, self._flush_messages = flush_after
        self._uncommitted = 0
        self._pending: dict[tuple[str, str], list[ScoreBatch]] = {}
        self._n_pending = 0
        self._to_commit: dict[int, int] = {}

    def run(self) -> None:
        """Work until the bus has ended; then end all connections, flush and commit.

        When sinks are flushed depends on the messages alone, not on how many a poll gives, as long as they
        keep coming. Raises what the publisher ended with, before anything is ended here.
        """
        while (messages := self._bus.poll(timeout=1.0)) is not None:
            for message in messages:
                self._take(message)
                if self._n_pending >= self._flush_connections or self._uncommitted >= self._flush_messages:
                    self._flush()
            if not messages and self._uncommitted:
                self._flush()
            self._state_metrics()
        self.close()

    def close(self) -> None:
        """End all connections, flush and commit."""
        for partition, detector in self._detectors.items():
            self._keep(detector.flush(self._to_commit.get(partition, 0)))
        self._flush()
        self._state_metrics()

    def _take(self, message: Message) -> None:
        self._to_commit[message.partition] = message.offset + 1
        self._uncommitted += 1
        try:
            block = wire.decode(message.value)
        except NewerFormatError as error:
            raise StateError(f"{_place(message)}: {error}; upgrade this worker before it goes on") from error
        except CodecError as error:
            logger.warning("message skipped: %s error=%s", _place(message), error)
            with self._metrics.collector.lock:
                self._metrics.unreadable.add((), 1)
            return
        self._keep(self._detectors[message.partition].process(block, message.offset))
        with self._metrics.collector.lock:
            self._metrics.packets.add((block.sensor,), len(block))
            self._metrics.blocks.add((block.sensor,), 1)
            if block.dropped:
                self._metrics.dropped.add((block.sensor, "sensor"), block.dropped)
            for reason, n in block.unread.items():
                self._metrics.unread.add((reason,), n)

    def _keep(self, batches: list[ScoreBatch]) -> None:
        for batch in batches:
            self._pending.setdefault((batch.model, batch.version), []).append(batch)
            self._n_pending += len(batch)

    def _flush(self) -> None:
        for batches in self._pending.values():
            batch = join(batches)
            for sink in self._sinks:
                sink.write(batch)
            self._count(batch)
        for sink in self._sinks:
            sink.flush()
        self._pending, self._n_pending = {}, 0
        for partition, offset in self._to_commit.items():
            self._bus.commit(partition, offset)
        self._uncommitted = 0

    def _count(self, batch: ScoreBatch) -> None:
        ended = batch.scores["final"]
        probe, score, alarm = (
            batch.rows["probe"][ended],
            batch.scores["score"][ended],
            batch.scores["alarm"][ended],
        )
        with self._metrics.collector.lock:
            self._metrics.scores(batch.model, self._combo_of[probe], self._combos, score, alarm)
            if any(self._folded):
                for k, n in zip(*np.unique(probe, return_counts=True)):
                    for name in self._folded[k]:
                        self._metrics.folded.add((name,), int(n))

    def _state_metrics(self) -> None:
        m, detectors = self._metrics, list(self._detectors.values())
        with m.collector.lock:
            tables = [d.tracker.counters for d in detectors]
            for series, name in (
                (m.live, "live"), (m.opened, "opened"), (m.evicted, "evicted"), (m.late, "late_packets"),
            ):  # fmt: skip
                series.set((), sum(t[name] for t in tables))
            m.lost_blocks.set((), sum(d.lost_blocks for d in detectors))
            m.repeated_blocks.set((), sum(d.repeated_blocks for d in detectors))
            scorers = [s for d in detectors for s in d.scorers]
            for name in {s.name for s in scorers}:
                mine = [s for s in scorers if s.name == name]
                counters = [s.counters() for s in mine]
                m.flows_evicted.set((name,), sum(c.get("flows_evicted", 0) for c in counters))
                m.out_of_range.set((name,), sum(c.get("out_of_range", 0) for c in counters))
                for phase in PHASES:
                    m.phase.set((name, phase), sum(s.phase == phase for s in mine))
                values = [s.threshold_value for s in mine]
                m.threshold.set((name,), float(np.nanmax(values)) if not np.isnan(values).all() else np.nan)


def _place(message: Message) -> str:
    return f"partition={message.partition} offset={message.offset}"
