"""Reading a Parquet file once, checked: what is in it came from somebody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

MOST_PIPED = (
    1 << 30
)  # most bytes read from a pipe; they are kept in memory, since Parquet is read from its end


class ParquetError(Exception):
    """Not a Parquet file, or not an intact one. The message names the column where one is at fault."""


def read_table(path: Path) -> pa.Table:
    """All rows of a file, or of a pipe, which is opened and read once. Raises OSError and ParquetError."""
    with path.open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return _checked(file)
        data = file.read(MOST_PIPED + 1)
    if len(data) > MOST_PIPED:
        raise ParquetError(f"more than {MOST_PIPED} bytes from a pipe: give a file")
    return table_of(data)


def table_of(data: bytes) -> pa.Table:
    """All rows of the bytes of a file. Raises ParquetError."""
    return _checked(pa.BufferReader(data))


def _checked(source: object) -> pa.Table:
    try:
        with pa.parquet.ParquetFile(source) as file:
            table = file.read()
        names = table.column_names
    except UnicodeDecodeError:
        raise ParquetError("the name of a column is not UTF-8") from None
    except (pa.ArrowException, ValueError) as error:
        raise ParquetError(" ".join(str(error).split())) from None
    for k, name in enumerate(names):
        try:  # Arrow takes text as it is, and Python fails at it much later
            table.column(k).validate(full=True)
        except pa.ArrowException as error:
            said = "text that is not UTF-8" if "UTF8" in str(error) else str(error)
            raise ParquetError(f"column {name}: {said}") from None
    return table
