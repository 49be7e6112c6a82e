"""System calls of the link's loops, through the C library and by name, so that compiled code makes them itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from engine.kernels import kernel

POLLIN = 1
_MONOTONIC = 1

_WORDS: Any = types.CPointer(types.int64)  # type: ignore[no-untyped-call]
_HALVES: Any = types.CPointer(types.int32)  # type: ignore[no-untyped-call]
read_fd: Any = types.ExternalFunction("read", types.intp(types.int32, types.uintp, types.uintp))
write_fd: Any = types.ExternalFunction("write", types.intp(types.int32, types.uintp, types.uintp))
ppoll: Any = types.ExternalFunction("ppoll", types.int32(_HALVES, types.uintp, _WORDS, types.uintp))
_clock: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, _WORDS))


@kernel
def monotonic(spec: NDArray[np.int64]) -> int:
    """The monotonic clock in ns. spec: (2,) struct timespec, scratch."""
    _clock(_MONOTONIC, spec.ctypes)
    return int(spec[0] * 1_000_000_000 + spec[1])
