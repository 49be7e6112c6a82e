"""Text forms of values, for people and files."""

from __future__ import annotations

import socket

import numpy as np
from numpy.typing import NDArray

V4_PREFIX = np.uint64(0xFFFF)  # upper half of the low word of an IPv4 address, which is mapped into IPv6


def address_text(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> list[str]:
    """Addresses in their usual notation."""
    pairs = np.stack((hi, lo), axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    packed = unique.astype(">u8").tobytes()
    texts = []
    for k, (high, low) in enumerate(unique):
        raw = packed[16 * k : 16 * k + 16]
        if high == 0 and low >> np.uint64(32) == V4_PREFIX:
            texts.append(socket.inet_ntop(socket.AF_INET, raw[12:]))
        else:
            texts.append(socket.inet_ntop(socket.AF_INET6, raw))
    return [texts[k] for k in inverse.reshape(-1)]


def seconds(ns: int) -> str:
    """ns as text in seconds, with nine decimals: a float would round them."""
    return f"{'-' * (ns < 0)}{abs(ns) // 10**9}.{abs(ns) % 10**9:09d}"
