"""How the kernels of this room are compiled; engine/kernels.py has the reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
UNCOUNTED = OPTIONS | {"_nrt": False}  # without reference counting


def kernel(function: Function) -> Function:
    """njit for functions that allocate nothing and return no array.

    Numba would count references, atomically, for every slice of an array of a tuple: a third of the time of scoring. An
    allocation does not compile.
    """
    return cast(Function, njit(**UNCOUNTED)(function))


def inlined(function: Function) -> Function:
    """The same as `kernel`, inlined into its callers."""
    return cast(Function, njit(**UNCOUNTED, forceinline=True)(function))


def allocating(function: Function) -> Function:
    """njit for functions that make arrays: called once, never in a loop."""
    return cast(Function, njit(**OPTIONS)(function))
