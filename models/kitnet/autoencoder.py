"""The autoencoder of KitNET in its plain form, one sample at a time.

It is the readable reference and the shape in which weights are handed over; score_kernels.py does the same
arithmetic for a whole ensemble at speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TINY = 1e-16  # added to the range of a feature, so that a constant one does not divide by zero


def hidden_units(visible: int, ratio: float) -> int:
    """Units of the hidden layer over `visible` inputs: the ratio of them, rounded up."""
    return int(np.ceil(visible * ratio))


def initial_weights(visible: int, hidden: int, seed: int) -> Floats:
    """W (visible, hidden) ~ U(-1/visible, 1/visible); the same seed gives the same weights everywhere."""
    bound = 1.0 / visible
    return np.random.RandomState(seed).uniform(-bound, bound, (visible, hidden))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow for a large negative x."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(x, -700.0))))


@dataclass
class Autoencoder:
    """Tied-weight autoencoder with sigmoids and its own min-max normalisation (Mirsky et al. 2018, IV-C).

    Code y = s(x W + b_hidden), reconstruction z = s(y W' + b_visible), both of the normalised x. The score is
    the root mean square of x - z. Inputs are finite; KitNET keeps others away.
    """

    w: Floats  # (d, h), used in both directions
    b_hidden: Floats  # (h,)
    b_visible: Floats  # (d,)
    low: Floats  # (d,) least value learned from; +inf before the first
    high: Floats  # (d,) greatest value learned from; -inf before the first
    learning_rate: float = 0.1

    @classmethod
    def fresh(
        cls, visible: int, hidden_ratio: float = 0.75, learning_rate: float = 0.1, seed: int = 1234
    ) -> Autoencoder:
        """An autoencoder that has learned nothing."""
        hidden = hidden_units(visible, hidden_ratio)
        return cls(
            w=initial_weights(visible, hidden, seed),
            b_hidden=np.zeros(hidden),
            b_visible=np.zeros(visible),
            low=np.full(visible, np.inf),
            high=np.full(visible, -np.inf),
            learning_rate=learning_rate,
        )

    def normalise(self, x: Floats) -> Floats:
        """x in units of the range learned from: 0 at its lower end, 1 at its upper."""
        return np.asarray((x - self.low) / (self.high - self.low + TINY))

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """Code (h,) and reconstruction (d,) of a normalised x."""
        y = sigmoid(x @ self.w + self.b_hidden)
        return y, sigmoid(self.w @ y + self.b_visible)

    def score(self, x: Floats) -> float:
        """Root mean square of the reconstruction error of x (d,); changes nothing."""
        x = self.normalise(x)
        return float(np.sqrt(np.mean((x - self.forward(x)[1]) ** 2)))

    def learn(self, x: Floats) -> float:
        """Widen the range to hold x, then one SGD step; returns the score between the two."""
        self.low = np.minimum(self.low, x)
        self.high = np.maximum(self.high, x)
        x = self.normalise(x)
        y, z = self.forward(x)
        error = x - z  # (d,) -dL/d(visible pre-activation) of the cross-entropy: no derivative of the sigmoid
        d_hidden, d_visible, d_w = self.step(x, y, error)
        self.w += self.learning_rate * d_w
        self.b_hidden += self.learning_rate * d_hidden
        self.b_visible += self.learning_rate * d_visible
        return float(np.sqrt(np.mean(error**2)))

    def step(self, x: Floats, y: Floats, error: Floats) -> tuple[Floats, Floats, Floats]:
        """Descent directions of b_hidden (h,), b_visible (d,) and w (d, h), at the present weights."""
        back = (error @ self.w) * y * (1.0 - y)
        return back, error, np.outer(x, back) + np.outer(error, y)  # w: both of its uses
