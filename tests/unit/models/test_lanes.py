from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numba import njit

from models.lanes import LINE, aligned, fused, load, logistic, root, splat, store, total, turn

KINDS = [np.float64, np.float32]


@njit(error_model="numpy")
def each_logistic(a: Any) -> None:
    for i in range(0, a.size, LINE // a.itemsize):
        store(a, i, logistic(load(a, i)))


@njit(error_model="numpy")
def arithmetic(a: Any, b: Any, number: Any, out: Any) -> Any:
    x, y = load(a, 1), load(b, 0)
    store(out, 2, root(x * y + (x - splat(number)) / y))
    return total(y)


@njit(error_model="numpy")
def each_fused(a: Any, b: Any, c: Any, out: Any) -> None:
    for i in range(0, a.size, LINE // a.itemsize):
        store(out, i, fused(load(a, i), load(b, i), load(c, i)))


def rounded(exact: Fraction) -> float:
    """The nearest float32, in a tie the even one, of a number that is not subnormal."""
    _, exponent = np.frexp(float(exact))
    unit = Fraction(2) ** (int(exponent) - 24)
    return float(round(exact / unit) * unit)


@njit(error_model="numpy")
def turned(a: Any, stride: int, out: Any) -> None:
    turn(a, 1, stride, out, 2)


@pytest.mark.parametrize(("kind", "error"), [(np.float64, 3e-16), (np.float32, 2e-7)])
def test_the_logistic_is_exact_to_rounding(kind: type, error: float) -> None:
    x = np.concatenate([np.linspace(-30, 30, 2043), [-1e9, -800, 0, 800, 1e9]])
    out: Any = x.astype(kind)
    expected = 1 / (1 + np.exp(-np.clip(out.astype(np.float64), -700, 700)))
    each_logistic(out)
    np.testing.assert_allclose(out, expected, rtol=0, atol=error)
    # relative to the result too: float32 takes ln(2) without its low part, and ends at 87
    np.testing.assert_allclose(out[x > -80], expected[x > -80], rtol=20 * error)


@pytest.mark.parametrize("kind", KINDS)
def test_each_lane_rounds_like_its_scalar_twin(kind: type) -> None:
    width = LINE // np.dtype(kind).itemsize
    rng = np.random.default_rng(1)
    a: Any = (rng.random(width + 1) + 1).astype(kind)
    b: Any = (rng.random(width) + 1).astype(kind)
    out: Any = np.zeros(width + 4, kind)
    arithmetic(a, b, kind(0.5), out)
    np.testing.assert_array_equal(out[2:-2], np.sqrt(a[1:] * b + (a[1:] - kind(0.5)) / b))
    assert not out[:2].any()
    assert not out[-2:].any()


def test_a_fused_product_and_sum_is_rounded_once() -> None:
    rng = np.random.default_rng(4)
    shape = 16 * 25
    near = 1 + rng.integers(-1, 2, (4, shape)) * 2.0**-23  # a * b is a half or next to it: ties, and almost
    a = np.concatenate([near[0] / 2, rng.normal(size=shape), near[2] / 2]).astype(np.float32)
    b = np.concatenate([near[1], rng.normal(size=shape), near[3]]).astype(np.float32)
    c = np.concatenate([rng.integers(2**23 + 1, 2**24 - 1, shape), rng.normal(size=shape), -near[1] / 2])
    c = c.astype(np.float32)
    expected = [
        rounded(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(*(v.tolist() for v in (a, b, c)))
    ]
    out = np.empty_like(a)
    each_fused(a, b, c, out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(fused(a, b, c), expected)  # without the compiler
    assert (a * b + c != out).any()
    assert ((a.astype(np.float64) * b + c).astype(np.float32) != out).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_total_is_the_sum_of_all_lanes(kind: type) -> None:
    width = LINE // np.dtype(kind).itemsize
    b: Any = (2.0 ** np.arange(width)).astype(kind)
    assert arithmetic(np.ones(width + 1, kind), b, kind(0), np.zeros(width + 4, kind)) == 2**width - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_square_is_transposed(kind: type) -> None:
    width = LINE // np.dtype(kind).itemsize
    stride = width + 3
    a: Any = np.arange(width * stride + 1).astype(kind)
    out: Any = np.zeros(width * width + 4, kind)
    turned(a, stride, out)
    expected = a[1:].reshape(width, stride)[:, :width].T
    np.testing.assert_array_equal(out[2:-2].reshape(width, width), expected)
    assert not out[:2].any()
    assert not out[-2:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_room_for_lanes_begins_at_a_cache_line(kind: type) -> None:
    rooms = [aligned(n, kind) for n in (1, 8, 100, 10_000)]
    assert [room.ctypes.data % LINE for room in rooms] == [0, 0, 0, 0]
    assert [room.size for room in rooms] == [1, 8, 100, 10_000]
