"""A Parquet file that appears complete or not at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from connectors.files.whole import WholeFile

GROUP = 1 << 16  # rows of a row group, however they arrive: equal rows give equal bytes


class ParquetFile:
    """Writes tables to ``path``, which appears with ``close``."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Raises OSError when the file cannot be written."""
        self.path = path
        self._waiting: list[pa.Table] = []
        self._rows = 0  # waiting
        self._whole = WholeFile(path)
        try:
            self._writer = pa.parquet.ParquetWriter(self._whole.file, schema, compression="zstd")
        except BaseException:
            self._whole.abort()
            raise

    def write(self, table: pa.Table) -> None:
        """Append rows. Raises OSError."""
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= GROUP:
            self._write_groups(self._rows // GROUP * GROUP)

    def _write_groups(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting)
        self._waiting, self._rows = [table.slice(rows)], table.num_rows - rows
        # one chunk: the writer's page limits depend on the chunks
        self._writer.write_table(table.slice(0, rows).combine_chunks(), row_group_size=GROUP)

    def close(self) -> None:
        """Make everything durable under the file's name. Raises OSError."""
        if self._rows:
            self._write_groups(self._rows)
        self._writer.close()
        self._whole.commit()

    def abort(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError, ValueError):  # a full disk may fail here again
            self._writer.close()
        self._whole.abort()
