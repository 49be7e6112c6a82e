"""Places where writing goes wrong, for tests of what is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes at ``place``; skips the test where none can be mounted."""
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        # lazily: a test that failed may still hold a file there
        subprocess.run(["umount", "--lazy", str(place)], check=True)


NOBODY = 65534


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A new directory that every user reaches, unlike pytest's; it belongs to whom ``unprivileged`` makes of root."""
    place = Path(tempfile.mkdtemp(prefix="wiresonde-test-"))
    place.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(place, NOBODY, NOBODY)
    try:
        yield place
    finally:
        place.chmod(0o700)
        shutil.rmtree(place)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """What is within is done without root's privileges, to whom every file is open.

    Kernels that are needed must have been loaded before, as their cache may belong to root.
    """
    if os.geteuid() != 0:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", os.devnull)  # so that no other is looked for
        try:
            os.setresuid(NOBODY, NOBODY, 0)
        except PermissionError as error:
            pytest.skip(f"cannot become another user: {error.strerror}")
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)


def listing(place: Path) -> list[str]:
    """Names of everything in a directory, hidden files too."""
    return sorted(os.listdir(place))
