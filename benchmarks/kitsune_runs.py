"""What the studies of Kitsune share: packets, connections, learned models and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.commands.reading import read_packets
from engine.config import Config
from engine.connections.layout import PACKET_OPENED
from engine.connections.tracker import Tracker
from engine.types import Floats, Packets, concatenate, take
from models.kitnet.kitnet import KitNET, KitNETConfig
from models.threshold import Threshold, ThresholdConfig, fit

Ints = NDArray[np.int64]
ROUNDS = 2000  # bootstrap samples of an interval


class Learned(NamedTuple):
    """A model and its threshold."""

    kitnet: KitNET
    threshold: Threshold


class Run(NamedTuple):
    """Benign packets of a capture, how many of them are learned from, and what varies among the rest."""

    name: str
    path: Path
    learned: int
    end: int | None = None
    begin: int = 0
    places: tuple[float, ...] = ()  # places of a pause, as shares of the rest
    seeds: tuple[int, ...] = ()


def packets_of(path: Path, begin: int = 0, end: int | None = None) -> Packets:
    """Packets of a capture, by their index in it."""
    return take(concatenate(list(read_packets([path], Config()))), slice(begin, end))


def connections_of(p: Packets) -> Ints:
    """(n,) index of each packet's connection as the tracker sees it, -1 without one."""
    ids, now, n = np.full(p.ts.size, -1), {}, 0
    for tracked in Tracker().track(p):
        opened = (tracked.flags & PACKET_OPENED) != 0
        for i, (slot, new) in enumerate(zip(tracked.slot.tolist(), opened.tolist())):
            if slot >= 0:
                if new or slot not in now:
                    now[slot], n = n, n + 1
                ids[tracked.begin + i] = now[slot]
    return ids


def with_pause(p: Packets, at: int, seconds: float) -> Packets:
    """The packets with silence inserted before packet ``at``."""
    ts = p.ts.copy()
    ts[at:] += int(seconds * 1e9)
    return p._replace(ts=ts)


def greatest(scores: Floats, connections: Ints) -> Floats:
    """(m,) greatest packet score of each connection that has a packet here."""
    known = (connections >= 0) & ~np.isnan(scores)
    found, of = np.unique(connections[known], return_inverse=True)
    out = np.full(found.size, -np.inf)
    np.maximum.at(out, of, scores[known])
    return out


def learn(x: Floats, connections: Ints, seed: int, rate: float) -> Learned:
    """A Kitsune that learned from the first 80 % of the packets as ``train`` does, and calibrated on the rest."""
    n = len(x)
    first, then = n // 10, n * 7 // 10
    kitnet = KitNET(KitNETConfig(map_samples=first, learn_samples=then, seed=seed))
    scores = kitnet.process(x)[first + then :]
    sample = greatest(scores, connections[first + then :])
    return Learned(kitnet, fit(sample, ThresholdConfig(false_positive_rate=rate)))


def alarmed(model: Learned, x: Floats, connections: Ints) -> tuple[int, int]:
    """Alarmed connections, and all, of packets scored by a model."""
    scores = greatest(model.kitnet.score(x), connections)
    return int((scores > model.threshold.value).sum()), scores.size


def interval(
    values: Sequence[float], of: Callable[[Floats], float] = np.mean, rounds: int = ROUNDS
) -> list[float]:
    """95 % bootstrap interval of a statistic of runs."""
    rng, array = np.random.default_rng(1), np.asarray(values, float)
    found = [of(array[rng.integers(0, array.size, array.size)]) for _ in range(rounds)]
    return [float(np.quantile(found, q)) for q in (0.025, 0.975)]


def area(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties half."""
    good, bad = np.sort(scores[~positive]), scores[positive]
    ranks = np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")
    return float(ranks.mean() / 2 / good.size)
