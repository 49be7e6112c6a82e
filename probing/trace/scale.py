"""The axis of scores that models share: scores as they are if all lie in 0..1, else multiples of the thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.types import Floats
from probing.trace.connection import TracedConnection

LINEAR = 3.0  # greatest multiple of a threshold up to which the axis is linear
MULTIPLES = (0.0, 0.5, 1.0, 2.0, 5.0, 20.0)


class Scale(NamedTuple):
    """Heights of scores from 0 to 1."""

    raw: bool  # whether scores are drawn as they are
    top: float  # value at height 1; 0: v has height v / (1 + v), so the threshold stands in the middle
    units: dict[str, float]  # of each model without a threshold: the score that counts as 1

    @staticmethod
    def of(connections: Sequence[TracedConnection]) -> Scale:
        """The scale of all scores of some connections."""
        units, raw = {}, True
        for name in connections[0].scores:
            whole = np.concatenate([one.scores[name] for one in connections])
            known = whole[~np.isnan(whole)]
            raw = raw and not ((known < 0).any() or (known > 1).any())
            units[name] = float(known.max()) if known.size and known.max() > 0 else 1.0
        if raw:
            return Scale(True, 1.0, units)
        multiples = [
            float(np.nanmax(one.scores[name], initial=0.0)) / (_threshold(one, name) or units[name])
            for one in connections
            for name in units
        ]
        greatest = max(multiples, default=0.0)
        return Scale(False, max(1.1, 1.1 * greatest) if greatest <= LINEAR else 0.0, units)

    @property
    def name(self) -> str:
        """What the axis shows."""
        return "score" if self.raw else "score / threshold"

    def ticks(self) -> list[tuple[float, str]]:
        """Heights with their names."""
        if self.raw:
            return [(v / 4, f"{v / 4:g}") for v in range(5)]
        shown = MULTIPLES if not self.top else [v / 2 for v in range(int(self.top * 2) + 1)]
        return [(self._height(v), f"×{v:g}" if v else "0") for v in shown]

    def heights(self, one: TracedConnection, model: str) -> Floats:
        """(n,) of the packets of a connection; NaN where they have no score."""
        unit = 1.0 if self.raw else _threshold(one, model) or self.units[model]
        value = np.maximum(one.scores[model] / unit, 0.0)
        result: Floats = value / self.top if self.top else value / (1.0 + value)
        return result

    def threshold(self, one: TracedConnection, model: str) -> float | None:
        """Height of a model's threshold; None: it has none, or one above the axis."""
        threshold = _threshold(one, model)
        if threshold is None or (self.raw and threshold > 1):
            return None
        return threshold if self.raw else self._height(1.0)

    def _height(self, value: float) -> float:
        return value / self.top if self.top else value / (1.0 + value)


def _threshold(one: TracedConnection, model: str) -> float | None:
    """The threshold of a model; None: it has none by which to divide."""
    value = one.thresholds.get(model, math.nan)
    return value if math.isfinite(value) and value > 0 else None
