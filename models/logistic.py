"""The logistic function over arrays, by a polynomial that LLVM turns into vector code.

libm's exp is a call per value and took most of the time of scoring; this is three times as fast. exp(-a) is
2^k times a Taylor polynomial on |r| <= ln(2)/2; k is read off the low bits of -a / ln(2) + 1.5 * 2^m, with m
bits of mantissa. Arguments are held within +-87 (708 in float64): beyond, the result changes by < 1e-37.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = np.float32

PER_LN2 = 1.4426950408889634
LN2_HIGH = 0.693147180369123816490  # its last bits are zero, so k * LN2_HIGH is exact
LN2_LOW = 1.90821492927058770002e-10
MAGIC = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest integer in the low bits

PER_LN2_32 = F(PER_LN2)
LN2_HIGH_32 = F(0.693359375)
LN2_LOW_32 = F(-2.12194440e-4)
MAGIC_32 = F(12582912.0)  # 1.5 * 2^23
ONE = F(1.0)
BOUND, BOUND_32 = np.float64(708.0), F(87.0)
F2, F3, F4, F5, F6, F7 = F(1 / 2), F(1 / 6), F(1 / 24), F(1 / 120), F(1 / 720), F(1 / 5040)
SHIFT_32, BIAS_32 = np.int32(23), np.int32(127 << 23)
SHIFT, BIAS = np.int64(52), np.int64(1023 << 52)

D = tuple(1.0 / np.prod(np.arange(1.0, i + 1.0)) for i in range(14))
D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12, D13 = (float(d) for d in D[2:])


@njit(cache=True, nogil=True, error_model="numpy")
def logistic(a: NDArray[Any]) -> None:
    """1 / (1 + exp(-a)) in place, to 2e-16 of 1 for float64 and 2e-7 for float32. a: (n,) contiguous."""
    if a.itemsize == 4:  # a constant to the compiler: only one loop is left of the two
        for i in range(a.size):
            x = -F(a[i])
            x = BOUND_32 if x > BOUND_32 else x
            x = -BOUND_32 if x < -BOUND_32 else x
            t = F(x * PER_LN2_32 + MAGIC_32)
            k = F(t - MAGIC_32)
            r = F(x - k * LN2_HIGH_32 - k * LN2_LOW_32)
            p = F(F4 + r * (F5 + r * (F6 + r * F7)))
            p = F(ONE + r * (ONE + r * (F2 + r * (F3 + r * p))))
            power = np.int32((np.int32(F(t).view(np.int32)) << SHIFT_32) + BIAS_32).view(np.float32)
            a[i] = ONE / (ONE + p * power)
    else:
        for i in range(a.size):
            x64 = -np.float64(a[i])
            x64 = BOUND if x64 > BOUND else x64
            x64 = -BOUND if x64 < -BOUND else x64
            t64 = np.float64(x64 * PER_LN2 + MAGIC)
            k64 = t64 - MAGIC
            r64 = x64 - k64 * LN2_HIGH - k64 * LN2_LOW
            p64 = D9 + r64 * (D10 + r64 * (D11 + r64 * (D12 + r64 * D13)))
            p64 = D5 + r64 * (D6 + r64 * (D7 + r64 * (D8 + r64 * p64)))
            p64 = 1.0 + r64 * (1.0 + r64 * (D2 + r64 * (D3 + r64 * (D4 + r64 * p64))))
            power64 = np.int64((np.int64(np.float64(t64).view(np.int64)) << SHIFT) + BIAS).view(np.float64)
            a[i] = 1.0 / (1.0 + p64 * power64)
