"""A hash index in one flat array: open addressing, linear probing, deletion without tombstones.

A slot holds 32 bits of a row's hash above the row number + 1, so a wrong row is almost never read, and deletion
reads no rows; 0 is empty. The size of the array is a power of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.hashing import LOW32, S32
from engine.kernels import kernel


def new_slots(rows: int) -> NDArray[np.uint64]:
    """An empty index, at most two thirds full with that many rows."""
    return np.zeros(1 << (rows + rows // 2).bit_length(), np.uint64)


@kernel
def place(slots: NDArray[np.uint64], h: Any, row: Any) -> None:
    """Add a row number under hash h, of which the upper 32 bits count."""
    mask = slots.size - 1
    i = np.int64(h >> S32) & mask
    while slots[i] != 0:
        i = (i + 1) & mask
    slots[i] = (h & ~LOW32) | np.uint64(row + 1)


@kernel
def displace(slots: NDArray[np.uint64], h: Any, row: Any) -> None:
    """Take a row number out; later slots of its run move up, so no tombstone stays."""
    mask = slots.size - 1
    wanted = (h & ~LOW32) | np.uint64(row + 1)
    hole = np.int64(h >> S32) & mask
    while slots[hole] != wanted:
        hole = (hole + 1) & mask
    i = hole
    while True:
        i = (i + 1) & mask
        slot = slots[i]
        if slot == 0:
            break
        home = np.int64(slot >> S32) & mask
        if (i - home) & mask >= (i - hole) & mask:
            slots[hole] = slot
            hole = i
    slots[hole] = 0
