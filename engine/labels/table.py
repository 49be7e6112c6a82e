"""The rows of a label file as plain values: CSV or Parquet, read once from a file or a pipe."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.files.parquet_in import ParquetError, table_of
from engine.errors import InputError
from engine.notation import seconds

KEYS = ("src", "sport", "dst", "dport", "proto", "start", "end")
KIND = b"wiresonde.kind"  # in a Parquet field's metadata; columns of kind ``measured`` are not labels
MAX_FILE = 1 << 30  # most bytes of a label file; they are kept in memory
DELIMITERS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
MARKS = {  # first bytes of a text that is not UTF-8
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


@dataclass(frozen=True)
class LabelTable:
    """Keys and labels of a file. Columns that a Parquet file marks as measured are left out."""

    names: Sequence[str]
    rows: Iterable[Sequence[Any]]  # values by ``names``, to be taken once


def read_table(path: Path) -> LabelTable:
    """The rows of a label file. Raises InputError; for CSV, also while rows are taken."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE:
        raise InputError(f"{path}: larger than the {MAX_FILE} bytes that a label file may have")
    return _parquet(path, data) if data[:4] == b"PAR1" else _csv(path, data)


# Parquet


def _parquet(path: Path, data: bytes) -> LabelTable:
    try:
        table = table_of(data)
    except ParquetError as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None
    taken = [k for k, field in enumerate(table.schema) if field.name in KEYS or not _is_measured(field)]
    names = [table.column_names[k] for k in taken]
    return LabelTable(names, zip(*(_values(path, name, table.column(k)) for name, k in zip(names, taken))))


def _is_measured(field: pa.Field) -> bool:
    """Whether a file marks a column as measured, thus not a label: its values differ by connection."""
    return bool((field.metadata or {}).get(KIND) == b"measured")


BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
PLAIN = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer,
    pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null,
)  # fmt: skip


def _values(path: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as text, numbers or None. Raises InputError for a type that is neither."""
    kind = column.type
    try:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
            column = column.cast(kind)
        if pa.types.is_timestamp(kind):  # Python's datetime would round them
            ns = column.cast(pa.timestamp("ns", tz=kind.tz)).cast(pa.int64()).to_pylist()
            return [None if t is None else seconds(t) for t in ns]
        if pa.types.is_date(kind):
            return list(column.cast(pa.string()).to_pylist())
        if any(is_kind(kind) for is_kind in BYTES):
            return [None if value is None else value.decode() for value in column.to_pylist()]
        if any(is_kind(kind) for is_kind in PLAIN):
            return list(column.to_pylist())
    except UnicodeDecodeError:
        raise InputError(f"{path}: column {name}: bytes that are not UTF-8") from None
    except pa.ArrowException as error:
        raise InputError(f"{path}: column {name}: {' '.join(str(error).split())}") from None
    raise InputError(f"{path}: column {name}: {kind}: neither text nor a number, a date or a time")


# CSV


def _csv(path: Path, data: bytes) -> LabelTable:
    for mark, name in MARKS.items():
        if data.startswith(mark):
            raise InputError(f"{path}: {name}: save it as UTF-8")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a readable CSV file: byte {error.start}: not UTF-8") from None
    if b"\0" in data:
        raise InputError(
            f"{path}: not a readable CSV file: byte {data.index(0)}: a zero byte: not text in UTF-8"
        )
    headers = {delimiter: _header(data, delimiter) for delimiter in DELIMITERS}
    best = next((d for d, names in headers.items() if set(KEYS) <= set(names)), None)
    delimiter = best or max(headers, key=lambda d: len(headers[d]))
    names = headers[delimiter]
    if missing := [key for key in KEYS if key not in names]:
        raise InputError(f"{path}: {missing_columns(missing, names)}, divided by {DELIMITERS[delimiter]}")
    return LabelTable(names, _csv_rows(path, data, delimiter, len(names)))


def missing_columns(missing: Sequence[str], names: Sequence[str]) -> str:
    """What is said of a file without some of the key columns."""
    upper = any(name.lower() in missing for name in names)
    return (
        f"no column {', '.join(missing)}; the key columns are {', '.join(KEYS)}{' (in lower case)' if upper else ''}; "
        f"found {'columns' if len(names) > 1 else 'column'} {', '.join(names[:40]) or '(none)'}"
    )


def _header(data: bytes, delimiter: str) -> list[str]:
    """The names of the first line that is not blank; none if it cannot be divided so."""
    try:
        return next(_lines(data, delimiter), [])
    except csv.Error:
        return []


def _lines(data: bytes, delimiter: str) -> Iterator[list[str]]:
    """The cells of each line that is not blank, without the spaces around them; lines may end in CR, LF or both."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    for cells in csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True):
        if len(cells) > 1 or any(cell.strip() for cell in cells):
            yield [cell.strip() for cell in cells]


def _csv_rows(path: Path, data: bytes, delimiter: str, width: int) -> Iterator[list[str]]:
    lines = _lines(data, delimiter)
    next(lines)
    row = 0
    try:
        for row, cells in enumerate(lines, 1):
            if len(cells) != width:
                raise InputError(
                    f"{path}: not a readable CSV file: CSV parse error: row {row}: Expected {width} columns, "
                    f"got {len(cells)}"
                )
            yield cells
    except csv.Error as error:
        raise InputError(
            f"{path}: not a readable CSV file: CSV parse error: row {row + 1}: {error}"
        ) from None


# values


def is_empty(value: Any) -> bool:
    """Whether a value is none: null, NaN, or a text of spaces alone."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def label_text(value: Any) -> str | None:
    """A value as a label; None if it is empty."""
    if is_empty(value):
        return None
    if isinstance(value, float):
        return repr(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
