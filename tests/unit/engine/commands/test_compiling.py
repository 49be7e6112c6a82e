"""Somebody who waits for the first start sees that something happens."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numba import njit

from engine.commands.compiling import EVERY, FIRST, progress_lines, watched

pytestmark = pytest.mark.compiled


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def compile_some(n: int) -> None:
    for k in range(n):
        assert njit(lambda x, k=k: x + k)(np.float64(1.0)) == 1.0 + k


def test_kernels_are_counted_as_they_are_compiled() -> None:
    seen: list[int] = []
    with watched(seen.append):
        compile_some(2)
    assert (seen[0], max(seen)) == (0, 2)
    compile_some(1)
    assert max(seen) == 2


def test_a_line_comes_after_a_while_and_then_now_and_then() -> None:
    stream, now = Terminal(), [0.0]

    def clock() -> float:
        now[0] += FIRST / 2
        return now[0]

    with progress_lines(stream, clock):
        compile_some(15)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "compiling kernels, on the first start only: 1 ready"
    assert len(lines) == int((2 * 15 * FIRST / 2 - FIRST) / EVERY) + 1


def test_nothing_is_printed_where_nobody_looks_or_nothing_is_compiled() -> None:
    pipe, stream = io.StringIO(), Terminal()
    with progress_lines(pipe):
        compile_some(2)
    with progress_lines(stream):
        pass
    assert pipe.getvalue() == stream.getvalue() == ""
