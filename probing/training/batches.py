"""Batches of connections of like lengths, as many attacks as benign ones; drawn from seed and step alone.

No generator lives on from step to step, so that training which is resumed draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.types import Floats
from probing.corpus.columns import Ints
from probing.training.recipe import Recipe
from probing.training.sequences import Sequences

POOLED = 16  # batches whose connections are drawn together and then sorted by length


class Batch(NamedTuple):
    """Tokens of b connections, padded behind their ends to t."""

    rows: NDArray[np.int64]  # (b, t, entries) inputs, -1 for none
    values: NDArray[np.float32]  # (b, t, entries) 0 where there is no input
    length: Ints  # (b,) tokens that count, at least 1


def padded(data: Sequences, which: Ints, cut: int | None = None) -> Batch:
    """The tokens of some connections, of each at most the first ``cut``."""
    length = data.lengths[which]
    length = length if cut is None else np.minimum(length, cut)
    step = np.arange(length.max())
    at = np.where(step < length[:, None], data.start[which][:, None] + step, -1)
    rows, values = data.rows[at].astype(np.int64), data.values[at]
    rows[at < 0], values[at < 0] = -1, 0
    return Batch(rows, values, length)


class Draws:
    """The connections of each step's batch."""

    def __init__(self, attack: NDArray[np.bool_], lengths: Ints, recipe: Recipe) -> None:
        """attack, lengths: (n,) of the connections to learn from; both kinds must be there."""
        self._classes: Sequence[Ints] = (np.flatnonzero(~attack), np.flatnonzero(attack))
        self._lengths = np.minimum(lengths, recipe.cut)
        self._recipe = recipe
        self._orders: dict[tuple[int, int], Ints] = {}  # of the latest passes over each class
        self._pool: tuple[int, list[Ints]] = (-1, [])

    def batch(self, step: int) -> Ints:
        """Indices of the connections of a step."""
        number, place = divmod(step, POOLED)
        if number != self._pool[0]:
            self._pool = number, self._drawn(number)
        return self._pool[1][place]

    def _drawn(self, number: int) -> list[Ints]:
        """The batches of a pool: equally many of both classes, sorted by length, in random order."""
        total = POOLED * self._recipe.batch
        half = total // 2
        chosen = np.concatenate([self._stretch(k, number * n, n) for k, n in enumerate((total - half, half))])
        rng = np.random.default_rng((self._recipe.seed, 2, number))
        chosen = rng.permutation(chosen)
        chosen = chosen[np.argsort(self._lengths[chosen], kind="stable")]
        return [np.array(part) for part in rng.permutation(chosen.reshape(POOLED, self._recipe.batch))]

    def _stretch(self, kind: int, begin: int, n: int) -> Ints:
        """n connections of a class from place ``begin`` on; pass follows pass over all, each in its own order."""
        size = self._classes[kind].size
        place = np.arange(begin, begin + n)
        found = np.empty(n, np.int64)
        for turn in np.unique(place // size).tolist():
            mine = place // size == turn
            found[mine] = self._order(kind, turn)[place[mine] % size]
        return self._classes[kind][found]

    def _order(self, kind: int, turn: int) -> Ints:
        if (kind, turn) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != kind}
            rng = np.random.default_rng((self._recipe.seed, kind, turn))
            self._orders[kind, turn] = rng.permutation(self._classes[kind].size)
        return self._orders[kind, turn]


def weights(length: Ints, steps: int, path: float) -> Floats:
    """(b, steps) weight of each token in a connection's loss; each row's sum is 1.

    path: share that all tokens have, in proportion to their position; the last token has the rest.
    """
    position = np.arange(1, steps + 1)
    inside = position <= length[:, None]
    along = np.where(inside, position, 0) / (length * (length + 1) / 2)[:, None]
    last: Floats = path * along + (1 - path) * (position == length[:, None])
    return last
