"""The numbers of one cache line side by side, eight float64 or sixteen float32: one LLVM vector as a value.

Networks are chains of short loops. LLVM unrolls short loops of known length to scalar code, pays set-up for loops of
unknown length, and uses only half of AVX-512. So the vectors are written out: `load` a line, compute with + - * / and
`fused`, `store` it; LLVM splits it to fit the CPU. Each operation rounds like its scalar twin, so results do not depend
on the CPU. With NUMBA_DISABLE_JIT=1 a value is a small array, and the same source runs.
"""

# ruff: noqa: ARG001, PLW0108 (numba prescribes the arguments of an intrinsic, and a function round it)

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir
import numba.core.cgutils
import numba.extending
import numpy as np
from numba import types
from numba.extending import models, overload, register_model
from numpy.typing import NDArray

ir: Any = llvmlite.ir  # without types, like all values made from it
cgutils: Any = numba.core.cgutils
intrinsic: Callable[[Callable[..., Any]], Any] = numba.extending.intrinsic

LINE = 64  # bytes

Lanes = Any  # a LanesType in compiled code, an array of LINE bytes otherwise
Real = NDArray[Any]  # float64 or float32


class LanesType(types.Type):
    """The numba type of a line of numbers, with the constants that the exponential needs."""

    def __init__(self, number: Any, mantissa: int, bias: int, bound: float) -> None:
        self.width = LINE * 8 // number.bitwidth
        self.mantissa, self.bias, self.bound = mantissa, bias, bound
        element = ir.DoubleType() if number.bitwidth == 64 else ir.FloatType()
        self.vector = ir.VectorType(element, self.width)
        self.integers = ir.VectorType(ir.IntType(number.bitwidth), self.width)
        super().__init__(name=f"Lanes({number})")

    def constant(self, number: float) -> Any:
        """The number in each lane, as LLVM's constant."""
        return ir.Constant(self.vector, [number] * self.width)

    def integer(self, number: int) -> Any:
        """The same for integers of the same width."""
        return ir.Constant(self.integers, [number] * self.width)


LANES = {
    types.float64: LanesType(types.float64, 52, 1023, 708.0),
    types.float32: LanesType(types.float32, 23, 127, 87.0),
}


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """Kept as an LLVM vector, in registers if there are enough."""

    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)  # type: ignore[no-untyped-call]


