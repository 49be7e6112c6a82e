"""Scores of sequences by the engine's own kernel, as the detector would give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.types import Floats
from models.lstm import LSTM, LSTMConfig, fold
from probing.training.sequences import Sequences

Aggregate = Literal["last", "mean", "max"]


def packet_scores(arrays: Mapping[str, NDArray[Any]], data: Sequences) -> Floats:
    """(tokens,) the score of every token. arrays: those of a bundle."""
    table = fold(arrays["embedding"], arrays["input.0"]) if "embedding" in arrays else arrays["input.0"]
    layers = sum(name.startswith("hidden.") for name in arrays)
    own = {name: array for name, array in arrays.items() if name != "embedding"} | {"input.0": table}
    lstm = LSTM(LSTMConfig(len(table), len(arrays["hidden.0"]), layers), own)
    slot = np.repeat(np.arange(len(data), dtype=np.int32), data.lengths)
    order = np.argsort(np.arange(slot.size) - np.repeat(data.start[:-1], data.lengths), kind="stable")
    rows, values = data.rows[order].astype(np.int32), np.ascontiguousarray(data.values[order])
    out, found = np.empty(slot.size), np.empty(slot.size)
    lstm.step(rows, values, np.ascontiguousarray(slot[order]), lstm.new_state(len(data)), found)
    out[order] = found
    return out


def connection_scores(data: Sequences, packets: Floats, aggregate: Aggregate = "last") -> Floats:
    """(n,) the score of each connection, from those of its tokens. Every connection has a token."""
    if aggregate == "last":
        return packets[data.start[1:] - 1]
    if aggregate == "max":
        most: Floats = np.maximum.reduceat(packets, data.start[:-1])
        return most
    mean: Floats = np.add.reduceat(packets, data.start[:-1]) / data.lengths
    return mean
