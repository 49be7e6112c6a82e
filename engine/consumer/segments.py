"""Scores of a detector that runs on: Parquet files, each for a range of offsets, and reading them as one table.

``scores-PARTITION-FIRST-NEXT.parquet`` has the rows of the messages FIRST..NEXT-1 of a partition. It is written even
without rows, so that a gap shows. After a crash ranges overlap; their rows are equal and carry the same
(partition, offset, model, row).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.files.parquet import ParquetFile
from engine.consumer.outlet import FLUSHED_ROW, Spans
from engine.errors import InputError, OutputError
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch, label_names
from engine.scoring.columns import as_dicts, by_partition, read_scores, score_schema
from engine.scoring.trace import Tracer

MOST_ROWS = 1 << 18  # most rows of a partition kept in memory, about 0.1 GB
_NAME = re.compile(r"scores-(\d{5})-(\d{20})-(\d{20})\.parquet")
IDENTITY = ("partition", "offset", "model", "row")


class ScoreSegments:
    """Sink: a file for each partition at each ``sync``, or when too many rows wait."""

    def __init__(self, directory: Path, probes: Probes, most_rows: int = MOST_ROWS) -> None:
        """Raises OutputError when the directory cannot be created."""
        self.directory = directory
        self._probes = probes
        self._most_rows = most_rows
        self._tables: dict[int, list[pa.Table]] = {}
        self._spans: dict[int, tuple[int, int]] = {}
        self._arrived: dict[int, list[pa.Table]] = {}  # rows since the last flush
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{directory}: {error.strerror}") from error

    def write(self, batch: ScoreBatch) -> None:
        """Keep a batch until the flush that names its messages."""
        for partition, mine in by_partition(batch, self._probes):
            self._arrived.setdefault(partition, []).append(mine)

    def flush(self, spans: Spans) -> None:
        """Add new rows to the segments; a segment that is full, or not continued by the span, is written."""
        for partition, (first, after) in spans.items():
            begun = self._spans.get(partition)
            if begun is not None and not begun[0] <= first <= begun[1]:
                self.sync(partition)
                begun = None
            self._spans[partition] = (begun[0] if begun else first, after)
            self._tables.setdefault(partition, []).extend(self._arrived.pop(partition, []))
            if sum(table.num_rows for table in self._tables[partition]) >= self._most_rows:
                self.sync(partition)

    def sync(self, partition: int) -> None:
        """Write the segment of a partition. Raises OutputError, keeping the rows for another try."""
        if partition not in self._spans:
            return
        first, after = self._spans[partition]
        tables = self._tables.get(partition, [])
        table = (
            pa.concat_tables(tables, promote_options="default")
            if tables
            else score_schema(label_names(self._probes)).empty_table()
        )
        path = self.directory / f"scores-{partition:05d}-{first:020d}-{after:020d}.parquet"
        _write(path, table)
        del self._spans[partition]
        self._tables.pop(partition, None)


class TraceSegments:
    """Sink: traced packets, in a file for each partition at each ``sync`` that has some.

    Its name is ``trace-PARTITION-FIRST-NEXT.parquet``; packets repeated after a crash have equal partition and number.
    """

    def __init__(self, directory: Path) -> None:
        """``directory``: an existing one."""
        self.directory = directory
        self._tracers: dict[int, Tracer] = {}
        self._tables: dict[int, list[pa.Table]] = {}
        self._spans: dict[int, tuple[int, int]] = {}

    def adopt(self, tracer: Tracer) -> None:
        """Take over a partition, for the first time or again."""
        self._tracers[tracer.partition] = tracer

    def write(self, batch: ScoreBatch) -> None:
        """Do nothing: ``flush`` takes the packets."""

    def flush(self, spans: Spans) -> None:
        """Keep the packets of connections that have ended."""
        for partition, (first, after) in spans.items():
            if (tracer := self._tracers.get(partition)) is not None and (table := tracer.drain()).num_rows:
                self._tables.setdefault(partition, []).append(table)
            self._spans[partition] = self._spans.get(partition, (first, after))[0], after

    def sync(self, partition: int) -> None:
        """Write the kept packets of a partition. Raises OutputError, keeping them for another try."""
        tables = self._tables.get(partition)
        if tables:
            first, after = self._spans[partition]
            path = self.directory / f"trace-{partition:05d}-{first:020d}-{after:020d}.parquet"
            _write(path, pa.concat_tables(tables))
        self._spans.pop(partition, None)
        self._tables.pop(partition, None)


def _write(path: Path, table: pa.Table) -> None:
    try:
        file = ParquetFile(path, table.schema)
        try:
            file.write(table)
            file.close()
        except BaseException:
            file.abort()
            raise
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


@dataclass
class Merged:
    """Segments read as one table."""

    table: pa.Table
    repeated: int = 0  # rows dropped because an equal one was there
    superseded: int = 0  # rows dropped because the log later continued past their end
    spans: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # offsets covered, by partition

    @property
    def gaps(self) -> dict[int, list[tuple[int, int]]]:
        """Ranges of offsets between the first and the last that no segment covers, by partition."""
        found = {}
        for partition, covered in self.spans.items():
            holes = [(a[1], b[0]) for a, b in pairwise(covered)]
            if holes:
                found[partition] = holes
        return found


def merge(directories: Sequence[Path]) -> Merged:
    """All segments of directories as one table, in the order of partition, offset, model and row.

    Raises InputError for a damaged file, and for different rows with the same identity.
    """
    found = [(path, m) for d in directories for path in _listed(d) if (m := _NAME.fullmatch(path.name))]
    if not found:
        raise InputError(f"{directories[0]}: no scores-*.parquet")
    spans: dict[int, list[tuple[int, int]]] = {}
    for _, m in found:
        spans.setdefault(int(m[1]), []).append((int(m[2]), int(m[3])))
    spans = {partition: _joined(some) for partition, some in sorted(spans.items())}
    table = read_scores([path for path, _ in found])
    table = table.sort_by([(name, "ascending") for name in IDENTITY])
    whole, repeated = _without_repeats(table)
    last = {partition: some[-1][1] - 1 for partition, some in spans.items()}
    if unknown := set(whole["partition"].unique().to_pylist()) - last.keys():
        raise InputError(f"{directories[0]}: a row of partition {unknown.pop()}, which no file's name has")
    ends = np.array([last[p] for p in whole["partition"].to_pylist()], np.int64)
    stale = (whole["row"].to_numpy() >= FLUSHED_ROW) & (whole["offset"].to_numpy() < ends)
    return Merged(whole.filter(pa.array(~stale)), repeated, int(stale.sum()), spans)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise InputError(f"{directory}: {error.strerror}") from error


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, after in sorted(spans):
        if out and first <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], after)
        else:
            out.append((first, after))
    return out


def _without_repeats(table: pa.Table) -> tuple[pa.Table, int]:
    """A sorted table with one row for each identity. Raises InputError if rows of one identity differ."""
    if not table.num_rows:
        return table, 0
    same = np.ones(table.num_rows - 1, bool)
    for name in (*IDENTITY, "version"):  # a shadow that was changed may give a row again, as another version
        column = table[name].combine_chunks()
        same &= np.asarray(pc.equal(column.slice(0, len(column) - 1), column.slice(1)))
    at = np.flatnonzero(same)
    one, other = table.take(pa.array(at)), table.take(pa.array(at + 1))
    if at.size and not one.combine_chunks().equals(other.combine_chunks()):
        for k in range(at.size):
            a, b = as_dicts(one.slice(k, 1))[0], as_dicts(other.slice(k, 1))[0]
            differ = [n for n in a if a[n] != b[n] and not (a[n] != a[n] and b[n] != b[n])]
            if differ:
                where = ", ".join(f"{name} {a[name]}" for name in IDENTITY)
                raise InputError(
                    f"rows of {where} differ in {', '.join(differ)}: they come from different logs or configurations"
                )
    keep = np.concatenate(([True], ~same))
    return table.filter(pa.array(keep)), int(same.sum())
