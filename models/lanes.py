"""Eight float64 side by side: one LLVM vector as a numba value.

A learning step is a chain of short loops over few autoencoders. LLVM unrolls short loops of known length to
scalar code and pays set-up for those of unknown length, so the vectors are written out: `load` eight numbers,
compute with + - * /, `store` them. LLVM splits them to what the CPU has. Each operation rounds like its
scalar twin, so results do not depend on the CPU. With NUMBA_DISABLE_JIT=1 a value is an array (8,) and the
same text runs.
"""

# ruff: noqa: ARG001 (numba prescribes the arguments of an intrinsic)

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir
import numba.core
import numba.extending
import numpy as np
from numba import njit, types
from numba.extending import models, overload, register_model
from numpy.typing import NDArray

from models import logistic as scalar

WIDTH = 8

ir: Any = llvmlite.ir  # without types, as all that follows from it
cgutils: Any = numba.core.cgutils
config: Any = numba.core.config
intrinsic: Callable[[Callable[..., Any]], Any] = numba.extending.intrinsic

Lanes = Any  # a LanesType in compiled code, an array (8,) of float64 otherwise
Floats = NDArray[np.float64]

VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
INTEGERS = ir.VectorType(ir.IntType(64), WIDTH)


class LanesType(types.Type):
    """The numba type of eight float64 in a vector."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = LanesType()


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """Kept as an LLVM vector, in registers where there are enough."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, VECTOR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, array_type: Any, array: Any, start: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), VECTOR.as_pointer())


def _splat(builder: Any, number: Any) -> Any:
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(VECTOR, ir.Undefined), zeros)


def _constants(number: float) -> Any:
    return ir.Constant(VECTOR, [number] * WIDTH)


def aligned(n: int) -> Floats:
    """(n,) zeros that begin at a cache line: a load that crosses two takes twice as long."""
    room = np.zeros(n + WIDTH)
    first = -room.ctypes.data // room.itemsize % WIDTH
    return room[first : first + n]


if config.DISABLE_JIT:

    def load(array: Floats, start: int) -> Lanes:
        """array[start : start + 8] of a contiguous (n,) array; nothing checks the bounds."""
        return array[start : start + WIDTH].copy()

    def store(array: Floats, start: int, value: Lanes) -> None:
        """array[start : start + 8] = value."""
        array[start : start + WIDTH] = value

    def splat(number: float) -> Lanes:
        """The number in each lane."""
        return np.full(WIDTH, number)

    def total(value: Lanes) -> float:
        """The sum over the lanes, in halves: lane i with lane i + 4, and so on."""
        while len(value) > 1:
            value = value[: len(value) // 2] + value[len(value) // 2 :]
        return float(value[0])

    def root(value: Lanes) -> Lanes:
        """The square root of each lane."""
        return np.sqrt(value)

    def logistic(value: Lanes) -> Lanes:
        """1 / (1 + exp(-value)) of each lane, as models/logistic.py."""
        out = value.copy()
        scalar.logistic(out)
        return out

else:

    @intrinsic
    def load(typingctx: Any, array: Any, start: Any) -> Any:
        """array[start : start + 8] of a contiguous (n,) array; nothing checks the bounds."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_address(context, builder, signature.args[0], *args), align=8)

        return LANES(array, types.intp), code

    @intrinsic
    def store(typingctx: Any, array: Any, start: Any, value: Any) -> Any:
        """array[start : start + 8] = value."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[2], _address(context, builder, signature.args[0], *args[:2]), align=8)
            return context.get_dummy_value()

        return types.void(array, types.intp, LANES), code

    @intrinsic
    def splat(typingctx: Any, number: Any) -> Any:
        """The number in each lane."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splat(builder, args[0])

        return LANES(types.float64), code

    @intrinsic
    def total(typingctx: Any, value: Any) -> Any:
        """The sum over the lanes, in halves: lane i with lane i + 4, and so on."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            part, width = args[0], WIDTH
            while width > 1:
                width //= 2
                index = ir.VectorType(ir.IntType(32), width)
                halves = [
                    builder.shuffle_vector(part, part, ir.Constant(index, list(range(first, first + width))))
                    for first in (0, width)
                ]
                part = builder.fadd(*halves)
            return builder.extract_element(part, ir.Constant(ir.IntType(32), 0))

        return types.float64(LANES), code

    @intrinsic
    def root(typingctx: Any, value: Any) -> Any:
        """The square root of each lane."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(VECTOR, [VECTOR])
            sqrt = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f64")
            return builder.call(sqrt, args)

        return LANES(LANES), code

    @intrinsic
    def _hold(typingctx: Any, value: Any) -> Any:
        """The value held within +-708."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            held = args[0]
            for sign, bound in ((">", 708.0), ("<", -708.0)):
                beyond = builder.fcmp_ordered(sign, held, _constants(bound))
                held = builder.select(beyond, _constants(bound), held)
            return held

        return LANES(LANES), code

    @intrinsic
    def _power(typingctx: Any, value: Any) -> Any:
        """2^k of each lane k + MAGIC."""

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bits = builder.shl(builder.bitcast(args[0], INTEGERS), ir.Constant(INTEGERS, [52] * WIDTH))
            bits = builder.add(bits, ir.Constant(INTEGERS, [1023 << 52] * WIDTH))
            return builder.bitcast(bits, VECTOR)

        return LANES(LANES), code

    @njit(nogil=True, error_model="numpy", forceinline=True)
    def logistic(value: Lanes) -> Lanes:
        """1 / (1 + exp(-value)) of each lane, as models/logistic.py."""
        x = _hold(splat(0.0) - value)
        t = x * splat(scalar.PER_LN2) + splat(scalar.MAGIC)
        k = t - splat(scalar.MAGIC)
        r = x - k * splat(scalar.LN2_HIGH) - k * splat(scalar.LN2_LOW)
        r2 = r * r  # Estrin's scheme: half the depth of Horner's, which kept the next lanes waiting
        r4 = r2 * r2
        p = (splat(1.0) + r) + (splat(scalar.D2) + r * splat(scalar.D3)) * r2
        q = (splat(scalar.D4) + r * splat(scalar.D5)) + (splat(scalar.D6) + r * splat(scalar.D7)) * r2
        u = (splat(scalar.D8) + r * splat(scalar.D9)) + (splat(scalar.D10) + r * splat(scalar.D11)) * r2
        v = splat(scalar.D12) + r * splat(scalar.D13)
        p = (p + q * r4) + (u + v * r4) * (r4 * r4)
        return splat(1.0) / (splat(1.0) + p * _power(t))


def _define(sign: Callable[[Any, Any], Any], name: str) -> None:
    @intrinsic
    def compute(typingctx: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return LANES(LANES, LANES), code

    @overload(sign, strict=False)
    def lanes_operator(a: Any, b: Any) -> Any:
        if a is LANES and b is LANES:
            return lambda a, b: compute(a, b)  # noqa: PLW0108 (an intrinsic cannot be returned)
        return None


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
