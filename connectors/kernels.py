"""How the kernels of this room are compiled; engine/kernels.py has the reasons and more decorators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def kernel(function: Function) -> Function:
    """njit for functions that allocate nothing and return no array."""
    return cast(Function, njit(**OPTIONS)(function))
