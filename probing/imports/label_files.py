"""Label files for `--labels`, from rows that the lab did not make."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.files.parquet import ParquetFile
from connectors.files.text import TextFile
from engine.commands.console import whole
from engine.errors import ConfigError
from engine.labels.table import KEYS, KIND
from probing.lab.labels import schema


def label_table(
    rows: Sequence[Mapping[str, Any]], measured: Mapping[str, pa.DataType] | None = None
) -> pa.Table:
    """The table of a label file: all keys, the lab's columns that any row has, and further measured ones."""
    fields = [f for f in schema() if f.name in KEYS or any(row.get(f.name) is not None for row in rows)]
    fields += [pa.field(name, kind, metadata={KIND: b"measured"}) for name, kind in (measured or {}).items()]
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in fields},
        schema=pa.schema(fields),
    )


def write_labels(table: pa.Table, path: Path) -> None:
    """Write a label file, which appears complete or not at all: NAME.parquet, or NAME.csv with keys and labels only.

    CSV cannot mark columns as measured, and a column that differs on every row is not a label. Raises OutputError, and
    ConfigError for any other name.
    """
    if path.suffix == ".parquet":
        with whole(path, lambda: ParquetFile(path, table.schema)) as file:
            file.write(table)
    elif path.suffix == ".csv":
        kept = [f.name for f in table.schema if (f.metadata or {}).get(KIND) != b"measured"]
        with whole(path, lambda: TextFile(path)) as file:
            file.write(_csv_lines(table.select(kept)))
    else:
        raise ConfigError(f"{path}: the name of a label file must end with .parquet or .csv")


def _csv_lines(table: pa.Table) -> Iterator[str]:
    columns = [
        [None if ns is None else _moment(ns) for ns in column.cast(pa.int64()).to_pylist()]
        if pa.types.is_timestamp(column.type)
        else column.to_pylist()
        for column in table.columns
    ]
    for row in (table.column_names, *zip(*columns)):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(["" if value is None else value for value in row])
        yield text.getvalue()


def _moment(ns: int) -> str:
    """A time in ISO 8601, with nanoseconds where there are any."""
    seconds, part = divmod(ns, 1_000_000_000)
    whole_seconds = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole_seconds}.{part:09d}Z" if part else f"{whole_seconds}Z"
