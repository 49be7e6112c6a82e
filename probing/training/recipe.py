"""How a network over sequences is trained: everything that its weights depend on, beside the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import ConfigError

WARM_UP, FIRST, LAST = (
    0.3,
    1 / 25,
    1e-5,
)  # of one cycle: share of steps that rise, first and last share of the rate


@dataclass(frozen=True)
class Recipe:
    """Settings of training."""

    hidden: int = 64  # units of a layer
    layers: int = 1  # layers of the LSTM
    embedding: int = 8  # encoder header: values that a header byte becomes
    steps: int = 4000  # most batches
    rate: float = 3e-3  # highest learning rate of Adam's one cycle
    clip: float = 1.0  # largest norm of a gradient
    batch: int = 32  # connections of a batch, half of them attacks
    cut: int = 256  # tokens after which a connection is cut off in training
    path: float = 0.5  # share of the loss over all tokens, weighted by position; the rest is the last token's
    held_out: float = 0.15  # share of the training runs that validate
    check: int = 100  # steps from one validation to the next
    patience: int = 2000  # steps without a better validation loss after which training stops
    seed: int = 1  # seed of the first weights and of the order of connections

    def __post_init__(self) -> None:
        for name, least, most in (
            ("hidden", 1, 512), ("layers", 1, 3), ("embedding", 1, 256), ("steps", 1, 10**7), ("batch", 2, 4096),
            ("cut", 1, 1 << 16), ("check", 1, 10**7), ("patience", 1, 10**7), ("seed", 0, 2**62),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} {getattr(self, name)} must be from {least} to {most}")
        for name, largest in (("rate", 1.0), ("clip", 1e6)):
            if not 0 < getattr(self, name) <= largest:
                raise ConfigError(
                    f"{name} {getattr(self, name)} must be greater than 0 and at most {largest:g}"
                )
        if not 0 <= self.path <= 1:
            raise ConfigError(f"path {self.path} must be from 0 to 1")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out {self.held_out} must be between 0 and 1")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: one cycle of Smith and Topin (2019), up and down along cosines."""
        rise = max(1.0, WARM_UP * self.steps)
        if step < rise:
            return _cosine(self.rate * FIRST, self.rate, step / rise)
        return _cosine(self.rate, self.rate * LAST, (step - rise) / max(1.0, self.steps - rise))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
