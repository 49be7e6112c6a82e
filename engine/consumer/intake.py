"""Messages in, rows out: decodes blocks and feeds the detectors of the partitions of this process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from connectors.bus.codec import CodecError, NewerFormatError
from connectors.bus.memory import Message
from connectors.prometheus import Series
from engine import wire
from engine.errors import StateError
from engine.metrics import HOLD_BOUNDS, Metrics
from engine.scoring.batch import PHASES, ScoreBatch, shown_version
from engine.scoring.detector import Detector

logger = logging.getLogger(__name__)

Counts = Counter[tuple[str, tuple[str, ...]]]  # by metric and its labels
# counters of a pass of tokens, with their metrics and labels
TOKEN_COUNTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tokens": ("tokens", ()), "not_tcp": ("tokenless", ("not_tcp",)), "left_out": ("tokenless", ("policy",)),
    "lost_acked": ("stream_holes", ("acknowledged",)), "lost_time": ("stream_holes", ("patience",)),
    "fallbacks": ("stream_fallbacks", ()),
}  # fmt: skip
HOLDS = (
    "under_1_ms",
    "under_10_ms",
    "under_100_ms",
    "under_1_s",
    "held",
    "held_ns",
)  # cumulative, then their time
DeadLetter = Callable[[Message, str], None]


class Intake:
    """Detectors by partition, and counts of their messages."""

    def __init__(self, metrics: Metrics, dead_letter: DeadLetter | None = None) -> None:
        """``dead_letter``: receives messages that are not packet blocks, with the reason."""
        self.detectors: dict[int, Detector] = {}
        self._before: dict[int, Counts] = {}  # counts from before this process took over
        self._gone: Counts = Counter()  # counts made here of partitions since dropped
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

    def totals(self) -> Counts:
        """Counts made here, by metric and labels."""
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
            for (name, labels), n in totals.items():
                if name != "hold":
                    series: Series = getattr(m, name)
                    series.set(labels, n)
            for model in {labels[0] for name, labels in totals if name == "hold"}:
                m.hold.values[model,] = _holds({name: totals["hold", (model, name)] for name in HOLDS})
            m.waiting.values.clear()
            for detector in detectors:
                for scorer in detector.scorers:
                    if (waiting := detector.counters(scorer).get("waiting")) is not None:
                        m.waiting.add((scorer.name,), waiting)
            m.phase.values.clear()  # versions come and go
            m.threshold.values.clear()
            for scorer in (s for d in detectors for s in d.scorers):
                label = (scorer.name, shown_version(scorer.version, scorer.threshold_value))
                for phase in PHASES:
                    m.phase.add((*label, phase), int(scorer.phase == phase))
                greatest = m.threshold.values.get(label, np.nan)
                m.threshold.set(label, float(np.fmax(greatest, scorer.threshold_value)))


def _counts(detector: Detector) -> Counts:
    """Counts of a detector since its partition's beginning."""
    table = detector.tracker.counters
    found: dict[tuple[str, tuple[str, ...]], int] = {
        ("opened", ()): table["opened"], ("evicted", ()): table["evicted"], ("late", ()): table["late_packets"],
        ("copies", ()): table["copies"], ("steps_back", ()): table["steps_back"],
        ("lost_packets", ()): detector.lost_packets, ("repeated_packets", ()): detector.repeated_packets,
    }  # fmt: skip
    for scorer in detector.scorers:
        counters = detector.counters(scorer)
        for metric in ("flows_evicted", "out_of_range"):
            found[metric, (scorer.name,)] = counters.get(metric, 0)
        if "tokens" in counters:
            for name, (metric, labels) in TOKEN_COUNTS.items():
                found[metric, (scorer.name, *labels)] = counters[name]
            for name in HOLDS:
                found["hold", (scorer.name, name)] = counters[name]
    return Counter(found)


def _holds(counts: Mapping[str, int]) -> tuple[tuple[float, ...], NDArray[np.int64], float]:
    """Bounds, counts and sum of a histogram of the seconds that packets waited."""
    upto = [counts[name] for name in HOLDS[:-1]]
    among = np.array([n - before for before, n in zip([0, *upto], upto)], np.int64)
    return HOLD_BOUNDS, among, counts["held_ns"] * 1e-9
