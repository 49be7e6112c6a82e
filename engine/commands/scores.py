"""The scores command put together: files of scores as one table, and counts by label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from engine.commands.run_summary import label_place
from engine.consumer.segments import Merged, merge
from engine.errors import ConfigError, InputError
from engine.notation import seconds
from engine.scoring.columns import as_dicts, read_scores

SCORES = "scores.parquet"  # what `score --out` leaves in a folder


def gather(paths: Sequence[Path]) -> Merged:
    """Rows of score files, or of directories of detectors' segments. InputError; ConfigError for a mixture."""
    folders = [path for path in paths if path.is_dir()]
    if folders and len(folders) != len(paths):
        raise ConfigError(f"{folders[0]} is a directory and others are files: give one or the other")
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"{missing[0]}: No such file or directory")
    if folders and all((folder / SCORES).is_file() for folder in folders):
        return Merged(read_scores([folder / SCORES for folder in folders]))
    return merge(folders) if folders else Merged(read_scores(paths))


def by_label(table: pa.Table, names: Sequence[str], where: str) -> dict[str, list[dict[str, Any]]]:
    """Counts of each model by label values: connections, scored and alarms; those with alarms first.

    Raises ConfigError for an unknown label.
    """
    known = [name.removeprefix("label.") for name in table.column_names if name.startswith("label.")]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--by {unknown[0]}: no such label; {where} has {', '.join(known) or 'no labels'}")
    keys = ["model", *(f"label.{name}" for name in names)]
    final = table.filter(table["final"])
    counted = final.select(keys)
    counted = counted.append_column("scored", pc.cast(pc.is_valid(final["score"]), pa.int64()))
    counted = counted.append_column("alarms", pc.cast(final["alarm"], pa.int64()))
    groups = counted.group_by(keys).aggregate([([], "count_all"), ("scored", "sum"), ("alarms", "sum")])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in dict.fromkeys(final["model"].to_pylist())}
    for row in groups.to_pylist():
        labels = {key: row[key] or "" for key in keys[1:]}
        if any(labels.values()):
            counts = {
                "connections": row["count_all"],
                "scored": row["scored_sum"],
                "alarms": row["alarms_sum"],
            }
            found[row["model"]].append({**labels, **counts})
    for rows in found.values():
        rows.sort(key=label_place)
    return found


def json_lines(table: pa.Table) -> Iterator[str]:
    """One JSON object a row: values that do not exist left out, times in seconds."""
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    for row in as_dicts(table):
        stamps = {name: row.pop(name) for name in times}
        shown = [f'"{name}": {seconds(ns)}' for name, ns in stamps.items() if ns is not None]
        rest = orjson.dumps({name: value for name, value in row.items() if value is not None}).decode()
        yield "{" + ", ".join([*shown, rest[1:]])
