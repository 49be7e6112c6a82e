"""Which partition a packet goes to: a hash of its unordered host pair.

So a connection, its channel and its sockets stay whole on one partition, in both directions. Frames without
addresses go by their MACs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from engine.types import KIND_MASK, Packets

_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


@kernel
def _mix(x: np.uint64) -> np.uint64:
    """murmur3's finaliser."""
    x ^= x >> _SHIFT
    x *= _M1
    x ^= x >> _SHIFT
    x *= _M2
    return x ^ (x >> _SHIFT)


@kernel
def _partitions(p: Packets, count: int, out: NDArray[np.int32]) -> None:
    for i in range(p.ts.size):
        if p.kind[i] & KIND_MASK >= 2:
            a, b = _mix(p.src_hi[i] ^ _mix(p.src_lo[i])), _mix(p.dst_hi[i] ^ _mix(p.dst_lo[i]))
        else:
            a, b = _mix(p.src_mac[i]), _mix(p.dst_mac[i])
        out[i] = np.int32(_mix(a + b) % np.uint64(count))


def partitions(p: Packets, count: int) -> NDArray[np.int32]:
    """(n,) partition 0..count-1 of each packet."""
    out = np.zeros(p.ts.size, np.int32)
    if count > 1:
        with np.errstate(over="ignore"):  # hashes wrap; numpy says so when the kernel runs uncompiled
            _partitions(p, count, out)
    return out
