"""The interface of a kind of model: how it is configured, built, loaded, packed and explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.scoring.passes import Features
from engine.scoring.scorer import Model
from engine.scoring.start import StartConfig
from engine.types import Floats
from models.bundle import Bundle


class Moved(NamedTuple):
    """An input, and how the score would change if it had its expected value."""

    name: str
    value: float
    expected: float
    drop: float  # decrease of the score when this input, and those listed before it, are as expected


class Kind(NamedTuple):
    """A kind of model. To add one: a file with its KIND in this room, and a line in kinds.py.

    A section is a frozen dataclass with the fields ``threshold`` (ThresholdConfig) and ``scorer`` (ScorerConfig)
    beside its own. Functions that build models get the number of slots of the connection table.
    """

    name: str
    section: type[Any]
    fresh: Callable[[Any, int], Model]  # new model of a section; has learned nothing
    load: Callable[
        [Bundle, Any, int], Model
    ]  # frozen model of a bundle; BundleError, KeyError, TypeError or ValueError if it does not fit
    pack: Callable[[Any], tuple[Mapping[str, NDArray[Any]], dict[str, Any]]]  # arrays and config of a bundle
    features: Callable[[Any], Features | None]  # features for a model of a section
    small: Callable[[Any], Any]  # section with small tables and short phases, for compiling kernels
    learning: Callable[[Any, int], Any]  # section that learns and calibrates with the given number of packets
    learns: Callable[[Any], int]  # packets that a section learns from before calibration
    layouts: Mapping[str, np.dtype[Any]]  # row types in the state of the model and its features
    bounds: tuple[float, ...]  # upper bounds of the buckets of the scores' histogram
    explain: (
        Callable[[Any, Floats], list[Moved]] | None
    )  # inputs (d,) of one packet -> the inputs that moved its score most; None: they alone do not give its score
    adapt: Callable[[Bundle, Any], Any] = lambda bundle, section: section  # noqa: ARG005
    # section with the values of its features that the bundle's model learned with; errors as of load
    start: Callable[[Any], StartConfig | None] = lambda section: None  # noqa: ARG005
    # how scoring with a bundle starts, for models whose packets have scores; None: at once
    online: bool = True  # whether a model can learn from the stream; if not, it needs a bundle


FIRST = 3  # number of inputs chosen together, each with those before it as expected


def moved(
    score: Callable[[Floats], Floats], x: Floats, expected: Floats, names: Sequence[str]
) -> list[Moved]:
    """Inputs ranked by how much the score drops when they are as expected: the first three together, others alone.

    score: (n, d) inputs to (n,) scores. x, expected: (d,).
    """
    x = np.where(np.isfinite(x), x, expected)
    order: list[int] = []
    drops: list[float] = []
    present, before = x.copy(), float(score(x[None])[0])
    for turn in range(min(FIRST, x.size) + 1):
        tried = np.repeat(present[None], x.size, axis=0)
        np.fill_diagonal(tried, expected)
        drop = before - score(tried)
        drop[order] = -np.inf
        ranked = [int(i) for i in np.argsort(-drop, kind="stable") if i not in order]
        if turn == FIRST:
            order += ranked
            drops += [float(drop[i]) for i in ranked]
            break
        best = ranked[0]
        order.append(best)
        drops.append(float(drop[best]))
        present[best], before = expected[best], before - float(drop[best])
    return [Moved(names[i], float(x[i]), float(expected[i]), d) for i, d in zip(order, drops)]
