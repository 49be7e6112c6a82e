"""The trivial detector: how far a sample's oddest single column lies in its learned tail.

A column's score is its distance from the learned median. The unit is the distance from the median to the tail's
quantile on that side, but at least a hundredth of the learned range: otherwise rounding noise in a column that hardly
ever moves would hide all others. A sample's score is the greatest of its columns' scores. Relations between columns are
not learned: a model must find those to be worth its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels import kernel

Floats = NDArray[np.float64]
LEAST_UNIT = 0.01  # least unit, as a share of a column's learned range
COLUMNS = ("middle", "above", "below", "low", "high")  # arrays of the state with a value for each column
LARGEST = 1e9  # largest score, also of values that are not finite


@dataclass(frozen=True)
class BaselineConfig:
    """Settings that, with the same samples, give the same baseline."""

    features: int = 100  # number of columns
    learn_samples: int = 55_000  # number of samples to learn from
    kept: int = 4096  # most learned samples kept for the quantiles, evenly spread
    tail: float = 0.01  # share of learned values beyond the quantile that scores 1, on each side

    def __post_init__(self) -> None:
        for name in ("features", "learn_samples", "kept"):
            if not 1 <= getattr(self, name) < 2**40:
                raise ValueError(f"{name} {getattr(self, name)} must be from 1 to 2**40 - 1")
        if not 0.0 < self.tail < 0.5:
            raise ValueError(f"tail {self.tail} must lie in (0, 0.5)")


@kernel
def _score(
    x: Floats, middle: Floats, above: Floats, below: Floats, low: Floats, high: Floats, out: Floats
) -> int:
    """Score rows. out: (n,) receives the greatest of each row's column scores. Returns the values outside the range."""
    outside = 0
    for i in range(x.shape[0]):
        worst = 0.0
        for j in range(x.shape[1]):
            d = x[i, j] - middle[j]
            worst = max(worst, d * above[j], -d * below[j])  # max ignores NaN
            outside += not low[j] <= x[i, j] <= high[j]
        out[i] = min(worst, LARGEST)
    return outside


class Baseline:
    """Medians and tails of the columns of samples (n, features), learned from the first of them."""

    def __init__(self, config: BaselineConfig) -> None:
        self.config = config
        self.samples = 0  # samples seen by `process`
        self.out_of_range = 0  # values outside the learned range scored by `process`
        self._kept = np.empty((0, config.features))
        self.middle, self.above, self.below = (
            np.zeros(config.features) for _ in range(3)
        )  # above, below: 1/unit
        self.low, self.high = np.zeros(config.features), np.zeros(config.features)  # the learned range

    @property
    def learning(self) -> bool:
        """Whether the next sample is learned from."""
        return self.samples < self.config.learn_samples

    def process(self, x: Floats) -> Floats:
        """Take the rows of x in order; returns (n,) scores, NaN for those learned from."""
        out = np.full(len(x), np.nan)
        first = min(len(x), max(0, self.config.learn_samples - self.samples))
        if first:
            stride = -(-self.config.learn_samples // self.config.kept)
            self._kept = np.concatenate([self._kept, x[-self.samples % stride : first : stride]])
        self.samples += len(x)
        if first and not self.learning:
            self._fit()
        self.out_of_range += self._score(x[first:], out[first:])
        return out

    def score(self, x: Floats) -> Floats:
        """(n,) scores of the rows of x; the model does not change. NaN values are ignored."""
        out = np.empty(len(x))
        self._score(x, out)
        return out

    def _score(self, x: Floats, out: Floats) -> int:
        if x.shape[1:] != (self.config.features,):
            raise ValueError(f"samples of shape {x.shape}, must be (n, {self.config.features})")
        with np.errstate(invalid="ignore"):  # uncompiled: infinity times zero is NaN, as intended
            return int(_score(x, self.middle, self.above, self.below, self.low, self.high, out))

    def _fit(self) -> None:
        tail, kept = self.config.tail, np.nan_to_num(self._kept)
        low, self.middle, high = np.quantile(kept, [tail, 0.5, 1.0 - tail], axis=0)
        least = LEAST_UNIT * (kept.max(axis=0) - kept.min(axis=0))
        with np.errstate(divide="ignore"):  # a column that did not move during learning is ignored
            self.above, self.below = (
                np.where(least > 0, 1.0 / np.maximum(unit, least), 0.0)
                for unit in (high - self.middle, self.middle - low)
            )
        self.low, self.high = kept.min(axis=0), kept.max(axis=0)
        self._kept = self._kept[:0]

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that later scores depend on, as finite arrays."""
        counts = np.array([self.samples, self.out_of_range], np.int64)
        found = {"counts": counts, "kept": np.nan_to_num(self._kept)}
        return found | {name: getattr(self, name).copy() for name in COLUMNS}

    @classmethod
    def from_state(cls, config: BaselineConfig, state: Mapping[str, NDArray[Any]]) -> Baseline:
        """The baseline that ``state`` was taken from. KeyError or ValueError when it does not fit."""
        self = cls(config)
        self.samples, self.out_of_range = (int(n) for n in state["counts"])
        for name in COLUMNS:
            if state[name].shape != (config.features,):
                raise ValueError(f"{name} has shape {state[name].shape}, must be ({config.features},)")
            setattr(self, name, state[name].astype(np.float64))
        if (
            state["kept"].ndim != 2
            or state["kept"].shape[1] != config.features
            or min(self.samples, self.out_of_range) < 0
        ):
            raise ValueError(f"kept has shape {state['kept'].shape}, must be (n, {config.features})")
        self._kept = state["kept"].astype(np.float64)
        return self
