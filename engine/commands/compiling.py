"""Progress while kernels are compiled: on the first start it takes a minute or two and would look like a hang."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

FIRST = 2.0  # seconds of compiling before the first line
EVERY = 10.0  # seconds between lines after that


@contextmanager
def watched(report: Callable[[int], None]) -> Iterator[None]:
    """Call ``report`` with the number of kernels compiled so far whenever a compilation begins or ends.

    Kernels from the cache do not count.
    """
    from numba.core import event

    class Listener(event.Listener):
        """Counts the kernels that numba compiles."""

        compiled = 0

        def on_start(self, event: Any) -> None:  # noqa: ARG002
            """Report that a compilation begins."""
            report(self.compiled)

        def on_end(self, event: Any) -> None:  # noqa: ARG002
            """Count and report a compiled kernel."""
            self.compiled += 1
            report(self.compiled)

    with event.install_listener("numba:compile", Listener()):
        yield


@contextmanager
def progress_lines(
    stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Print a line every ten seconds while kernels are compiled, on a terminal only."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield
        return
    began: list[float] = []
    printed = [-EVERY]

    def report(compiled: int) -> None:
        now = clock()
        began[:] = began or [now]
        if now - began[0] >= FIRST and now - printed[0] >= EVERY:
            printed[0] = now
            click.echo(f"compiling kernels, on the first start only: {compiled} ready", file=stream)

    with watched(report):
        yield
