"""Label rows: the table of a label file of the lab, checked against its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.files.parquet_in import ParquetError, read_table
from engine.errors import InputError
from probing.corpus.columns import ns
from probing.corpus.conversations import conversations, label_ends
from probing.lab.labels import COLUMNS, schema

NEVER_EMPTY = ("src", "dst", "proto", "start", "end", "run", *(c.name for c in COLUMNS if c.kind == "label"))


def read_label_rows(path: Path) -> pa.Table:
    """The rows of a label file of the lab. Raises InputError that names the first wrong row and value."""
    try:
        table = read_table(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ParquetError as error:
        raise InputError(f"{path}: not Parquet: {error}") from None
    try:
        return _checked(table)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _checked(table: pa.Table) -> pa.Table:
    """A label table with its columns in the order of the schema. Raises ValueError."""
    wanted, names = schema(), table.column_names
    if missing := [n for n in wanted.names if n not in names]:
        raise ValueError(f"no column {', '.join(missing)}")
    if odd := sorted({n for n in names if n not in wanted.names or names.count(n) > 1}):
        raise ValueError(
            f"column {', '.join(odd)}: must be a column of the lab's label files, and there only once"
        )
    for field in wanted:
        if table.schema.field(field.name).type != field.type:
            raise ValueError(f"column {field.name}: {table.schema.field(field.name).type}, not {field.type}")
    table = table.select(wanted.names).cast(wanted)
    for name in NEVER_EMPTY:
        _refuse(table, name, pc.is_null(table.column(name)), "is empty")
    for column in COLUMNS:
        if column.values:
            empty = pa.array([None] if column.kind == "measured" else [], pa.string())
            words = pa.concat_arrays([pa.array(column.values), empty])
            known = pc.is_in(table.column(column.name).cast(pa.string()), value_set=words)
            _refuse(table, column.name, pc.invert(known), f"is not one of {', '.join(column.values)}")
    _refuse(table, "end", pc.less(table.column("end"), table.column("start")), "is before start")
    _refuse_overlap(table)
    return table


def _refuse(table: pa.Table, name: str, wrong: Any, says: str) -> None:
    """Raise ValueError that names the first row in which a value is wrong."""
    rows = np.flatnonzero(wrong.combine_chunks().to_numpy(zero_copy_only=False)).tolist()
    if rows:
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        value = table.column(name).slice(rows[0], 1).cast(pa.string())[0]  # Python's datetime has no ns
        raise ValueError(f"row {rows[0] + 1}: {name} {value} {says}{more}")


def _refuse_overlap(table: pa.Table) -> None:
    """Raise ValueError when two rows are of the same ends at the same time."""
    (key,) = conversations([label_ends(table)])
    start, end = ns(table.column("start")), ns(table.column("end"))
    order = np.lexsort((start, key))
    same = key[order][1:] == key[order][:-1]
    found = np.flatnonzero(same & (start[order][1:] <= end[order][:-1]))  # by start: neighbours suffice
    if found.size:
        one, other = sorted(order[found[0] : found[0] + 2].tolist())
        row = {name: table.column(name)[other].as_py() for name in ("src", "sport", "dst", "dport", "proto")}
        raise ValueError(f"row {other + 1}: {row['src']}:{row['sport']} {row['dst']}:{row['dport']} {row['proto']} "
                         f"is also row {one + 1}, at the same time")  # fmt: skip
