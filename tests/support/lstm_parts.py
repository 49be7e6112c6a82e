"""Random networks and tokens for models/lstm.py."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.lstm import LSTM, LSTMConfig


class Sparse(NamedTuple):
    """Columns of m tokens, as `LSTM.step` takes them."""

    rows: NDArray[np.int32]  # (m, L)
    values: NDArray[np.float32]  # (m, L)
    slot: NDArray[np.int32]  # (m,)


def make_network(config: LSTMConfig, seed: int = 1) -> LSTM:
    """Weights uniform in ±2/sqrt(hidden), twice as wide as torch begins with; those of the output wider, to be seen."""
    rng = np.random.default_rng(seed)
    bound = 2.0 / np.sqrt(config.hidden)
    shapes = config.shapes()
    arrays = {name: rng.uniform(-bound, bound, s).astype(np.float32) for name, (s, _) in shapes.items()}
    arrays["output"] *= np.float32(4.0)
    return LSTM(config, arrays)


def make_tokens(inputs: int, slot: NDArray[np.int32], wide: int = 5, seed: int = 2) -> Sparse:
    """Tokens of these slots, of up to `wide` distinct rows each."""
    rng = np.random.default_rng(seed)
    rows = rng.permuted(np.tile(np.arange(inputs, dtype=np.int32), (len(slot), 1)), axis=1)[:, :wide].copy()
    rows[np.arange(wide) >= rng.integers(min(wide, 2), wide + 1, len(slot))[:, None]] = -1
    return Sparse(rows, rng.uniform(-2, 2, rows.shape).astype(np.float32), slot)


def scores(
    net: LSTM,
    tokens: Sparse,
    slots: int,
    *,
    cut: Sequence[int] = (),
    state: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Scores of tokens cut before these indices; with zeros for state unless one is given."""
    state = net.new_state(slots) if state is None else state
    out = np.full(len(tokens.slot), np.nan)
    bounds = [0, *cut, len(out)]
    for a, b in pairwise(bounds):
        net.step(tokens.rows[a:b], tokens.values[a:b], tokens.slot[a:b], state, out[a:b])
    return out
