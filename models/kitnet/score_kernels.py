"""KitNET's arrays, and its scoring with samples as SIMD lanes.

Each autoencoder is applied to sixteen samples at once, eight in float64. There is no fastmath, hence no fused or
reordered sum: a score has the same bits whatever the blocks of the stream and the vectors of the CPU. Plain loops
over tiles of 240 samples, vectorised by LLVM, took a third longer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernels import inlined, kernel
from models.kitnet.feature_map import FeatureMap
from models.lanes import LINE, Lanes, Real, aligned, load, logistic, root, splat, store, turn

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = 1e-16  # added to the range of a feature, so that a constant feature does not divide by zero
ROUNDING = 1e-9  # a normalised value may be outside 0..1 by this much and count as learned


def hidden_units(visible: int, ratio: float) -> int:
    """Number of hidden units over `visible` inputs: the ratio of them, rounded up."""
    return int(np.ceil(visible * ratio))


def initial_weights(visible: int, hidden: int, seed: int) -> Floats:
    """W (visible, hidden) ~ U(-1/visible, 1/visible); the same seed gives the same weights everywhere."""
    bound = 1.0 / visible
    return np.random.RandomState(seed).uniform(-bound, bound, (visible, hidden))


class Nets(NamedTuple):
    """k autoencoders padded to the same shape (m inputs, h hidden units), and the output layer over them.

    Padding is zero and stays zero. The features of net a are features[start[a] : start[a] + visible[a]].
    """

    features: Ints  # (d,) feature at each input, net after net
    start: Ints  # (k,)
    visible: Ints  # (k,) inputs of each net
    hidden: Ints  # (k,) hidden units of each net
    low: Floats  # (d,) by feature; +inf before the first step
    high: Floats  # (d,) -inf before the first step
    w: Real  # (k, m, h)
    b_hidden: Real  # (k, h)
    b_visible: Real  # (k, m)
    out_low: Floats  # (k,) range of each net's score
    out_high: Floats  # (k,)
    out_w: Real  # (k, g)
    out_b_hidden: Real  # (g,)
    out_b_visible: Real  # (k,)


def fresh_nets(feature_map: FeatureMap, hidden_ratio: float, seed: int) -> Nets:
    """The autoencoders of a map before their first step."""
    visible = np.array([len(part) for part in feature_map], np.int64)
    k, d = len(visible), int(visible.sum())
    hidden = np.array([hidden_units(int(v), hidden_ratio) for v in visible], np.int64)
    g = hidden_units(k, hidden_ratio)
    w = np.zeros((k, int(visible.max()), int(hidden.max())))
    for a in range(k):
        v, h = int(visible[a]), int(hidden[a])
        w[a, :v, :h] = initial_weights(v, h, seed)
    return Nets(
        features=np.array([i for part in feature_map for i in part], np.int64),
        start=np.cumsum(visible) - visible,
        visible=visible,
        hidden=hidden,
        low=np.full(d, np.inf),
        high=np.full(d, -np.inf),
        w=w,
        b_hidden=np.zeros(w.shape[::2]),
        b_visible=np.zeros(w.shape[:2]),
        out_low=np.full(k, np.inf),
        out_high=np.full(k, -np.inf),
        out_w=initial_weights(k, g, seed),
        out_b_hidden=np.zeros(g),
        out_b_visible=np.zeros(k),
    )


class Frozen(NamedTuple):
    """`Nets` ready for scoring, in the precision of scoring; ranges as (x - low) * scale."""

    position: Ints  # (d,) input of each feature
    start: Ints  # (k,)
    visible: Ints  # (k,)
    hidden: Ints  # (k,)
    low: Floats  # (d,) by feature
    scale: Floats  # (d,)
    band: Floats  # (2,) bounds of normalised inputs
    w: Real  # (k, m, h)
    b_hidden: Real  # (k, h)
    b_visible: Real  # (k, m)
    out_low: Real  # (k,)
    out_scale: Real  # (k,)
    out_w: Real  # (k, g)
    out_b_hidden: Real  # (g,)
    out_b_visible: Real  # (k,)


def frozen_nets(nets: Nets, precision: str, clip: tuple[float, float]) -> Frozen:
    """`nets` in the form for the scoring kernel."""
    kind = np.dtype(precision)
    position = np.empty_like(nets.features)
    position[nets.features] = np.arange(len(position))
    return Frozen(
        position=position,
        start=nets.start,
        visible=nets.visible,
        hidden=nets.hidden,
        low=nets.low.copy(),
        scale=1.0 / (nets.high - nets.low + TINY),
        band=np.array(clip),
        w=nets.w.astype(kind),
        b_hidden=nets.b_hidden.astype(kind),
        b_visible=nets.b_visible.astype(kind),
        out_low=nets.out_low.astype(kind),
        out_scale=(1.0 / (nets.out_high - nets.out_low + TINY)).astype(kind),
        out_w=nets.out_w.astype(kind),
        out_b_hidden=nets.out_b_hidden.astype(kind),
        out_b_visible=nets.out_b_visible.astype(kind),
    )


class Scratch(NamedTuple):
    """Scratch for one tile, of as many samples as a line has numbers; all flat."""

    rows: Real  # normalised samples in a row, d rounded up to full lines
    columns: Real  # (d rounded up, width) the same transposed: a line for each feature
    inputs: Real  # (d, width) the same in the order of the nets' inputs
    code: Real  # (h or g, width)
    visible: Real  # (m or k, width)
    scores: Real  # (k, width)
    final: Real  # (width,)


def make_scratch(nets: Frozen) -> Scratch:
    """Zeros."""
    k, g = nets.out_w.shape
    d, kind, width = nets.position.size, nets.w.dtype, LINE // nets.w.itemsize
    lines = -(-d // width) * width
    counts = (lines, lines, d, max(nets.w.shape[2], g), max(nets.w.shape[1], k), k, 1)
    return Scratch(*(aligned(count * width, kind) for count in counts))


@kernel
def score(nets: Frozen, own: Scratch, x: Real, out: Floats) -> int:
    """Score each row of x (n, d); returns the number of values outside the learned range or not numbers.

    out: (n,) receives the scores. The other lanes of the last tile keep old values: lanes do not affect each other, so
    a sample goes through the same code wherever it is.
    """
    n, d = x.shape
    k, width = nets.visible.size, own.final.size
    stride = own.rows.size // width
    outside = 0
    for r in range(0, n, width):
        many = min(width, n - r)
        for t in range(many):
            room = own.rows[t * stride : t * stride + d]
            outside += normalise(nets.low, nets.scale, nets.band[0], nets.band[1], x[r + t], room)
        for i in range(0, stride, width):
            turn(own.rows, i, stride, own.columns, i * width)
        for i in range(d):
            store(own.inputs, nets.position[i] * width, load(own.columns, i * width))
        for a in range(k):
            v, h = nets.visible[a], nets.hidden[a]
            w, b_hidden, b_visible = nets.w[a, :v, :h], nets.b_hidden[a], nets.b_visible[a]
            error = reconstruct(
                w, b_hidden, b_visible, own.inputs, nets.start[a] * width, own.code, own.visible
            )
            normal = (error - splat(nets.out_low[a])) * splat(nets.out_scale[a])
            store(own.scores, a * width, normal)
        w, b_hidden, b_visible = nets.out_w, nets.out_b_hidden, nets.out_b_visible
        error = reconstruct(w, b_hidden, b_visible, own.scores, 0, own.code, own.visible)
        store(own.final, 0, error)
        for t in range(many):
            out[r + t] = own.final[t]
    return outside


@kernel
def normalise(low: Floats, scale: Floats, lower: float, upper: float, x: Real, out: Real) -> int:
    """Normalise one row (d,) into out, clipped to lower..upper; returns the number of values outside 0..1.

    In float64, since a range may be small compared with its values. Values that are not numbers become the upper bound.
    Takes plain arrays and counts without a branch: with a tuple, or a branch, the loop stays scalar.
    """
    outside = 0
    for i in range(out.size):
        v = (np.float64(x[i]) - low[i]) * scale[i]
        below = v if v <= upper else upper  # NaN: also upper
        inside = below if below >= lower else lower
        out[i] = inside
        outside += 1 - (int(v >= -ROUNDING) & int(v <= 1.0 + ROUNDING))
    return outside


@inlined
def reconstruct(
    w: Real, b_hidden: Real, b_visible: Real, x: Real, start: int, code: Real, visible: Real
) -> Lanes:
    """Root mean square error of one autoencoder; each lane is a sample.

    w: (v, h). x: normalised inputs, a line each, from start. code, visible: scratch of h, v lines.
    """
    v, h = w.shape
    kind, width = w.dtype, LINE // w.itemsize
    for j in range(h):  # first the products of all units: with the long chain of `logistic` in between,
        a = splat(b_hidden[j])  # the CPU would not look ahead far enough to overlap two units
        for i in range(v):
            a = a + splat(w[i, j]) * load(x, start + i * width)
        store(code, j * width, a)
    for j in range(h):
        store(code, j * width, logistic(load(code, j * width)))
    for i in range(v):
        a = splat(b_visible[i])
        for j in range(h):
            a = a + splat(w[i, j]) * load(code, j * width)
        store(visible, i * width, a)
    squares = splat(kind.type(0))
    for i in range(v):
        error = load(x, start + i * width) - logistic(load(visible, i * width))
        squares = squares + error * error
    return root(squares / splat(kind.type(v)))
