"""How well scores separate positives from negatives, with bootstrap intervals over units.

Packets and connections of one host pair, or of one run, resemble each other, so they are not resampled one by one: a
*unit* is a group that is drawn or left out together. Units of positives and of negatives are drawn apart, so every
resample has both. Where several models were trained that differ only in their seed, each resample also draws one of
them: the interval holds for one such model, the value is the mean over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NEEDED = 10  # false positives that a rate must allow for, so that a rate f needs NEEDED / f negatives


class Estimate(NamedTuple):
    """A value and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Scored positives and negatives.

    scores: (m, n) of m models that differ in their seed, finite. positive: (n,). unit: (n,) number of the group that
    is resampled together. thresholds: (m,) scores above which each model alarms; None: there are none.
    """

    scores: Floats
    positive: Bools
    unit: Ints
    thresholds: Floats | None = None

    def __post_init__(self) -> None:
        m, n = self.scores.shape
        if self.positive.shape != (n,) or self.unit.shape != (n,):
            raise ValueError(
                f"{n} scores, but {self.positive.size} labels and {self.unit.size} units: must be equal"
            )
        if not 0 < np.count_nonzero(self.positive) < n:
            raise ValueError(f"{np.count_nonzero(self.positive)} of {n} are positive: both kinds are needed")
        if not np.isfinite(self.scores).all():
            raise ValueError("a score is not finite")
        if self.thresholds is not None and self.thresholds.shape != (m,):
            raise ValueError(f"{m} models, but {self.thresholds.size} thresholds")


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    rounds: int = 1000  # number of resamples
    seed: int = 0
    level: float = 0.95  # share of the resamples inside the interval


class Measures(NamedTuple):
    """What a sample says. None: too few negatives for the rate, or no threshold."""

    area: Estimate
    at: tuple[Estimate | None, ...]  # share of positives found, for each rate of false positives
    found: Estimate | None  # share of positives above the threshold
    false: Estimate | None  # share of negatives above the threshold
    areas: tuple[float, ...]  # area of each model
    units: tuple[int, int]  # number of units of positives and of negatives


@kernel
def _sweep(
    score: Floats, positive: Bools, unit: Ints, weight: Ints, rates: Floats, threshold: float, out: Floats
) -> None:
    """Walk down the scores. score: (n,) descending. weight: (units,) times that each unit is drawn.

    out: (3 + rates.size,) receives the area, shares of positives and of negatives above the threshold, then for each
    rate the greatest share of positives above a cut that lets at most that share of negatives through.
    """
    n = score.size
    positives, negatives = 0, 0
    for i in range(n):
        if positive[i]:
            positives += weight[unit[i]]
        else:
            negatives += weight[unit[i]]
    out[:] = 0.0
    hits, misses, area, i = 0, 0, 0.0, 0
    while i < n:
        j, up, right = i, 0, 0
        while j < n and score[j] == score[i]:  # equal scores lie on the same side of every cut
            if positive[j]:
                up += weight[unit[j]]
            else:
                right += weight[unit[j]]
            j += 1
        area += right * (hits + 0.5 * up)
        hits += up
        misses += right
        if score[i] > threshold:
            out[1] = hits / positives
            out[2] = misses / negatives
        for k in range(rates.size):
            if misses <= rates[k] * negatives * (1 + 1e-12):  # 0.07 * 100 is 7.000000000000001
                out[3 + k] = hits / positives
        i = j
    out[0] = area / (float(positives) * negatives)


class Swept:
    """A sample sorted once for every model, so that a resample is one pass."""

    def __init__(self, sample: Sample, rates: Sequence[float]) -> None:
        key = sample.unit * 2 + sample.positive  # a unit with both kinds counts as one of each
        keys, unit = np.unique(key, return_inverse=True)
        self.positive_units, self.negative_units = (
            np.flatnonzero(keys % 2 == 1),
            np.flatnonzero(keys % 2 == 0),
        )
        self.ones = np.ones(keys.size, np.int64)
        self._rates = np.array(rates, float)
        limits = np.full(len(sample.scores), np.inf) if sample.thresholds is None else sample.thresholds
        self._models = []
        for scores, limit in zip(sample.scores, limits):
            order = np.argsort(-scores, kind="stable")
            self._models.append((scores[order], sample.positive[order], unit[order], float(limit)))

    def __len__(self) -> int:
        return len(self._models)

    def measured(self, model: int, weight: Ints) -> Floats:
        """The measures of a model under weights of units."""
        score, positive, unit, limit = self._models[model]
        out = np.zeros(3 + self._rates.size)
        _sweep(score, positive, unit, weight, self._rates, limit, out)
        return out

    def drawn(self, rng: np.random.Generator) -> Ints:
        """Weights of one resample."""
        weight = np.zeros(self.ones.size, np.int64)
        for units in (self.positive_units, self.negative_units):
            weight[units] = np.bincount(rng.integers(0, units.size, units.size), minlength=units.size)
        return weight


def measures(sample: Sample, rates: Sequence[float] = (), how: Bootstrap | None = None) -> Measures:
    """Area under the ROC curve, and shares of positives found, with intervals.

    rates: rates of false positives in (0, 1). One that the negatives are too few for (NEEDED) gives None.
    """
    how = how or Bootstrap()
    if wrong := [rate for rate in rates if not 0 < rate < 1]:
        raise ValueError(f"rate of false positives {wrong[0]} must lie in (0, 1)")
    swept, rng = Swept(sample, rates), np.random.default_rng(how.seed)
    each = np.array([swept.measured(k, swept.ones) for k in range(len(swept))])
    rounds = np.array(
        [swept.measured(int(rng.integers(len(swept))), swept.drawn(rng)) for _ in range(how.rounds)]
    )
    tail = (1 - how.level) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail], axis=0)
    units = swept.positive_units.size, swept.negative_units.size
    own = [
        _estimate(float(v), float(a), float(b), units[k == 2], tail)
        for k, (v, a, b) in enumerate(zip(each.mean(axis=0), low, high))
    ]
    negatives = int(np.count_nonzero(~sample.positive))
    known = sample.thresholds is not None
    return Measures(
        Estimate(float(each[:, 0].mean()), float(low[0]), float(high[0])),
        tuple(own[3 + k] if negatives * rate >= NEEDED else None for k, rate in enumerate(rates)),
        own[1] if known else None,
        own[2] if known else None,
        tuple(each[:, 0].tolist()),
        units,
    )


def _estimate(value: float, low: float, high: float, units: int, tail: float) -> Estimate:
    """An interval of a share. Where none, or all, were above, resamples cannot differ: the exact binomial bound of that
    many units (Clopper & Pearson 1934) takes the place of the end that they cannot show.
    """
    if value == 0.0:
        high = max(high, 1 - tail ** (1 / units))
    if value == 1.0:
        low = min(low, tail ** (1 / units))
    return Estimate(value, low, high)


def area(scores: Floats, positive: Bools) -> float:
    """Area under the ROC curve: share of the pairs in which the positive has the greater score, ties half."""
    n = scores.size
    sample = Sample(scores[None].astype(float), positive, np.arange(n, dtype=np.int64))
    swept = Swept(sample, ())
    return float(swept.measured(0, swept.ones)[0])


def above(scores: Floats, thresholds: Floats, unit: Ints, how: Bootstrap | None = None) -> Estimate:
    """Share of scores above the threshold. scores: (m, n) of m models. thresholds: (m,). unit: (n,).

    ValueError without scores. A score that is not a number is above nothing.
    """
    how = how or Bootstrap()
    if not scores.size:
        raise ValueError("no scores")
    names, unit = np.unique(unit, return_inverse=True)
    over = np.stack([np.bincount(unit, row, names.size) for row in scores > thresholds[:, None]])
    size, rng = np.bincount(unit, minlength=names.size), np.random.default_rng(how.seed)
    shares = np.empty(how.rounds)
    for k in range(how.rounds):
        weight = np.bincount(rng.integers(0, names.size, names.size), minlength=names.size)
        shares[k] = weight @ over[rng.integers(len(over))] / (weight @ size)
    tail = (1 - how.level) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    value = float((over.sum(axis=1) / size.sum()).mean())
    return _estimate(value, float(low), float(high), names.size, tail)
