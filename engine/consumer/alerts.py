"""Alarms that begin -> ECS documents."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from connectors.files.alerts import COLUMNS, to_ecs
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch
from engine.scoring.columns import as_dicts, score_table


def alert_documents(batch: ScoreBatch, probes: Probes, observer: str) -> list[dict[str, Any]]:
    """ECS documents of the alarms that begin in a batch; none for a shadow."""
    begins = batch.scores["begins"]
    if batch.shadow or not begins.any():
        return []
    table = score_table(batch, probes).filter(pa.array(begins.copy()))
    wanted = [name for name in table.column_names if name in COLUMNS or name.startswith("label.")]
    return [to_ecs(row, observer) for row in as_dicts(table.select(wanted))]
