"""How the kernels of this room are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
# _nrt: the kernels allocate nothing, so numba need not count references; it would do so atomically, for every
# slice of an array of a tuple: a third of the time of scoring. An allocation does not compile.
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: Function) -> Function:
    """njit for functions that allocate nothing and return no array."""
    return cast(Function, njit(**OPTIONS)(function))


def inlined(function: Function) -> Function:
    """The same, written into its callers."""
    return cast(Function, njit(**OPTIONS, forceinline=True)(function))
