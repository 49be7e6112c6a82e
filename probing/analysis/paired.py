"""Several detectors on the same connections: estimates, and differences of pairs, from the same resamples.

Each resample draws units (probing/analysis/roc.py) once for all detectors. Where a detector is several nets that differ
in their seed, its value is their mean, and each resample draws nets with replacement, one fewer than there are, as the
spread between few nets would else be understated: the same for all detectors if these are the same nets given different
inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probing.analysis.roc import Bootstrap, Estimate, Floats, Sample, Swept

AREA, FOUND, FALSE = range(
    3
)  # area under the ROC curve; shares of positives and of negatives above the threshold


@dataclass(frozen=True)
class Paired:
    """Resampled measures of detectors."""

    names: tuple[str, ...]
    values: Floats  # (detectors, 3) AREA, FOUND, FALSE
    rounds: Floats  # (resamples, detectors, 3)
    level: float  # share of the resamples inside an interval

    def estimate(self, name: str, measure: int) -> Estimate:
        """A measure of a detector."""
        k = self.names.index(name)
        return self._estimate(float(self.values[k, measure]), self.rounds[:, k, measure])

    def difference(self, one: str, other: str, measure: int) -> Estimate:
        """How much greater a measure of one detector is than another's."""
        a, b = self.names.index(one), self.names.index(other)
        value = float(self.values[a, measure] - self.values[b, measure])
        return self._estimate(value, self.rounds[:, a, measure] - self.rounds[:, b, measure])

    def _estimate(self, value: float, rounds: Floats) -> Estimate:
        tail = (1 - self.level) / 2
        low, high = np.quantile(rounds, [tail, 1 - tail])
        return Estimate(value, float(low), float(high))


def paired(samples: Mapping[str, Sample], how: Bootstrap | None = None, *, same_nets: bool = False) -> Paired:
    """Resample detectors together. samples: of the same connections in the same order, by name.

    same_nets: whether net k of each detector is the same. Raises ValueError when samples are not of the same
    connections, or not of as many nets where these are the same.
    """
    how = how or Bootstrap()
    first = next(iter(samples.values()))
    for name, sample in samples.items():
        if not np.array_equal(sample.positive, first.positive) or not np.array_equal(sample.unit, first.unit):
            raise ValueError(f"{name}: not of the same connections as the others")
        if same_nets and len(sample.scores) != len(first.scores):
            raise ValueError(f"{name}: {len(sample.scores)} nets, the others have {len(first.scores)}")
    swept = [Swept(sample, ()) for sample in samples.values()]
    rng = np.random.default_rng(how.seed)
    rounds = np.empty((how.rounds, len(swept), 3))
    for r in range(how.rounds):
        weight = swept[0].drawn(rng)
        nets = rng.integers(len(swept[0]), size=max(1, len(swept[0]) - 1))
        for k, one in enumerate(swept):
            if not same_nets:
                nets = rng.integers(len(one), size=max(1, len(one) - 1))
            drawn, times = np.unique(nets, return_counts=True)
            each = np.array([one.measured(int(net), weight) for net in drawn])
            rounds[r, k] = times @ each / times.sum()
    values = np.array(
        [np.mean([one.measured(n, one.ones) for n in range(len(one))], axis=0) for one in swept]
    )
    return Paired(tuple(samples), values, rounds, how.level)


def balanced_threshold(scores: Floats, positive: Floats) -> float:
    """The cut with the greatest geometric mean of the share of positives above it and of negatives not above it.

    It lies halfway between two scores. ValueError when one of the kinds is missing.
    """
    good = np.asarray(positive, bool)
    if good.all() or not good.any():
        raise ValueError("positives and negatives are both needed for a threshold")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(good[order])
    misses = np.cumsum(~good[order])
    ends = np.flatnonzero(np.diff(ordered) < 0)  # last of each group of equal scores but the lowest
    if not ends.size:
        return float(ordered[0])
    mean = np.sqrt(hits[ends] / hits[-1] * (1 - misses[ends] / misses[-1]))
    best = int(ends[np.argmax(mean)])
    return float((ordered[best] + ordered[best + 1]) / 2)
