"""The captures that a command is given: files, folders and patterns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import click

from engine.commands.console import shown
from engine.errors import InputError

MOST_NAMED = 10  # most files named that were left out


def gather(given: Sequence[Path]) -> tuple[Path, ...]:
    """The captures to read: folders and patterns replaced by their captures, in order of their first packets.

    Files keep their place among the arguments; folders and patterns next to each other are ordered together. Reports
    on stderr which of their files hold no packet. Raises InputError where nothing is found.
    """
    from connectors.files.folder import is_pattern

    found: list[Path] = []
    for many, group in groupby(given, lambda path: str(path) != "-" and (path.is_dir() or is_pattern(path))):
        paths = list(group)
        found += _captures(paths) if many else paths
    return tuple(found)


def _captures(places: Sequence[Path]) -> Iterator[Path]:
    """The captures of folders and patterns, each once."""
    from connectors.files.folder import TooManyFilesError, files_in, in_order

    files: dict[bytes, Path] = {}
    for place in places:
        try:
            here = files_in(place)
        except TooManyFilesError as error:
            raise InputError(str(error)) from None
        except OSError as error:
            raise InputError(f"{place}: {error.strerror or error}") from None
        if not here:
            what = "Is a directory without files" if place.is_dir() else "no file matches this pattern"
            raise InputError(f"{place}: {what}")
        for file in here:
            files.setdefault(os.fsencode(file.resolve()), file)
    captures, skipped = in_order(files.values())
    for file, why in skipped[:MOST_NAMED]:
        click.echo(f"{shown(str(file))}: skipped: {why}", err=True)
    if len(skipped) > MOST_NAMED:
        click.echo(f"{len(skipped) - MOST_NAMED:,} more files skipped", err=True)
    if not captures:
        raise InputError(
            f"{shown(', '.join(map(str, places)))}: none of the {len(files):,} files is a capture with packets"
        )
    return iter(captures)
