"""A text file that appears complete or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from connectors.files.whole import WholeFile


class TextFile:
    """Writes lines to ``path``, which appears with ``close``."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be written."""
        self.path = path
        self._whole = WholeFile(path)

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, given without line ends. Raises OSError."""
        self._whole.file.writelines(line.encode() + b"\n" for line in lines)

    def close(self) -> None:
        """Make everything durable under the file's name. Raises OSError."""
        self._whole.commit()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._whole.abort()
