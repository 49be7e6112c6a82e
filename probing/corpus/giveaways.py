"""Whether one column alone tells attacks from their benign neighbours.

The unit is the run: connections of a run resemble each other, so twenty of them prove little more than one. The best of
many columns looks better than it is, so a column is chosen on one half of the runs and judged on the other, both ways
round, and a permutation of the labels of whole runs shows how often chance alone gives as good a best column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Floats
from probing.corpus.columns import Ints

LIMIT = 0.99  # area under the ROC curve from which a column gives attacks away
LEAST_CONNECTIONS = 20  # connections on each side, below which there is too little to tell
LEAST_RUNS = 5  # runs on each side, below which there is too little to tell
CHANCE = 0.02  # share of permutations with as good a best column, above which it may be chance
RESAMPLES, PERMUTATIONS = 1000, 999
QUANTILE = 0.025  # lower end of the 95 % interval
MOST_CLUSTERS, MOST_IN_CLUSTER = 150, 20  # of each side that are compared; more are left out, spread evenly

Outcome = Literal["giveaway", "passed", "too few to tell"]


class Sample(NamedTuple):
    """Connections of an attack and of its neighbours."""

    values: Floats  # (columns, n)
    attack: NDArray[np.bool_]  # (n,)
    run: Ints  # (n,)
    place: Ints  # (n,) server; only connections of the same one are compared


@dataclass(frozen=True)
class Judgement:
    """The best column and what it is worth."""

    outcome: Outcome
    why: str = ""  # reason for too few to tell
    column: str = ""  # column that separates best
    auc: float = float("nan")  # area over all runs, never below .5
    low: float = float("nan")  # lower end of the interval, on runs that did not choose the column
    chance: float = float("nan")  # share of permutations with as good a best column; NaN: not asked
    also: tuple[str, ...] = ()  # other columns with an area of at least LIMIT


def too_few(attack: NDArray[np.bool_], run: Ints) -> str:
    """Why connections are too few to tell; empty when they are enough."""
    for name, side in (("attack", attack), ("benign", ~attack)):
        connections, runs = int(side.sum()), int(np.unique(run[side]).size)
        if connections < LEAST_CONNECTIONS or runs < LEAST_RUNS:
            return f"{name} connections: {connections}, runs: {runs}; needed: {LEAST_CONNECTIONS} in {LEAST_RUNS} runs"
    return ""


def judge(names: list[str], sample: Sample, seed: int) -> Judgement:
    """The best column of a sample and whether it gives the attack away. names: of the columns."""
    if why := too_few(sample.attack, sample.run):
        return Judgement("too few to tell", why)
    if not names:
        return Judgement("passed", column="(all columns are constant)", auc=0.5, low=0.5)
    rng = np.random.default_rng(seed)
    duel = _duel(thinned(sample, rng))
    ones = np.ones(duel.run.size, np.float32)
    area = duel.area(duel.attack * ones, ~duel.attack * ones)
    folded = np.maximum(area, 1 - area)
    best = int(np.argmax(folded))
    lows, chosen = zip(*(_held_out(duel, choosing, rng) for choosing in _halves(duel, rng)))
    low = float(min(lows))
    if low >= LIMIT:
        best = chosen[int(np.argmax(folded[list(chosen)]))]
    also = tuple(
        names[k] for k in np.argsort(-folded, kind="stable").tolist() if folded[k] >= LIMIT and k != best
    )
    found = Judgement("passed", "", names[best], float(folded[best]), low, float("nan"), also)
    if low < LIMIT:
        return found
    chance = _chance(duel, float(folded.max()), rng)
    outcome: Outcome = "giveaway" if chance <= CHANCE else "too few to tell"
    why = "" if chance <= CHANCE else f"{chance:.1%} of permuted runs separate as well"
    return Judgement(outcome, why, found.column, found.auc, low, chance, also)


@dataclass(frozen=True)
class _Duel:
    """Comparisons of clusters. A cluster: the connections of a run with the same side and place."""

    wins: NDArray[
        np.float32
    ]  # (columns, clusters, clusters) pairs in which the first is greater; a tie is half
    pairs: NDArray[np.float32]  # (clusters, clusters) number of pairs that are compared
    attack: NDArray[np.bool_]  # (clusters,)
    run: Ints  # (clusters,)
    place: Ints  # (clusters,)

    def area(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> Floats:
        """(columns,) share of pairs in which a connection of ``one`` is greater than one of ``other``.

        one, other: (clusters,) weights. .5 where nothing is compared.
        """
        total = float(one @ self.pairs @ other)
        won = np.einsum("i,cij,j->c", one, self.wins, other, optimize=True).astype(np.float64)
        return won / total if total > 0 else np.full(len(self.wins), 0.5)


def thinned(sample: Sample, rng: np.random.Generator) -> Sample:
    """A sample with at most MOST_CLUSTERS of each side and MOST_IN_CLUSTER connections in each."""
    key = np.stack((sample.run, sample.attack.astype(np.int64), sample.place))
    _, cluster = np.unique(key, axis=1, return_inverse=True)
    cluster = cluster.ravel()
    kept = np.zeros(sample.run.size, bool)
    for side in (True, False):
        mine = np.unique(cluster[sample.attack == side])
        if mine.size > MOST_CLUSTERS:
            mine = np.sort(rng.permutation(mine)[:MOST_CLUSTERS])
        for k in mine.tolist():
            rows = np.flatnonzero(cluster == k)
            step = np.linspace(0, rows.size - 1, min(rows.size, MOST_IN_CLUSTER)).astype(np.int64)
            kept[rows[step]] = True
    return Sample(sample.values[:, kept], sample.attack[kept], sample.run[kept], sample.place[kept])


def _duel(sample: Sample) -> _Duel:
    key = np.stack((sample.run, sample.attack.astype(np.int64), sample.place))
    clusters, of = np.unique(key, axis=1, return_inverse=True)
    of = of.ravel()
    order = np.argsort(of, kind="stable")
    begin = np.searchsorted(of[order], np.arange(clusters.shape[1]))
    same = (clusters[2][:, None] == clusters[2][None, :]).astype(np.float32)
    size = np.bincount(of).astype(np.float32)
    wins = np.stack([_wins(values[order], of[order], begin) for values in sample.values]) * same
    return _Duel(
        wins, size[:, None] * size[None, :] * same, clusters[1].astype(bool), clusters[0], clusters[2]
    )


def _wins(values: Floats, of: Ints, begin: Ints) -> NDArray[np.float32]:
    """(clusters, clusters) pairs in which a connection of the first is greater. values: (n,), by cluster ``of``."""
    distinct, place = np.unique(values, return_inverse=True)
    counts = np.zeros((distinct.size + 1, begin.size), np.float32)
    np.add.at(counts, (place.ravel() + 1, of), 1)
    below = np.cumsum(counts, axis=0)
    middle = (below[:-1] + below[1:]) / 2
    return np.add.reduceat(middle[place.ravel()], begin, axis=0)


def _halves(duel: _Duel, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """The clusters of each half of the runs; runs with and without attacks are divided apart."""
    half = np.zeros(int(duel.run.max()) + 1, bool)
    attacking = np.unique(duel.run[duel.attack])
    for runs in (attacking, np.setdiff1d(duel.run, attacking)):
        half[rng.permutation(runs)[: runs.size // 2]] = True
    one = half[duel.run]
    return [one, ~one]


def _held_out(duel: _Duel, choosing: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, int]:
    """The lower end for the column that separates best in the choosing half, on the other half; and the column.

    Of columns that are equally good there, the one that is best here: the permutation test answers for that choice.
    """
    mine, theirs = (choosing & duel.attack).astype(np.float32), (choosing & ~duel.attack).astype(np.float32)
    area = duel.area(mine, theirs)
    folded = np.maximum(area, 1 - area)
    tied = np.flatnonzero(folded >= folded.max() - 1e-6)
    rest = ~choosing
    here = duel.area((rest & duel.attack).astype(np.float32), (rest & ~duel.attack).astype(np.float32))
    here = np.where(area >= 0.5, here, 1 - here)
    best = int(tied[np.argmax(here[tied])])
    areas = _resampled(duel, best, rest, rng)
    return float(np.quantile(areas if area[best] >= 0.5 else 1 - areas, QUANTILE)), best


def _resampled(duel: _Duel, column: int, half: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """(RESAMPLES,) areas of a column on runs of a half drawn with replacement, attacking runs and others apart."""
    weight = np.zeros((RESAMPLES, int(duel.run.max()) + 1), np.float32)
    attacking = np.unique(duel.run[half & duel.attack])
    for runs in (attacking, np.setdiff1d(duel.run[half], attacking)):
        if runs.size:
            weight[:, runs] = rng.multinomial(runs.size, np.full(runs.size, 1 / runs.size), RESAMPLES)
    drawn = weight[:, duel.run] * half
    one, other = drawn * duel.attack, drawn * ~duel.attack
    total = np.einsum("ri,ij,rj->r", one, duel.pairs, other, optimize=True)
    won = np.einsum("ri,ij,rj->r", one, duel.wins[column], other, optimize=True)
    return np.where(total > 0, won / np.maximum(total, 1e-9), 0.5).astype(np.float64)


def _chance(duel: _Duel, observed: float, rng: np.random.Generator) -> float:
    """The share of permutations of the clusters' labels, within each place, whose best column is as good."""
    labels = np.zeros((PERMUTATIONS, duel.attack.size), np.float32)
    for place in np.unique(duel.place):
        rows = np.flatnonzero(duel.place == place)
        labels[:, rows] = rng.permuted(np.tile(duel.attack[rows], (PERMUTATIONS, 1)), axis=1)
    other = 1 - labels
    total = ((labels @ duel.pairs) * other).sum(axis=1)
    best = np.full(PERMUTATIONS, 0.5)
    for wins in duel.wins:
        area = ((labels @ wins) * other).sum(axis=1) / np.maximum(total, 1e-9)
        best = np.maximum(best, np.where(total > 0, np.maximum(area, 1 - area), 0.5))
    return float((1 + np.count_nonzero(best >= observed - 1e-6)) / (PERMUTATIONS + 1))
