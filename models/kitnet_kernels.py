"""KitNET's arrays, and its scoring with samples as SIMD lanes.

A block is cut to tiles; in a tile each autoencoder is applied to all samples before the next one, so that
the inner loops run over samples and LLVM makes them vector code. There is no fastmath, hence no fused or
reordered sum: a score has the same bits however a stream is cut and whatever vectors the CPU has.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.logistic import logistic

Floats = NDArray[np.float64]
Real = NDArray[Any]  # float64 or float32: kernels compile for both
Ints = NDArray[np.int64]


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


LANES = 16  # a tile is filled up to a multiple of it, so that all samples go through the same vector code
TILE = 15 * LANES  # samples scored side by side; an odd multiple, else the columns of a tile share cache sets


class Frozen(NamedTuple):
    """`Nets` ready for scoring, in the precision of scoring; ranges as (x - low) * scale."""

    position: Ints  # (d,) input at which each feature stands
    start: Ints  # (k,)
    visible: Ints  # (k,)
    hidden: Ints  # (k,)
    low: Floats  # (d,) by feature
    scale: Floats  # (d,)
    band: Floats  # (2,) normalised inputs are clipped to it
    w: Real  # (k, m, h)
    b_hidden: Real  # (k, h)
    b_visible: Real  # (k, m)
    out_low: Real  # (k,)
    out_scale: Real  # (k,)
    out_w: Real  # (k, g)
    out_b_hidden: Real  # (g,)
    out_b_visible: Real  # (k,)


@njit(cache=True, nogil=True, error_model="numpy")
def score(nets: Frozen, x: Real, out: Floats) -> int:
    """Score each row of x (n, d); returns how many values were clipped to the band or were not numbers.

    out: (n,) receives the scores.
    """
    n = x.shape[0]
    whole = n - n % TILE
    clipped = 0
    if whole:
        scratch = make_scratch(nets, TILE)
        for r in range(0, whole, TILE):
            clipped += score_tile(nets, x[r : r + TILE], scratch, out[r : r + TILE])
    if whole < n:
        scratch = make_scratch(nets, (n - whole + LANES - 1) // LANES * LANES)
        clipped += score_tile(nets, x[whole:], scratch, out[whole:])
    return clipped


class Scratch(NamedTuple):
    """Room for one tile; columns are samples."""

    rows: Real  # (LANES, d) normalised samples, not yet turned
    inputs: Real  # (d, width) normalised features in the order of the nets' inputs
    code: Real  # (h or g, width)
    visible: Real  # (m or k, width)
    scores: Real  # (k, width)
    final: Real  # (width,)


@njit(cache=True, nogil=True, error_model="numpy")
def make_scratch(nets: Frozen, width: int) -> Scratch:
    """Zeros for a tile of `width` samples."""
    k, m, h = nets.w.shape
    d, kind = nets.position.size, nets.w.dtype
    return Scratch(
        np.zeros((LANES, d), kind),
        np.zeros((d, width), kind),
        np.zeros((max(h, nets.out_b_hidden.size), width), kind),
        np.zeros((max(m, k), width), kind),
        np.zeros((k, width), kind),
        np.zeros(width, kind),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def score_tile(nets: Frozen, x: Real, scratch: Scratch, out: Floats) -> int:
    """`score` for at most as many rows as the scratch is wide; its other columns hold what they held."""
    inputs, scores, code, visible = scratch.inputs, scratch.scores, scratch.code, scratch.visible
    clipped = fill(nets, x, scratch.rows, inputs)
    for a in range(nets.visible.size):
        v, h, s = nets.visible[a], nets.hidden[a], nets.start[a]
        w, b_hidden, b_visible = nets.w[a, :v, :h], nets.b_hidden[a], nets.b_visible[a]
        reconstruct(w, b_hidden, b_visible, inputs[s : s + v], code, visible, scores[a])
        for t in range(scores.shape[1]):
            scores[a, t] = (scores[a, t] - nets.out_low[a]) * nets.out_scale[a]
    reconstruct(nets.out_w, nets.out_b_hidden, nets.out_b_visible, scores, code, visible, scratch.final)
    for t in range(out.size):
        out[t] = scratch.final[t]
    return clipped


@njit(cache=True, nogil=True, error_model="numpy")
def fill(nets: Frozen, x: Real, rows: Real, inputs: Real) -> int:
    """Normalise x (n, d) into the first n columns of inputs (d, width); returns how many were clipped."""
    n, d = x.shape
    clipped = 0
    for r in range(0, n, LANES):
        for t in range(min(LANES, n - r)):
            clipped += normalise(nets, x[r + t], rows[t])
        for i in range(d):
            column = inputs[nets.position[i]]
            for t in range(LANES):  # a cache line; a constant count is twice as fast as one that is only full
                column[r + t] = rows[t, i]
    return clipped


@njit(cache=True, nogil=True, error_model="numpy")
def normalise(nets: Frozen, x: Real, out: Real) -> int:
    """Normalise one row (d,) into out, clipped to the band; returns how many values that changed.

    In float64, since a range may be small beside its values. What is not a number becomes the upper bound.
    """
    lower, upper = nets.band[0], nets.band[1]
    clipped = 0
    for i in range(out.size):
        v = (np.float64(x[i]) - nets.low[i]) * nets.scale[i]
        below = v if v <= upper else upper  # NaN: also upper
        inside = below if below >= lower else lower
        out[i] = inside
        clipped += 0 if inside == v else 1
    return clipped


@njit(cache=True, nogil=True, error_model="numpy")
def reconstruct(
    w: Real, b_hidden: Real, b_visible: Real, x: Real, code: Real, visible: Real, out: Real
) -> None:
    """Root mean square error of one autoencoder for each sample of a tile.

    w: (v, h). x: (v, width) normalised. code (>= h, width), visible (>= v, width): scratch. out: (width,).
    """
    v, h = w.shape
    for j in range(h):
        combine(w[:, j], x, b_hidden[j], code[j])
    logistic(code[:h].reshape(-1))
    for i in range(v):
        combine(w[i], code, b_visible[i], visible[i])
    logistic(visible[:v].reshape(-1))
    for t in range(out.size):
        out[t] = 0
    for i in range(v):
        for t in range(out.size):
            error = x[i, t] - visible[i, t]
            out[t] += error * error
    count = b_hidden.dtype.type(v)
    for t in range(out.size):
        out[t] = np.sqrt(out[t] / count)


@njit(cache=True, nogil=True, error_model="numpy")
def combine(weights: Real, x: Real, bias: Any, out: Real) -> None:
    """out = bias + weights @ x, for weights (n,), x (>= n, width), out (width,); four rows of x at a time."""
    n = weights.size
    for t in range(out.size):
        out[t] = bias
    i = 0
    while i + 4 <= n:
        w0, w1, w2, w3 = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for t in range(out.size):
            out[t] = out[t] + w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]
        i += 4
    while i < n:
        w0, x0 = weights[i], x[i]
        for t in range(out.size):
            out[t] = out[t] + w0 * x0[t]
        i += 1
