"""Label rows of the lab beside connection records: phases, and twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from engine.errors import InputError
from engine.scoring.columns import as_dicts
from probing.corpus.join import join
from probing.corpus.labels import read_label_rows
from probing.trace.connection import Mark
from probing.trace.marks import marks_of

OF_LAB = {"phases", "pair", "twin", "sample"}
SAME_VISIT = ("pair", "user", "sample", "role", "background")  # beside its place among such rows


def is_of_lab(path: Path) -> bool:
    """Whether a label file is one of the lab."""
    try:
        return set(pyarrow.parquet.read_schema(path).names) >= OF_LAB
    except (OSError, pa.ArrowException):
        return False


class LabRows:
    """The rows of a label file of the lab, and the connection of each as far as ``watch`` has seen it."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that does not fit the lab's schema."""
        self.path, self._table = path, read_label_rows(path)
        self._row_of: dict[str, int] = {}  # uid -> row

    def watch(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables, of connection records; those that have a row are remembered."""
        for table in tables:
            row = join(self._table, table)
            at = np.flatnonzero(row >= 0)
            self._row_of |= zip(table["uid"].take(pa.array(at)).to_pylist(), row[at].tolist())
            yield table

    def _row(self, uid: str) -> dict[str, Any] | None:
        k = self._row_of.get(uid)
        return None if k is None else as_dicts(self._table.slice(k, 1))[0]

    def marks(self, uid: str) -> list[Mark]:
        """The phases of a connection's sample. Raises InputError."""
        row = self._row(uid)
        try:
            return [] if row is None else marks_of(row)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.path}: row {self._row_of[uid] + 1}: phases: {error}") from None

    def twins(self, uid: str) -> list[str]:
        """The uids of a connection's twins, in the order of their letters. InputError where it has none."""
        row = self._row(uid)
        if row is None or not row["pair"]:
            raise InputError(f"{self.path}: {uid} has no twins there")
        rows = as_dicts(self._table.select([*SAME_VISIT, "twin", "start"]))
        group = [k for k, other in enumerate(rows) if all(other[n] == row[n] for n in SAME_VISIT)]
        group.sort(key=lambda k: (rows[k]["twin"], rows[k]["start"]))
        mine = self._row_of[uid]
        own = [k for k in group if rows[k]["twin"] == row["twin"]]
        place, found = own.index(mine), []
        named = {k: name for name, k in self._row_of.items()}
        for letter in sorted({rows[k]["twin"] for k in group} - {row["twin"]}):
            its = [k for k in group if rows[k]["twin"] == letter]
            if place < len(its) and its[place] in named:
                found.append(named[its[place]])
        if not found:
            raise InputError(f"{self.path}: the twins of {uid} are not in the capture")
        return found
