"""Damped statistics: weights that halve in 1/rate seconds, for all decay rates of a record at once.

West's update of mean and variance (1979), with decay: only the old weight decays, mean and variance stay. So the
statistics of a stream are valid whenever they are read, and nothing cancels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from engine.features.streams import LANES, MEAN, NEVER, PAIR_TS, PAIR_W, RES, SR, VAR, W
from engine.kernels import kernel
from engine.types import NS, Floats

# 2**f for |f| <= 1/2 by the exponential series: the first omitted term is below 2e-16
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12 = (math.log(2) ** k / math.factorial(k) for k in range(2, 13))
C1 = math.log(2)
ROUND = 1.5 * 2.0**52  # adding it to x leaves round(x) in the low bits
ROUND_BITS = int(np.float64(ROUND).view(np.int64))
LEAST = -200.0  # 2**-200 of a weight is lost beside 1, and no product becomes subnormal (those are slow)
LARGEST = 2**63 - 1
FOREVER = LARGEST * NS
PCC_FLOOR = 1e-24  # product of two variances below which a correlation would only show rounding errors


@kernel
def elapsed(stamps: NDArray[np.int64], row: int, ts: int, now: int) -> float:
    """Seconds since a record's last packet, 0 if this is the first or an older one; stamps the record.

    now: event time, not before ts. A record stamped later than that is of a time that was wrong, or went back.
    """
    last = stamps[row]
    if last > now:
        stamps[row] = ts
        return 0.0
    if ts <= last:
        return 0.0
    stamps[row] = ts
    if last == NEVER:
        return 0.0
    if last < 0 and ts > last + LARGEST:
        return FOREVER  # the difference would wrap: a damaged time stamp
    return float(ts - last) * NS


@kernel
def decay(x: Floats) -> None:
    """Replace each exponent x <= 0 by 2**x, relative error below 1e-15. No call, so it runs in SIMD lanes."""
    for i in range(x.size):
        v = max(x[i], LEAST)
        shifted = v + ROUND
        f = v - (shifted - ROUND)
        y = C9 + f * (C10 + f * (C11 + f * C12))
        y = C5 + f * (C6 + f * (C7 + f * (C8 + f * y)))
        y = 1.0 + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * y))))
        n = np.float64(shifted).view(np.int64) - ROUND_BITS
        x[i] = y * np.int64((n + 1023) << 52).view(np.float64)


@kernel
def forget(streams: Floats, row: int) -> None:
    """Let a stream begin again: the next value counts as its first."""
    for k in range(LANES):
        streams[row, W + k] = 0.0


@kernel
def forget_pair(pairs: Floats, row: int) -> None:
    """Let a pair begin again."""
    for k in range(PAIR_TS):
        pairs[row, k] = 0.0


@kernel
def add(
    streams: Floats, row: int, x: Floats, i: int, r: int, value: float, out: Floats, at: int, step: int
) -> None:
    """Add packet i's value to a stream decayed by x[i, r]; write weight, mean, variance to out."""
    for k in range(LANES):
        old = x[i, r, k] * streams[row, W + k]
        w = old + 1.0
        share = 1.0 / w
        apart = value - streams[row, MEAN + k]
        mean = streams[row, MEAN + k] + share * apart
        var = old * share * (streams[row, VAR + k] + share * apart * apart)
        streams[row, W + k] = w
        streams[row, MEAN + k] = mean
        streams[row, VAR + k] = var
        out[i, at + k * step] = w
        out[i, at + k * step + 1] = mean
        out[i, at + k * step + 2] = var


@kernel
def relate(
    streams: Floats, pairs: Floats, row: int, peer: int, side: bool, x: Floats, i: int, r: int,
    value: float, out: Floats, at: int, joint: Floats, first: int,
) -> None:  # fmt: skip
    """Add packet i's residual to a pair decayed by x[i, r]; write what ``finish`` needs to joint, from first on.

    The sender's own statistics are already in out: the residual is taken after insertion. Its product with the
    peer's last residual, which does not decay, is added to SR (NDSS'18, table I and the public code).
    """
    mine, other = (RES + LANES, RES) if side else (RES, RES + LANES)
    for k in range(LANES):
        mean = out[i, at + 7 * k + 1]
        residual = value - mean
        w = x[i, r, k] * pairs[row, PAIR_W + k] + 1.0
        sr = x[i, r, k] * pairs[row, SR + k] + residual * pairs[row, other + k]
        pairs[row, PAIR_W + k] = w
        pairs[row, SR + k] = sr
        pairs[row, mine + k] = residual
        e = first + k
        joint[0, e], joint[1, e] = mean, out[i, at + 7 * k + 2]
        joint[2, e], joint[3, e] = streams[peer, MEAN + k], streams[peer, VAR + k]
        joint[4, e], joint[5, e] = sr, w


@kernel
def finish(joint: Floats, n: int, results: Floats) -> None:
    """Radius, magnitude, covariance and correlation of n pairs, in SIMD lanes: roots and quotients are slow one by one.

    joint: (6, m) mean and variance of the sender, of the peer, SR and weight of the pair. results: (4, m).
    """
    for e in range(n):
        mean, var, peer_mean, peer_var = joint[0, e], joint[1, e], joint[2, e], joint[3, e]
        cov = joint[4, e] / joint[5, e]
        both = var * peer_var
        results[0, e] = math.sqrt(var * var + peer_var * peer_var)
        results[1, e] = math.sqrt(mean * mean + peer_mean * peer_mean)
        results[2, e] = cov
        results[3, e] = cov / math.sqrt(both) if both > PCC_FLOOR else 0.0
