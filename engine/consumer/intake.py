"""Messages in, rows out: decodes blocks and feeds the detectors of the partitions of this process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import numpy as np

from connectors.bus.codec import CodecError, NewerFormatError
from connectors.bus.memory import Message
from connectors.prometheus import Series
from engine import wire
from engine.errors import StateError
from engine.metrics import Metrics
from engine.scoring.batch import PHASES, ScoreBatch, shown_version
from engine.scoring.detector import Detector

logger = logging.getLogger(__name__)

DeadLetter = Callable[[Message, str], None]


class Intake:
    """Detectors by partition, and counts of their messages."""

    def __init__(self, metrics: Metrics, dead_letter: DeadLetter | None = None) -> None:
        """``dead_letter``: receives messages that are not packet blocks, with the reason."""
        self.detectors: dict[int, Detector] = {}
        self._before: dict[int, Counter[tuple[str, str]]] = {}  # counts from before this process took over
        self._gone: Counter[tuple[str, str]] = Counter()  # counts made here of partitions since dropped
        self._metrics = metrics
        self._dead_letter = dead_letter
        self.packets = 0  # packets taken from messages
        self.unreadable = 0  # messages that were not packet blocks

    def take(self, message: Message) -> list[ScoreBatch]:
        """Rows from a message. An unreadable one is counted, goes to ``dead_letter``, and gives no rows.

        Raises StateError for a message of a newer format, which must not be skipped.
        """
        where = f"partition={message.partition} offset={message.offset}"
        try:
            block = wire.decode(message.value)
        except NewerFormatError as error:
            raise StateError(f"{where}: {error}; upgrade this detector") from error
        except CodecError as error:
            logger.warning("message skipped: %s error=%s", where, error)
            self.unreadable += 1
            with self._metrics.collector.lock:
                self._metrics.unreadable.add((), 1)
            if self._dead_letter is not None:
                self._dead_letter(message, str(error))
            return []
        detector = self.detectors[message.partition]
        dropped, unread = detector.dropped, detector.unread.copy()
        rows = detector.process(block)
        self.packets += len(block)
        with self._metrics.collector.lock:
            self._metrics.packets.add((block.sensor,), len(block))
            self._metrics.blocks.add((block.sensor,), 1)
            self._metrics.dropped.add((block.sensor, "sensor"), detector.dropped - dropped)
            for reason, n in (detector.unread - unread).items():
                self._metrics.unread.add((reason,), n)
        return rows

    def adopt(self, detector: Detector) -> None:
        """Take over a partition. Earlier counts of its detector belong to another process."""
        self.detectors[detector.partition] = detector
        self._before[detector.partition] = _counts(detector)

    def drop(self, partition: int) -> None:
        """Drop a partition; counts made here are kept."""
        detector = self.detectors.pop(partition, None)
        if detector is not None:
            self._gone.update(_counts(detector))
            self._gone.subtract(self._before.pop(partition))

    def totals(self) -> Counter[tuple[str, str]]:
        """Counts made here, by metric and model."""
        totals = Counter(self._gone)
        for partition, detector in self.detectors.items():
            totals.update(_counts(detector))
            totals.subtract(self._before[partition])
        return totals

    def measure(self) -> None:
        """Update the metrics of the detectors' state."""
        totals = self.totals()
        m, detectors = self._metrics, list(self.detectors.values())
        with m.collector.lock:
            m.live.set((), sum(d.tracker.counters["live"] for d in detectors))
            for (name, model), n in totals.items():
                series: Series = getattr(m, name)
                series.set((model,) if model else (), n)
            m.phase.values.clear()  # versions come and go
            m.threshold.values.clear()
            for scorer in (s for d in detectors for s in d.scorers):
                label = (scorer.name, shown_version(scorer.version, scorer.threshold_value))
                for phase in PHASES:
                    m.phase.add((*label, phase), int(scorer.phase == phase))
                greatest = m.threshold.values.get(label, np.nan)
                m.threshold.set(label, float(np.fmax(greatest, scorer.threshold_value)))


def _counts(detector: Detector) -> Counter[tuple[str, str]]:
    """Counts of a detector since its partition's beginning, by metric and model."""
    table = detector.tracker.counters
    found = {
        ("opened", ""): table["opened"], ("evicted", ""): table["evicted"], ("late", ""): table["late_packets"],
        ("copies", ""): table["copies"], ("steps_back", ""): table["steps_back"],
        ("lost_packets", ""): detector.lost_packets, ("repeated_packets", ""): detector.repeated_packets,
    }  # fmt: skip
    for scorer in detector.scorers:
        counters = detector.counters(scorer)
        found["flows_evicted", scorer.name] = counters.get("flows_evicted", 0)
        found["out_of_range", scorer.name] = counters.get("out_of_range", 0)
    return Counter(found)
