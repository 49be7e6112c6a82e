"""The heap of what is to happen: entries of a time and a number, the earliest first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel
from probing.lab.link.tables import FAILED, FULL_HEAP, State


@kernel
def push(heap: NDArray[np.int64], n: int, due: int, number: int) -> None:
    """Put an entry into a heap of n entries; equal times keep the order of their numbers."""
    k = n
    while k > 0:
        up = (k - 1) // 2
        if heap[up, 0] < due or (heap[up, 0] == due and heap[up, 1] < number):
            break
        heap[k, 0], heap[k, 1] = heap[up, 0], heap[up, 1]
        k = up
    heap[k, 0], heap[k, 1] = due, number


@kernel
def pop(heap: NDArray[np.int64], n: int) -> int:
    """Take the first entry from a heap of n; returns its number."""
    first = heap[0, 1]
    due, number = heap[n - 1, 0], heap[n - 1, 1]
    n -= 1
    k = 0
    while True:
        down = 2 * k + 1
        if down >= n:
            break
        if down + 1 < n and (
            heap[down + 1, 0] < heap[down, 0]
            or (heap[down + 1, 0] == heap[down, 0] and heap[down + 1, 1] < heap[down, 1])
        ):
            down += 1
        if due < heap[down, 0] or (due == heap[down, 0] and number < heap[down, 1]):
            break
        heap[k, 0], heap[k, 1] = heap[down, 0], heap[down, 1]
        k = down
    heap[k, 0], heap[k, 1] = due, number
    return int(first)


@kernel
def schedule(s: State, waiting: int, due: int, number: int) -> int:
    """Put an entry on the link's heap; returns the number of entries."""
    if waiting >= s.heap.shape[0]:
        s.control[FAILED] = FULL_HEAP
        return waiting
    push(s.heap, waiting, due, number)
    return waiting + 1
