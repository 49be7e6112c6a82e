"""Probe labels on the bus: a dictionary in the compacted ``probes`` topic, by probe id.

The sensor publishes the labels of its packets before the packets; the detector looks an id up when it first meets
it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from engine.labels.rules import Labels, new_probe_id

logger = logging.getLogger(__name__)


AGAIN = 60.0  # seconds before an id that was not found is looked up again


class Table(Protocol):
    """Values by key."""

    def refresh(self) -> Mapping[bytes, bytes]:
        """All current values."""


class ProbeBook:
    """Labels by probe id, filled from a table on demand."""

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._clock = table, clock
        self._asked: dict[int, float] = {}  # ids that were not found, and when they were asked for
        self.probes: dict[int, dict[str, str]] = {0: {}}

    def resolve(self, wanted: set[int]) -> None:
        """Look up the probe ids that are not known yet; those that the table lacks stay unknown."""
        now = self._clock()
        if wanted and all(now - self._asked.get(probe, -AGAIN) < AGAIN for probe in wanted):
            return
        known = len(self.probes)
        for key, value in self._table.refresh().items():
            entry = _entry(key, value)
            if entry is not None:
                self.probes.setdefault(*entry)
        self._asked = {probe: now for probe in wanted if probe not in self.probes}
        logger.info(
            "probes looked up: wanted=%d known=%d new=%d", len(wanted), known, len(self.probes) - known
        )


def _entry(key: bytes, value: bytes) -> tuple[int, dict[str, str]] | None:
    try:
        probe, labels = int(key), json.loads(value)
        if not isinstance(labels, dict) or not 0 < probe < 1 << 32:
            raise ValueError("not a dictionary of text labels")
        return probe, {str(name): str(text) for name, text in labels.items()}
    except (ValueError, RecursionError) as error:
        logger.warning("probes topic: entry skipped: key=%.40r error=%s", key, error)
        return None


def introduce(labels: Labels, table: Table, publish: Callable[[bytes, bytes], None]) -> Labels:
    """The labels with ids that mean the same on the bus; publishes the labels that the table lacks.

    An id that already has other labels in the table (one in four billion) is replaced.
    """
    book = ProbeBook(table)
    book.resolve(set(labels.probes))
    renumbered: dict[int, int] = {0: 0}
    probes: dict[int, Mapping[str, str]] = {0: {}}
    for probe, meaning in labels.probes.items():
        if probe == 0:
            continue
        renumbered[probe] = probe
        if any(known.get(probe, meaning) != meaning for known in (book.probes, probes)):
            renumbered[probe] = new_probe_id(meaning, book.probes.keys() | probes.keys())
        probes[renumbered[probe]] = meaning
        if renumbered[probe] not in book.probes:
            text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
            publish(str(renumbered[probe]).encode(), text.encode())
    if all(a == b for a, b in renumbered.items()):
        return labels
    rules = labels.rules.copy()
    rules["probe"] = np.array([renumbered[k] for k in rules["probe"].tolist()], np.uint32)
    return Labels(probes, rules, labels.patterns)
