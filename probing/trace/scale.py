"""The axis of scores that models share: as they are where all lie in 0..1, else as multiples of their thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.types import Floats
from probing.trace.connection import TracedConnection

MULTIPLES = (0.0, 0.5, 1.0, 2.0, 5.0, 20.0)


class Scale(NamedTuple):
    """Heights of scores from 0 to 1."""

    raw: bool  # whether scores are drawn as they are
    name: str
    dashed: str  # what the dashed lines are; empty: there are none
    ticks: list[tuple[float, str]]
    unit: dict[str, float]  # of each model without a threshold: its greatest score

    @staticmethod
    def of(connections: Sequence[TracedConnection]) -> Scale:
        """The scale of all scores of some connections."""
        models = list(connections[0].scores)
        least, greatest = {}, {}
        for name in models:
            whole = np.concatenate([one.scores[name] for one in connections])
            known = whole[~np.isnan(whole)]
            least[name], greatest[name] = (float(f(known)) if known.size else 0.0 for f in (np.min, np.max))
        named = any(_positive(one.thresholds.get(name)) for one in connections for name in models)
        if all(v >= 0 for v in least.values()) and all(v <= 1 for v in greatest.values()):
            ticks = [(v / 4, f"{v / 4:g}") for v in range(5)]
            return Scale(True, "score", "threshold" if named else "", ticks, {})
        unit = {name: value if value > 0 else 1.0 for name, value in greatest.items()}
        ticks = [(_squash(v), f"×{v:g}" if v else "0") for v in MULTIPLES]
        return Scale(False, "score / threshold", "threshold (×1)", ticks, unit)

    def heights(self, one: TracedConnection, model: str) -> Floats:
        """(n,) of the packets of a connection; NaN where they have no score."""
        if self.raw:
            return one.scores[model]
        threshold = one.thresholds.get(model)
        unit = threshold if threshold is not None and _positive(threshold) else self.unit[model]
        multiple = np.maximum(one.scores[model] / unit, 0.0)
        result: Floats = multiple / (1.0 + multiple)
        return result

    def threshold(self, one: TracedConnection, model: str) -> float | None:
        """Height of a model's threshold; None: it has none."""
        threshold = one.thresholds.get(model)
        if threshold is None or not _positive(threshold):
            return None
        return min(1.0, threshold) if self.raw else _squash(1.0)


def _positive(threshold: float | None) -> bool:
    return threshold is not None and math.isfinite(threshold) and threshold > 0


def _squash(multiple: float) -> float:
    """Height of a multiple of the threshold: the threshold stands in the middle, and no score above the top."""
    return multiple / (1.0 + multiple)
