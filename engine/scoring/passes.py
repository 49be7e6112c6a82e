"""Passes over packets that compute features: one for each configuration, shared by models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.types import Floats, Packets
from models.bundle import Bundle, BundleError


class FeaturePass(Protocol):
    """Computes features of every packet of a partition; has state of its own."""

    def update(self, p: Packets, t: Tracked) -> Any:
        """Features of p, row i of packet i; valid until the next call. They do not depend on the cuts of a stream."""

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of everything that later features depend on."""

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``. KeyError, ValueError or StateError when it does not fit."""

    def counters(self) -> Mapping[str, int]:
        """Counts since the beginning, for metrics."""


@dataclass(frozen=True)
class Features:
    """Features for a model: the pass that computes them, and its configuration."""

    name: str
    config: Any  # a frozen dataclass
    start: Callable[[Any], FeaturePass]  # starts a new pass with a configuration

    @cached_property
    def digest(self) -> str:
        """Digest that is equal for equal features, whose state can be shared."""
        text = json.dumps([self.name, asdict(self.config)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class AfterImagePass:
    """The damped statistics of AfterImage, (n, 100) float64."""

    def __init__(self, config: AfterImageConfig) -> None:
        self._afterimage = AfterImage(config)
        self._out = np.empty((0, len(config.lambdas) * 20))

    def update(self, p: Packets, t: Tracked) -> Floats:  # noqa: ARG002 -- needs nothing from the connection
        """(n, 100) features; NaN for packets whose headers could not be read."""
        if len(self._out) < p.ts.size:
            self._out = np.empty((p.ts.size, self._out.shape[1]))
        return self._afterimage.update(p, self._out[: p.ts.size])

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of the statistics."""
        return self._afterimage.state()

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``."""
        self._afterimage = AfterImage.from_state(self._afterimage.config, saved)

    def counters(self) -> dict[str, int]:
        """Flows remembered and evicted."""
        return {"flows": self._afterimage.flows, "flows_evicted": self._afterimage.evicted}


def afterimage(config: AfterImageConfig) -> Features:
    """The features of AfterImage."""
    return Features("afterimage", config, AfterImagePass)


def check_columns(name: str, columns: int, config: AfterImageConfig) -> None:
    """Raise ValueError unless a model's inputs are as many as the features; name: of the model's own value."""
    if columns != 20 * len(config.lambdas):
        raise ValueError(
            f"{name} {columns} must be 20 for each of the {len(config.lambdas)} values of features.lambdas"
        )


def check_lambdas(bundle: Bundle, config: AfterImageConfig) -> None:
    """Raise BundleError unless a bundle was learned with the features of a configuration."""
    learned = bundle.config["features"]["lambdas"]
    if list(config.lambdas) != learned:
        raise BundleError(
            f"{bundle.path}: learned with lambdas {learned}, the configuration has {list(config.lambdas)}"
        )
