"""A Parquet file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet


class ParquetFile:
    """Writes tables to ``path``; until ``close`` they are in a temporary file beside it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Raises OSError when the place cannot be written."""
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("wb")
        self._writer = pa.parquet.ParquetWriter(self._file, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises OSError."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Make everything durable under the file's name. Raises OSError."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError, ValueError):  # a full disk may fail here again
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)
