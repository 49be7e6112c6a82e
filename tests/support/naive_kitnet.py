"""KitNET written from its definition: whole-matrix formulas, one sample at a time, no tiles and no lanes.

The reference for models/kitnet/kitnet.py, and shares none of its code. Statistics of the map are computed from all
samples at once instead of incrementally.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def distance(x: Floats) -> Floats:
    """Correlation distance of the columns of x (n, d); residuals are from the mean of the samples so far."""
    n, d = x.shape
    residual = x - np.cumsum(x, axis=0) / np.arange(1, n + 1)[:, None]
    out = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            a, b = residual[:, i], residual[:, j]
            norm = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum())
            if i != j:
                out[i, j] = max(0.0, 1.0 - ((a * b).sum() / norm if norm > 0 else 0.0))
    return out


def clusters(distances: Floats, largest: int) -> list[set[int]]:
    """Single linkage by brute force: join the nearest pair of clusters, then split from the top."""
    parts: list[Any] = [[{i}] for i in range(len(distances))]  # a node: [members] or [members, left, right]
    while len(parts) > 1:
        pairs = [(p, q) for p in range(len(parts)) for q in range(p + 1, len(parts))]
        gap = [min(distances[i, j] for i in parts[p][0] for j in parts[q][0]) for p, q in pairs]
        p, q = pairs[int(np.argmin(gap))]
        right, left = parts.pop(q), parts.pop(p)
        parts.append([left[0] | right[0], left, right])

    def split(node: Any) -> list[set[int]]:
        return [node[0]] if len(node[0]) <= largest else split(node[1]) + split(node[2])

    return split(parts[0])


@dataclass
class Net:
    """One autoencoder as a vector of all its parameters' roles: the tied matrix stands once."""

    w: Floats
    c: Floats
    b: Floats
    low: Floats
    high: Floats


def fresh(d: int, ratio: float, seed: int) -> Net:
    h = int(np.ceil(d * ratio))
    w = np.random.RandomState(seed).uniform(-1.0 / d, 1.0 / d, size=(d, h))
    return Net(w, np.zeros(h), np.zeros(d), np.full(d, np.inf), np.full(d, -np.inf))


def loss(net: Net, v: Floats) -> tuple[float, Floats, Floats]:
    """Root mean square error of a normalised v, with code and reconstruction."""
    y = 1 / (1 + np.exp(-(net.w.T @ v + net.c)))
    z = 1 / (1 + np.exp(-(net.w @ y + net.b)))
    return float(np.sqrt(((v - z) ** 2).sum() / len(v))), y, z


def run(net: Net, x: Floats, rate: float, clip: tuple[float, float] | None) -> float:
    """Score of x; with a rate, after widening the range, and then a step."""
    if rate:
        net.low, net.high = np.minimum(net.low, x), np.maximum(net.high, x)
    v = (x - net.low) / (net.high - net.low + 1e-16)
    if clip:
        v = np.clip(v, *clip)
    score, y, z = loss(net, v)
    if rate:
        through = y * (1 - y) * ((v - z) @ net.w)
        net.w = net.w + rate * (v[:, None] * through[None, :]) + rate * ((v - z)[:, None] * y[None, :])
        net.c = net.c + rate * through
        net.b = net.b + rate * (v - z)
    return score


def kitnet(
    x: Floats,
    feature_map: tuple[tuple[int, ...], ...],
    learn: int,
    rate: float = 0.1,
    ratio: float = 0.75,
    seed: int = 1234,
    clip: tuple[float, float] = (-1.0, 2.0),
) -> Floats:
    """Scores of the rows of x: the first `learn` are learned from, with the score before the step."""
    nets = [fresh(len(part), ratio, seed) for part in feature_map]
    output = fresh(len(feature_map), ratio, seed)
    out = np.empty(len(x))
    for i, row in enumerate(x):
        now, band = (rate, None) if i < learn else (0.0, clip)
        scores = np.array([run(net, row[list(part)], now, band) for net, part in zip(nets, feature_map)])
        out[i] = run(output, scores, now, None)
    return out
