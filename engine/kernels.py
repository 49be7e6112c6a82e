"""How kernels are compiled: one decorator for each purpose.

Both keep the compiled code on disk (a start takes a second, not a minute) and release the GIL, so that a queue is
filled while a block is processed. Both divide as numpy does: a division by zero is data, and without a test for it
a loop can run in SIMD lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Int = Any  # an integer in a kernel: a Python int or any of numpy's, as numba types it

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
UNCOUNTED = OPTIONS | {"_nrt": False}  # without reference counting


def kernel(function: Function) -> Function:
    """njit for functions that allocate nothing and return no array, without numba's reference counts.

    Numba counts references to every array of a tuple, atomically, at each call and each use of a field. Without that,
    features came 1.6 times as fast, and a flood of new flows seven times. An allocation does not compile.
    """
    return cast(Function, njit(**UNCOUNTED)(function))


def allocating(function: Function) -> Function:
    """njit for functions that make arrays: called once, never in a loop."""
    return cast(Function, njit(**OPTIONS)(function))
