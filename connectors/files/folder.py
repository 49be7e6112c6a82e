"""Folders and patterns of captures: which files are captures, in order of their first packets."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError

MOST_FILES = 10_000  # most files in a folder, or that match a pattern


class Found(NamedTuple):
    """Files, and why some were left out."""

    captures: list[Path]  # in order of the time of their first packet, then of their names
    skipped: list[tuple[Path, str]]  # files that hold no packet that can be read, with the reason


class TooManyFilesError(Exception):
    """A folder or pattern has more files than are looked at."""


def is_pattern(path: Path) -> bool:
    """Whether a path that does not exist has wildcards: ``*``, ``?`` or ``[…]``."""
    return not os.path.lexists(path) and glob.has_magic(os.fspath(path))


def files_in(path: Path) -> list[Path]:
    """The files of a folder, or that match a pattern; hidden ones and folders inside are left out.

    Raises TooManyFilesError, or OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    for file in _matching(path) if is_pattern(path) else _listed(path):
        found.append(file)
        if len(found) > MOST_FILES:
            raise TooManyFilesError(
                f"{path}: more than {MOST_FILES:,} files: give a pattern that matches fewer"
            )
    return sorted(found, key=os.fsencode)


def _listed(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.is_dir():
                yield folder / entry.name


def _matching(pattern: Path) -> Iterator[Path]:
    return (Path(name) for name in glob.iglob(os.fspath(pattern)) if not os.path.isdir(name))


def in_order(files: Iterable[Path]) -> Found:
    """The captures among files. Opens each of them and reads its first packet."""
    captures: list[tuple[int, bytes, Path]] = []
    skipped: list[tuple[Path, str]] = []
    for file in files:
        if not file.is_file():
            skipped.append((file, "not a regular file"))
            continue
        try:
            first = _first_time(file)
        except CaptureError as error:
            skipped.append((file, error.problem))
        else:
            if first is None:
                skipped.append((file, "no packet"))
            else:
                captures.append((first, os.fsencode(file), file))
    return Found([file for _, _, file in sorted(captures)], skipped)


def _first_time(file: Path) -> int | None:
    """ns of the first packet, None without one. Raises CaptureError."""
    with CaptureFile(file, frames_per_block=1) as capture:
        return next((int(block.ts[0]) for block in capture if len(block)), None)
