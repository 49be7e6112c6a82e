"""A file that appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path
from typing import BinaryIO


class WholeFile:
    """Bytes for ``path``, in a temporary file beside it until ``commit``.

    A path that is not a regular file (a pipe, a device) is never replaced, but written to directly.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be written."""
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        in_place = path.exists() and not path.is_file()
        self._target = self._written = path
        if not in_place:
            self._target = Path(os.path.realpath(path))  # a link stays a link
            self._written = self._target.with_name(f".{self._target.name}.{uuid.uuid4().hex}.tmp")
        self.file: BinaryIO = self._written.open("wb")

    def commit(self) -> None:
        """Make everything durable under the file's name. Raises OSError."""
        self.file.flush()
        if self._written is self._target:
            self.file.close()
            return
        os.fsync(self.file.fileno())
        self.file.close()
        self._written.replace(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Leave nothing behind. Does nothing after ``commit``."""
        with contextlib.suppress(OSError):  # a full disk fails here again
            self.file.close()
        if self._written is not self._target:
            self._written.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file in one go. Raises OSError, leaving the old contents."""
    whole = WholeFile(path)
    try:
        whole.file.write(data)
        whole.commit()
    except BaseException:
        whole.abort()
        raise
