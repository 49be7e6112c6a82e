"""Inputs that can be read once: named pipes, and descriptors as a shell's process substitution gives them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.demo import ROOT

KINDS = ("fifo", "descriptor")
SECONDS = 240  # the first one compiles


@contextlib.contextmanager
def piped(kind: str, data: bytes, folder: Path, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The path of a pipe that holds ``data`` once, and the descriptors that a process must inherit."""
    if kind == "fifo":
        path = folder / name
        os.mkfifo(path)
        thread = threading.Thread(target=_fill, args=(path, data), daemon=True)
        thread.start()
        yield str(path), ()
        with contextlib.suppress(OSError):  # release a writer that nobody read from
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        thread.join(5)
        return
    reader, writer = os.pipe()
    thread = threading.Thread(target=_fill, args=(writer, data), daemon=True)
    thread.start()
    try:
        yield f"/dev/fd/{reader}", (reader,)
    finally:
        os.close(reader)
        thread.join(5)


def _fill(place: Path | int, data: bytes) -> None:
    with contextlib.suppress(OSError), open(place, "wb") as file:
        file.write(data)


def bounded(
    *arguments: object, inherit: tuple[int, ...] = (), env: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Run wiresonde as a process: exit code, stdout, stderr. Fails when it takes longer than SECONDS."""
    line = [sys.executable, "-m", "engine.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    done = subprocess.run(
        line, env=environment, pass_fds=inherit, capture_output=True, timeout=SECONDS, check=False
    )
    return done.returncode, done.stdout, done.stderr
