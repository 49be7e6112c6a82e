"""Hashes of 64 bits: the constants and mixers that tables, ids and partitions share.

Their results are stored: connection ids, snapshots and the partition of a packet depend on them. The products wrap,
and numpy warns of that in uncompiled code: callers of kernels silence it (``np.errstate(over="ignore")``).
"""

from __future__ import annotations

import numpy as np

from engine.kernels import Int, kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
SPLIT_1, SPLIT_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # SplitMix64's
MURMUR_1, MURMUR_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # MurmurHash3's

S27, S29, S30, S31, S32, S33 = (np.uint64(bits) for bits in (27, 29, 30, 31, 32, 33))
LOW32 = np.uint64(0xFFFFFFFF)


def splitmix(x: Int) -> Int:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) of a number or of each in an array."""
    x = (x ^ (x >> S30)) * SPLIT_1
    x = (x ^ (x >> S27)) * SPLIT_2
    return x ^ (x >> S31)


splitmix_kernel = kernel(splitmix)  # for one number, in kernels


@kernel
def fold(x: Int, bits: Int) -> Int:
    """Fold the high bits over the low ones: the low bits of a product alone are poor."""
    return x ^ (x >> bits)


@kernel
def murmur(x: Int) -> Int:
    """MurmurHash3's finaliser (Appleby 2011)."""
    return fold(fold(fold(x, S33) * MURMUR_1, S33) * MURMUR_2, S33)


@kernel
def stir(h: Int, word: Int) -> Int:
    """The hash after mixing in one word."""
    return fold((h ^ word) * GOLDEN, S29)


@kernel
def endpoint_hash(hi: Int, lo: Int, port: Int) -> Int:
    """The hash of an address in two words and a port."""
    x = fold((lo ^ (port * GOLDEN)) * SPLIT_1, S32)
    return fold((x ^ hi) * SPLIT_2, S29)
