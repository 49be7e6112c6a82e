"""What the engine must know of a kind of model: how one is configured, made, loaded, packed and explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.scoring.passes import Features
from engine.scoring.scorer import Model
from engine.types import Floats
from models.bundle import Bundle


class Moved(NamedTuple):
    """An input, and how the score would change were it as expected."""

    name: str
    value: float
    expected: float
    drop: float  # score minus what it would be with this input, and those listed before it, as expected


class Kind(NamedTuple):
    """A kind of model. To add one: a file with its KIND in this room, and a line in kinds.py.

    A section is a frozen dataclass with the fields ``threshold`` (ThresholdConfig) and ``scorer`` (ScorerConfig)
    beside its own. Functions that make models are told the number of slots of the connection table.
    """

    name: str
    section: type[Any]
    fresh: Callable[[Any, int], Model]  # of a section; has learned nothing
    load: Callable[
        [Bundle, Any, int], Model
    ]  # frozen; BundleError, KeyError, TypeError or ValueError when unfit
    pack: Callable[[Any], tuple[Mapping[str, NDArray[Any]], dict[str, Any]]]  # arrays and config of a bundle
    features: Callable[[Any], Features | None]  # that a model of a section is given
    small: Callable[
        [Any], Any
    ]  # the section with small tables, soon through all phases: for compiling kernels
    learning: Callable[[Any, int], Any]  # the section that learns and calibrates with so many packets
    learns: Callable[[Any], int]  # packets that a section learns from before it calibrates
    layouts: Mapping[str, np.dtype[Any]]  # rows that its state and that of its features are made of
    bounds: tuple[float, ...]  # upper bounds of the buckets of its scores' histogram
    explain: Callable[
        [Any, Floats], list[Moved]
    ]  # inputs (d,) of one packet -> those that moved its score most


FIRST = 3  # inputs that are looked for together, each with those before it as expected


def moved(
    score: Callable[[Floats], Floats], x: Floats, expected: Floats, names: Sequence[str]
) -> list[Moved]:
    """Inputs by how much of the score goes when they are as expected: the first three together, the others alone.

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
