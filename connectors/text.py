"""A text file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class TextFile:
    """Writes lines to ``path``; until ``close`` they are in a temporary file beside it."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the place cannot be written."""
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("w", encoding="utf-8")

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, given without their ends. Raises OSError."""
        self._file.writelines(line + "\n" for line in lines)

    def close(self) -> None:
        """Make everything durable under the file's name. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def abort(self) -> None:
        """Leave nothing behind."""
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)
