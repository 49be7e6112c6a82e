"""Delivery traces: files in mahimahi's format, recorded on mobile networks by many, that say when a link delivers.

A line is an opportunity to deliver 1,500 bytes: the ms since the start, in ascending order. The last line is also the
period with which the trace repeats.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probing.lab.errors import LabError

LARGEST = 1 << 26  # most bytes of a trace
LONGEST_MS = 1 << 40  # ms: greatest time of a trace


class Trace(NamedTuple):
    """A delivery trace."""

    times: NDArray[np.int64]  # (n,) ns since the start, ascending
    digest: str  # SHA-256 of the file

    @property
    def period(self) -> int:
        """The time in ns after which the trace repeats."""
        return int(self.times[-1])


def read(path: Path) -> Trace:
    """The trace in a file, read again only when it has changed. Raises LabError that names file and line."""
    try:
        state = path.stat()
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    return _read(path, (state.st_mtime_ns, state.st_size))


@lru_cache(64)
def _read(path: Path, _state: tuple[int, int]) -> Trace:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise LabError(f"{path}: larger than the {LARGEST} bytes that a trace may have")
    times: list[int] = []
    for number, line in enumerate(data.splitlines(), 1):
        word = line.strip()
        if not word.isdigit() or int(word) > LONGEST_MS:
            raise LabError(
                f"{path}: line {number}: {word[:40].decode(errors='replace')!r} must be a whole number of ms"
            )
        if times and int(word) < times[-1]:
            raise LabError(
                f"{path}: line {number}: {int(word)} must not be less than the line before, {times[-1]}"
            )
        times.append(int(word))
    if not times or times[-1] == 0:
        raise LabError(f"{path}: a trace needs at least one line greater than 0: its last line is its period")
    return Trace(np.array(times, np.int64) * 1_000_000, hashlib.sha256(data).hexdigest())
