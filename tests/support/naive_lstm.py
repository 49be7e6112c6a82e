"""An LSTM written from its definition: one token at a time, whole matrices, float64.

The reference for models/lstm.py, and shares none of its code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def lstm(arrays: dict[str, NDArray[Any]], rows: Any, values: Any, slot: Any) -> Floats:
    """Score of each token; connections begin with zeros."""
    layers = sum(name.startswith("hidden.") for name in arrays)
    units = len(arrays["output"])
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    memory: dict[tuple[int, int], tuple[Floats, Floats]] = {}
    out = np.empty(len(slot))
    for t in range(len(slot)):
        x = np.zeros(len(wide["input.0"]))
        for row, value in zip(rows[t], values[t]):
            if row < 0:
                break
            x[row] += value
        for layer in range(layers):
            c, h = memory.get((slot[t], layer), (np.zeros(units), np.zeros(units)))
            gates = x @ wide[f"input.{layer}"] + h @ wide[f"hidden.{layer}"] + wide[f"bias.{layer}"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            memory[slot[t], layer] = c, h
            x = h
        out[t] = sigmoid(x @ wide["output"] + wide["output_bias"][0])
    return out
