"""Messages in, rows out: decodes blocks and feeds the detectors of the partitions this process has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import numpy as np

from connectors.codec import CodecError, NewerFormatError
from connectors.memory import Message
from engine import wire
from engine.detector import Detector
from engine.errors import StateError
from engine.metrics import Metrics
from engine.types import PHASES, ScoreBatch

logger = logging.getLogger(__name__)

DeadLetter = Callable[[Message, str], None]


class Intake:
    """Detectors by partition, and what is counted of their messages."""

    def __init__(self, metrics: Metrics, dead_letter: DeadLetter | None = None) -> None:
        """``dead_letter``: takes messages that hold no block, with the reason."""
        self.detectors: dict[int, Detector] = {}
        self._metrics = metrics
        self._dead_letter = dead_letter

    def take(self, message: Message) -> list[ScoreBatch]:
        """Rows that a message gives. One that cannot be read is counted, put away, and gives none.

        Raises StateError for a message of a newer format, which is not to be skipped.
        """
        where = f"partition={message.partition} offset={message.offset}"
        try:
            block = wire.decode(message.value)
        except NewerFormatError as error:
            raise StateError(f"{where}: {error}; upgrade this detector before it goes on") from error
        except CodecError as error:
            logger.warning("message skipped: %s error=%s", where, error)
            with self._metrics.collector.lock:
                self._metrics.unreadable.add((), 1)
            if self._dead_letter is not None:
                self._dead_letter(message, str(error))
            return []
        rows = self.detectors[message.partition].process(block, message.offset)
        with self._metrics.collector.lock:
            self._metrics.packets.add((block.sensor,), len(block))
            self._metrics.blocks.add((block.sensor,), 1)
            self._metrics.dropped.add((block.sensor, "sensor"), block.dropped)
            for reason, n in block.unread.items():
                self._metrics.unread.add((reason,), n)
        return rows

    def measure(self) -> None:
        """Bring the metrics of the detectors' state up to date."""
        measure(self._metrics, self.detectors.values())


def measure(m: Metrics, some: Iterable[Detector]) -> None:
    """Set the metrics that detectors count themselves."""
    detectors = list(some)
    with m.collector.lock:
        tables = [d.tracker.counters for d in detectors]
        for series, name in (
            (m.live, "live"), (m.opened, "opened"), (m.evicted, "evicted"), (m.late, "late_packets"),
        ):  # fmt: skip
            series.set((), sum(t[name] for t in tables))
        m.lost_packets.set((), sum(d.lost_packets for d in detectors))
        m.repeated_packets.set((), sum(d.repeated_packets for d in detectors))
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
