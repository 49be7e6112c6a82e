"""The scores command put together: files of scores as one table, and counts by label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.commands.run_summary import ATTACK, is_attack
from engine.consumer.segments import Merged, merge
from engine.errors import ConfigError, InputError
from engine.scoring.columns import read_scores


def gather(paths: Sequence[Path]) -> Merged:
    """Rows of score files, or of directories of detectors' segments. InputError; ConfigError for a mixture."""
    folders = [path for path in paths if path.is_dir()]
    if folders and len(folders) != len(paths):
        raise ConfigError(f"{folders[0]} is a directory and others are files: give one or the other")
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"{missing[0]}: No such file or directory")
    return merge(folders) if folders else Merged(read_scores(paths))


def by_label(table: pa.Table, names: Sequence[str], where: str) -> dict[str, list[dict[str, Any]]]:
    """Counts of each model by label values: connections, scored and alarms; attacks first, then the most.

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
        rows.sort(key=_place)
    return found


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    attack = row.get(f"label.{ATTACK}")
    return attack is not None and not is_attack(attack), -row["connections"], list(map(str, row.values()))
