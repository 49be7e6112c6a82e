"""KitNET's arrays, and its scoring with samples as SIMD lanes.

Each autoencoder is applied to sixteen samples at once, eight in float64. There is no fastmath, hence no fused
or reordered sum: a score has the same bits however a stream is cut and whatever vectors the CPU has. Plain loops
over tiles of 240 samples, left to LLVM to make vector code of, took half as long again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.lanes import LINE, Lanes, Real, load, logistic, root, splat, store

Floats = NDArray[np.float64]
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

    out: (n,) receives the scores. The last tile keeps in its other lanes what they held: lanes do not touch
    each other, and so a sample goes through the same code wherever it stands.
    """
    n, d = x.shape
    k, g = nets.out_w.shape
    kind, width = nets.w.dtype, LINE // nets.w.itemsize
    rows = np.zeros((width, d), kind)
    inputs = np.zeros(d * width, kind)  # (d, width)
    scores = np.zeros(k * width, kind)  # (k, width)
    code = np.zeros(max(nets.w.shape[2], g) * width, kind)
    final = np.zeros(width, kind)
    clipped = 0
    for r in range(0, n, width):
        many = min(width, n - r)
        for t in range(many):
            clipped += normalise(nets, x[r + t], rows[t])
        for i in range(d):
            for t in range(width):
                inputs[nets.position[i] * width + t] = rows[t, i]
        for a in range(k):
            v, h = nets.visible[a], nets.hidden[a]
            w, b_hidden, b_visible = nets.w[a, :v, :h], nets.b_hidden[a], nets.b_visible[a]
            error = reconstruct(w, b_hidden, b_visible, inputs, nets.start[a] * width, code)
            normal = (error - splat(nets.out_low[a])) * splat(nets.out_scale[a])
            store(scores, a * width, normal)
        store(final, 0, reconstruct(nets.out_w, nets.out_b_hidden, nets.out_b_visible, scores, 0, code))
        for t in range(many):
            out[r + t] = final[t]
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


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def reconstruct(w: Real, b_hidden: Real, b_visible: Real, x: Real, start: int, code: Real) -> Lanes:
    """Root mean square error of one autoencoder, each lane a sample.

    w: (v, h). x: normalised inputs, a line each, from start on. code: scratch of at least h lines.
    """
    v, h = w.shape
    kind, width = w.dtype, LINE // w.itemsize
    for j in range(h):
        a = splat(b_hidden[j])
        for i in range(v):
            a = a + splat(w[i, j]) * load(x, start + i * width)
        store(code, j * width, logistic(a))
    squares = splat(kind.type(0))
    for i in range(v):
        a = splat(b_visible[i])
        for j in range(h):
            a = a + splat(w[i, j]) * load(code, j * width)
        error = load(x, start + i * width) - logistic(a)
        squares = squares + error * error
    return root(squares / splat(kind.type(v)))
