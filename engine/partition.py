"""The partition of a packet: a hash of its unordered host pair.

So all packets of a connection, of its channel and of its sockets meet on one partition, in both directions. Frames
that are not IP are hashed by MAC, by which they have their records, ARP too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.hashing import murmur
from engine.kernels import kernel
from engine.types import KIND_MASK, Kind, Packets

ARP, IPV4 = int(Kind.ARP), int(Kind.IPV4)  # kinds from here on have addresses


@kernel
def _partitions(p: Packets, count: int, out: NDArray[np.int32]) -> None:
    for i in range(p.ts.size):
        kind = p.kind[i] & KIND_MASK
        if kind >= IPV4 or (kind == ARP and p.src_mac[i] == 0 and p.dst_mac[i] == 0):
            a, b = murmur(p.src_hi[i] ^ murmur(p.src_lo[i])), murmur(p.dst_hi[i] ^ murmur(p.dst_lo[i]))
        else:
            a, b = murmur(p.src_mac[i]), murmur(p.dst_mac[i])
        out[i] = np.int32(murmur(a + b) % np.uint64(count))


def partitions(p: Packets, count: int) -> NDArray[np.int32]:
    """(n,) partition 0..count-1 of each packet."""
    out = np.zeros(p.ts.size, np.int32)
    if count > 1:
        with np.errstate(over="ignore"):  # hashes wrap; numpy would warn when the kernel runs uncompiled
            _partitions(p, count, out)
    return out
