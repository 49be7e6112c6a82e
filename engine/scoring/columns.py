"""ScoreBatch -> columns with names: the connection's, then the score's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.connections.record import connection_table
from engine.labels.file import NO_PROBES, Probes
from engine.types import PHASES, ScoreBatch


def score_table(batch: ScoreBatch, probes: Probes = NO_PROBES) -> pa.Table:
    """One row a connection. ``probes``: the labels of each probe id; each label is a column ``label.NAME``.

    Made once for a batch, which must not be changed any more.
    """
    made = batch.tables.get(id(probes))
    if made is None:
        made = batch.tables[id(probes)] = probes, _table(batch, probes)  # held, so that the id stays theirs
    return made[1]


def by_partition(batch: ScoreBatch, probes: Probes) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each partition in a batch."""
    of = batch.scores["partition"]
    for partition in np.unique(of).tolist():
        yield partition, score_table(batch, probes).filter(pa.array(of == partition))


def _table(batch: ScoreBatch, probes: Probes) -> pa.Table:
    table = connection_table(batch.rows, batch.sides)
    n, scores = len(batch), batch.scores
    columns: dict[str, Any] = {
        "model": pa.array([batch.model] * n, pa.string()),
        "version": pa.array([batch.version] * n, pa.string()),
        "score": _or_null(scores["score"]),
        "peak_score": _or_null(scores["peak"]),
        "mean_score": _or_null(scores["mean"]),
        "peak_at": pa.array(scores["peak_at"].copy(), mask=scores["scored"] == 0).cast(
            pa.timestamp("ns", tz="UTC")
        ),
        "threshold": _or_null(scores["threshold"]),
        "alarm": scores["alarm"],
        "scored_pkts": scores["scored"],
        "final": scores["final"],
        "phase": pa.array([PHASES[k] for k in scores["phase"].tolist()], pa.string()),
        "partition": scores["partition"],
        "offset": scores["offset"],
        "row": scores["row"],
    }
    ids = batch.rows["probe"].tolist()
    for name in label_names(probes):
        columns[f"label.{name}"] = pa.array([probes.get(k, {}).get(name) for k in ids], pa.string())
    for name, values in columns.items():
        column = values if isinstance(values, pa.Array) else pa.array(values.copy())
        table = table.append_column(name, column)
    return table


def _or_null(values: NDArray[np.float64]) -> pa.Array:
    """A column in which what is not there is null: databases take NaN for the greatest number."""
    return pa.array(values.copy(), mask=np.isnan(values))


def label_names(probes: Probes) -> list[str]:
    """Names of all labels, in the order they are met."""
    return list(dict.fromkeys(name for labels in probes.values() for name in labels))


def as_dicts(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts; times are ints, ns since the epoch, since Python's datetime would round them."""
    for k, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