def aligned(n: int, kind: Any = np.float64) -> Real:
    """(n,) zeros that begin at a cache line: a load across two lines takes twice as long."""
    size = np.dtype(kind).itemsize
    room = np.zeros(n + LINE // size, kind)
    first = -room.ctypes.data // size % (LINE // size)
    return room[first : first + n]


# The functions without the compiler; below, what they compile to.


def load(array: Real, start: int) -> Lanes:
    """A line of a contiguous (n,) array from index start; bounds are not checked."""
    return array[start : start + LINE // array.itemsize].copy()


def store(array: Real, start: int, value: Lanes) -> None:
    """Write a line to a contiguous (n,) array from index start."""
    array[start : start + len(value)] = value


def turn(rows: Real, start: int, stride: int, out: Real, to: int) -> None:
    """Transpose a square: line t, at rows[start + t * stride], becomes number t of each line from out[to]."""
    width = LINE // rows.itemsize
    square = [rows[start + t * stride : start + t * stride + width] for t in range(width)]
    out[to : to + width * width] = np.array(square).T.ravel()


def splat(number: Any) -> Lanes:
    """The number in each lane; the type is the number's."""
    kind = np.float32 if isinstance(number, np.float32) else np.float64
    return np.full(LINE // kind(0).itemsize, number, kind)


def total(value: Lanes) -> Any:
    """The sum over the lanes, by adding the upper half to the lower until one is left."""
    while len(value) > 1:
        value = value[: len(value) // 2] + value[len(value) // 2 :]
    return value[0]


def root(value: Lanes) -> Lanes:
    """The square root of each lane."""
    return np.sqrt(value)


def fused(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c of each lane of float32, rounded once; a CPU without the instruction is slow, but rounds the same.

    Without the compiler, the sum is rounded to odd in float64 before it is rounded to float32: when it is not exact, of
    its two neighbours the one whose last bit is set. Then the second rounding cannot see a tie that is none.
    """
    product, c = a.astype(np.float64) * b, c.astype(np.float64)  # exact
    near = product + c
    part = near - product
    error = (product - (near - part)) + (c - part)  # exact, by Knuth's TwoSum
    even = near.view(np.int64) & 1 == 0
    odd = np.where((error != 0) & even, np.nextafter(near, np.copysign(np.inf, error)), near)
    return odd.astype(np.float32)


def logistic(value: Lanes) -> Lanes:
    """1 / (1 + exp(-value)) of each lane, to 2e-16 of 1 for float64 and 2e-7 for float32."""
    bound = 87 if value.itemsize == 4 else 708
    return 1 / (1 + np.exp(-np.clip(value, -bound, bound)))


def _address(context: Any, builder: Any, array_type: Any, array: Any, start: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [start]), LANES[array_type.dtype].vector.as_pointer())


@intrinsic
def _load(typingctx: Any, array: Any, start: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=8)

    return LANES[array.dtype](array, types.intp), code


@intrinsic
def _store(typingctx: Any, array: Any, start: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature.args[0], *args[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES[array.dtype]), code


@intrinsic
def _turn(typingctx: Any, rows: Any, start: Any, stride: Any, out: Any, to: Any) -> Any:
    """Halves of halves: each round swaps the upper right with the lower left of all squares of one size."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width, lane = LANES[rows.dtype].width, range(LANES[rows.dtype].width)
        index, at = ir.VectorType(ir.IntType(32), width), args[1]
        lines = []
        for _ in lane:
            lines.append(builder.load(_address(context, builder, signature.args[0], args[0], at), align=8))
            at = builder.add(at, args[2])
        step = width // 2
        while step:
            first = ir.Constant(index, [width + i - step if i & step else i for i in lane])
            second = ir.Constant(index, [width + i if i & step else i + step for i in lane])
            for t in [t for t in lane if not t & step]:
                a, b = lines[t], lines[t + step]
                lines[t] = builder.shuffle_vector(a, b, first)
                lines[t + step] = builder.shuffle_vector(a, b, second)
            step //= 2
        for t in lane:
            at = builder.add(args[4], ir.Constant(ir.IntType(64), t * width))
            builder.store(lines[t], _address(context, builder, signature.args[3], args[3], at), align=8)
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp, out, types.intp), code


@intrinsic
def _splat(typingctx: Any, number: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        none, index = ir.Constant(kind.vector, ir.Undefined), ir.VectorType(ir.IntType(32), kind.width)
        one = builder.insert_element(none, args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, none, ir.Constant(index, [0] * kind.width))

    return LANES[number](number), code


@intrinsic
def _total(typingctx: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        part, width = args[0], signature.args[0].width
        while width > 1:
            width //= 2
            index = ir.VectorType(ir.IntType(32), width)
            lower, upper = (ir.Constant(index, list(range(at, at + width))) for at in (0, width))
            part = builder.fadd(*(builder.shuffle_vector(part, part, half) for half in (lower, upper)))
        return builder.extract_element(part, ir.Constant(ir.IntType(32), 0))

    number: Any = next(number for number in LANES if LANES[number] is value)
    return number(value), code


def _call(builder: Any, name: str, kind: Any, args: Any) -> Any:
    """Call LLVM's function of this name for the vectors of a LanesType."""
    signature = ir.FunctionType(kind.vector, [kind.vector] * len(args))
    full = f"llvm.{name}.v{kind.width}f{LINE * 8 // kind.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, full), args)


@intrinsic
def _root(typingctx: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "sqrt", value, args)

    return value(value), code


@intrinsic
def _fused(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fma", a, args)

    return a(a, a, a), code


@intrinsic
def _logistic(typingctx: Any, value: Any) -> Any:
    """exp(-value) is 2^k exp(r) with |r| <= ln(2) / 2 and a Taylor polynomial for exp(r).

    Adding 1.5 * 2^mantissa to -value / ln(2) rounds it to k and leaves k in the low bits; a shift moves it to the
    exponent. The polynomial follows Estrin's scheme: half the depth of Horner's, whose chain kept the next lanes
    waiting. Beyond the bound the result changes by less than 1e-37.
    """
    wide = value.mantissa == 52
    degree = 13 if wide else 6
    # ln(2) in parts: k times the first is exact, as its last bits are zero; float32 needs no second
    ln2 = (0.693147180369123816490, 1.90821492927058770002e-10) if wide else (math.log(2.0),)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        add, sub, mul, number = builder.fadd, builder.fsub, builder.fmul, value.constant
        x = sub(number(0.0), args[0])
        for sign, bound in ((">", value.bound), ("<", -value.bound)):
            x = builder.select(builder.fcmp_ordered(sign, x, number(bound)), number(bound), x)
        magic = number(1.5 * 2.0**value.mantissa)
        bits = add(mul(x, number(1.0 / math.log(2.0))), magic)
        k = sub(bits, magic)
        power = x
        for part in ln2:
            power = sub(power, mul(k, number(part)))
        terms = [number(1.0 / math.factorial(i)) for i in range(degree + 1)]
        while len(terms) > 1:  # a0 + a1 r + a2 r^2 + a3 r^3 = (a0 + a1 r) + (a2 + a3 r) r^2, and so on
            pairs = [add(a, mul(b, power)) for a, b in zip(terms[::2], terms[1::2])]
            terms = pairs + terms[len(pairs) * 2 :]
            power = mul(power, power)
        shifted = builder.shl(builder.bitcast(bits, value.integers), value.integer(value.mantissa))
        scale = builder.add(shifted, value.integer(value.bias << value.mantissa))
        exponential = mul(terms[0], builder.bitcast(scale, value.vector))
        return builder.fdiv(number(1.0), add(number(1.0), exponential))

    return value(value), code


def _compile(function: Callable[..., Any], to: Any, takes: Callable[..., bool]) -> None:
    """Make numba compile calls of the function, for arguments that `takes` accepts, to an intrinsic."""

    def implementation(*args: Any) -> Any:
        if not takes(*args):
            return None
        calls: dict[int, Any] = {  # numba does not compile *args
            1: lambda a: to(a),
            2: lambda a, b: to(a, b),
            3: lambda a, b, c: to(a, b, c),
            5: lambda a, b, c, d, e: to(a, b, c, d, e),
        }
        return calls[len(args)]

    overload(function, strict=False)(implementation)


def _is_lanes(*values: Any) -> bool:
    return all(isinstance(value, LanesType) for value in values)


def _are_floats(*values: Any) -> bool:
    return all(value is LANES[types.float32] for value in values)


def _is_array(array: Any, *_: Any) -> bool:
    return isinstance(array, types.Array)


def _is_number(number: Any) -> bool:
    return number in LANES


def _operation(name: str) -> Any:
    @intrinsic
    def compute(typingctx: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args)

        return a(a, a), code

    return compute


_compile(load, _load, _is_array)
_compile(store, _store, _is_array)
_compile(turn, _turn, _is_array)
_compile(splat, _splat, _is_number)
_compile(total, _total, _is_lanes)
_compile(root, _root, _is_lanes)
_compile(fused, _fused, _are_floats)
_compile(logistic, _logistic, _is_lanes)
_compile(operator.add, _operation("fadd"), _is_lanes)
_compile(operator.sub, _operation("fsub"), _is_lanes)
_compile(operator.mul, _operation("fmul"), _is_lanes)
_compile(operator.truediv, _operation("fdiv"), _is_lanes)
