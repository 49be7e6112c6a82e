"""Scores as named columns: their declaration, tables of them, and how they are read back."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.bus.codec import has_compression
from connectors.files.parquet_in import ParquetError, read_table
from engine.connections.columns import CONNECTION_COLUMNS, Column, schema_of
from engine.errors import InputError
from engine.labels.rules import NO_PROBES, Probes
from engine.scoring.batch import PHASES, ScoreBatch, label_names

FORMAT = 1  # format of a message of scores
LARGEST_MESSAGE = 64 << 20  # most bytes of a message; a larger one is refused unread

OWN_COLUMNS = (
    Column("model", pa.string(), "", "name of the model, as configured"),
    Column(
        "version", pa.string(), "", "digest that changes with the model's configuration and what it learned"
    ),
    Column("score", pa.float64(), "", "score of the connection; null when it has none"),
    Column("peak_score", pa.float64(), "", "greatest score of its packets"),
    Column("mean_score", pa.float64(), "", "mean score of its packets"),
    Column("peak_at", pa.timestamp("ns", tz="UTC"), "", "time of the packet with the greatest score"),
    Column("threshold", pa.float64(), "", "score above which a connection alarms; null while there is none"),
    Column("alarm", pa.bool_(), "", "whether the score is above the threshold"),
    Column(
        "known_orig",
        pa.bool_(),
        "",
        "whether the originator was there when the model learned; null: not kept",
    ),
    Column(
        "known_resp", pa.bool_(), "", "whether the responder was there when the model learned; null: not kept"
    ),
    Column("scored_pkts", pa.uint32(), "packets", "packets that have a score"),
    Column(
        "final",
        pa.bool_(),
        "",
        "whether the connection has ended; if not, its alarm began, or it is an interim row",
    ),
    Column("phase", pa.string(), "", "learn, warm: no scores yet; calibrate: no threshold yet; score: both"),
    Column("partition", pa.int32(), "", "partition of the packets topic"),
    Column("offset", pa.int64(), "", "offset of the message that gave the row"),
    Column("row", pa.uint32(), "", "index among the model's rows of that message"),
)
SCORE_COLUMNS = (*CONNECTION_COLUMNS, *OWN_COLUMNS)  # then a text column label.NAME for each probe label


def score_schema(labels: Sequence[str] = ()) -> pa.Schema:
    """The schema of scores in files and on the topic."""
    return pa.schema(
        [*schema_of(SCORE_COLUMNS), *(pa.field(f"label.{name}", pa.string()) for name in labels)]
    )


def score_table(batch: ScoreBatch, probes: Probes = NO_PROBES) -> pa.Table:
    """A table with a row for each score. ``probes``: the labels of each probe id, in columns ``label.NAME``."""
    base = batch.records.table(probes)
    if batch.at is not None:
        base = base.take(pa.array(batch.at))
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
        "known_orig": pa.array(scores["known_orig"] == 1, mask=scores["known_orig"] < 0),
        "known_resp": pa.array(scores["known_resp"] == 1, mask=scores["known_resp"] < 0),
        "scored_pkts": scores["scored"],
        "final": scores["final"],
        "phase": pa.array([PHASES[k] for k in scores["phase"].tolist()], pa.string()),
        "partition": scores["partition"],
        "offset": scores["offset"],
        "row": scores["row"],
    }
    own = [
        c if isinstance(c, pa.Array) else pa.array(c.copy()) for c in (columns[c.name] for c in OWN_COLUMNS)
    ]
    first = len(CONNECTION_COLUMNS)
    arrays = [*base.columns[:first], *own, *base.columns[first:]]
    return pa.table(arrays, schema=score_schema(label_names(probes)))


def by_partition(batch: ScoreBatch, probes: Probes) -> Iterator[tuple[int, pa.Table]]:
    """Tables of a batch's rows, one for each partition."""
    of = batch.scores["partition"]
    table = score_table(batch, probes)
    met = np.unique(of).tolist()
    for partition in met:
        yield partition, table if len(met) == 1 else table.filter(pa.array(of == partition))


def _or_null(values: NDArray[np.float64]) -> pa.Array:
    """A column with null instead of NaN, which databases take for the greatest number."""
    return pa.array(values.copy(), mask=np.isnan(values))


def read_scores(paths: Sequence[Path]) -> pa.Table:
    """Rows of score files in the order given: the columns of SCORE_COLUMNS, then every label of any file.

    Raises InputError naming the file, and the column that is missing or has another type.
    """
    tables = []
    for path in paths:
        try:
            table = read_table(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        except ParquetError as error:
            raise InputError(f"{path}: not a Parquet file of scores: {error}") from error
        tables.append(checked(table, str(path)))
    return pa.concat_tables(tables, promote_options="default") if tables else score_schema().empty_table()


def checked(table: pa.Table, where: str) -> pa.Table:
    """A table's score columns and labels, in order. InputError for one that is missing or has another type."""
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{where}: more than one column is named {', '.join(twice)}")
    labels = [name.removeprefix("label.") for name in names if name.startswith("label.")]
    wanted = score_schema(labels)
    for field in wanted:
        if field.name not in names:
            raise InputError(f"{where}: not a table of scores: no column {field.name}")
        found = table.schema.field(field.name).type
        if found != field.type:
            raise InputError(f"{where}: column {field.name} has type {found}, must be {field.type}")
    return pa.table([table.column(field.name) for field in wanted], schema=wanted)


def encode_scores(table: pa.Table) -> bytes:
    """Rows as a message: an Arrow IPC stream that any Arrow reader opens."""
    header = json.dumps({"format": FORMAT, "kind": "scores"}, separators=(",", ":"))
    schema = table.schema.with_metadata({b"wiresonde": header.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(table.cast(schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_scores(message: bytes) -> pa.Table:
    """The rows of a message of the scores topic. Raises InputError for anything else."""
    where = "message of scores"
    if len(message) > LARGEST_MESSAGE:
        raise InputError(f"{where}: {len(message)} bytes, more than the limit of {LARGEST_MESSAGE}")
    try:
        if has_compression(message):  # its size says nothing of what it would allocate
            raise InputError(f"{where}: compressed within; scores are not")
        with pa.ipc.open_stream(message) as reader:
            header = json.loads((reader.schema.metadata or {}).get(b"wiresonde", b"{}"))
            if not isinstance(header, dict) or header.get("kind") != "scores":
                raise InputError(f"{where}: its header is not that of scores")
            if header.get("format") != FORMAT:
                raise InputError(f"{where}: format {header.get('format')!r}, this version reads {FORMAT}")
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, RecursionError, struct.error) as error:
        raise InputError(f"{where}: not an Arrow stream: {error}") from error
    return checked(table, where).replace_schema_metadata(None)


def as_dicts(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts; times are ints in ns since the epoch, because Python's datetime would round them."""
    for k, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
