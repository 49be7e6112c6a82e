"""Scores for the sinks: records of connections, made once, and each model's scores of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.connections.record import connection_table
from engine.labels.rules import Probes
from engine.types import Rows, join_rows, rows_at

SCORE = np.dtype(
    [
        ("score", "f8"),  # NaN: no packet of the connection was scored
        ("peak", "f8"), ("mean", "f8"),  # greatest and mean packet score
        ("threshold", "f8"),  # NaN: not calibrated yet
        ("peak_at", "i8"),  # ns, time of the packet with the greatest score
        ("offset", "i8"),  # offset of the message that gave the row
        ("partition", "i4"),
        ("row", "u4"),  # index among the model's rows of that message
        ("scored", "u4"),  # packets with a score
        ("alarm", "?"), ("final", "?"),  # final: whether the connection has ended
        ("begins", "?"),  # whether the connection's alarm begins with this row, and is to alert
        ("known_orig", "i1"), ("known_resp", "i1"),  # whether learning saw the host: 1 yes, 0 no, -1 not known
        ("phase", "u1"),  # index in PHASES: learn, warm (nothing scored yet), calibrate (no threshold yet), score
    ],
    align=True,
)  # fmt: skip

PHASES = ("map", "learn", "calibrate", "warm", "score")


LEARNING = "learning"  # version of a model without a threshold, in metrics


def shown_version(version: str, threshold: float) -> str:
    """A model's version in metrics. threshold: NaN while there is none."""
    return LEARNING if np.isnan(threshold) else version


def of_new_hosts(scores: Rows) -> NDArray[np.bool_]:
    """(n,) whether learning never saw one of a connection's hosts. scores: (n,) SCORE."""
    new: NDArray[np.bool_] = (scores["known_orig"] == 0) | (scores["known_resp"] == 0)
    return new


class Records:
    """Rows of connections at their end or at the beginning of an alarm, shared by the scores of all models.

    They stay raw, since most are only counted; columns are made once, when a sink first asks.
    """

    def __init__(self, rows: Rows, sides: Rows) -> None:
        """rows: (n,) CONNECTION. sides: (n, 2) SIDE. Neither may change afterwards."""
        self.rows, self.sides = rows, sides
        self._made: tuple[Probes, int, pa.Table] | None = None

    def __len__(self) -> int:
        return int(self.rows.size)

    def table(self, probes: Probes) -> pa.Table:
        """Columns of the connections, then a column ``label.NAME`` for each label of ``probes``."""
        made = self._made
        if made is None or made[0] is not probes or made[1] != len(probes):
            table = connection_table(self.rows, self.sides)
            ids = self.rows["probe"].tolist()
            for name in label_names(probes):
                values = pa.array([probes.get(k, {}).get(name) for k in ids], pa.string())
                table = table.append_column(f"label.{name}", values)
            made = self._made = probes, len(probes), table
        return made[2]

    def take(self, at: NDArray[Any]) -> Records:
        """Records of the given rows."""
        return Records(rows_at(self.rows, at), rows_at(self.sides, at))


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of n connections by one model."""

    model: str  # name of the model in the configuration
    version: str  # version of the model; changes with its configuration and what it learned
    records: Records
    scores: Rows  # (n,) SCORE
    at: NDArray[np.int64] | None = None  # (n,) row of ``records`` for each score; None: rows in order
    shadow: bool = False  # whether the model only watches: its rows raise no alerts and no alarm metrics

    def __len__(self) -> int:
        return int(self.scores.size)

    @property
    def rows(self) -> Rows:
        """(n,) CONNECTION."""
        return self.records.rows if self.at is None else rows_at(self.records.rows, self.at)

    @property
    def sides(self) -> Rows:
        """(n, 2) SIDE."""
        return self.records.sides if self.at is None else rows_at(self.records.sides, self.at)


def join(batches: Sequence[ScoreBatch]) -> tuple[Records, list[ScoreBatch]]:
    """Batches joined into one for each model and version, over one Records that holds each record once.

    The order of the batches is kept, within a model and among models.
    """
    parts: dict[int, tuple[int, Records]] = {}
    size = 0
    for batch in batches:
        if id(batch.records) not in parts:
            parts[id(batch.records)] = size, batch.records
            size += len(batch.records)
    whole = _joined([records for _, records in parts.values()])
    models: dict[tuple[str, str], list[ScoreBatch]] = {}
    for batch in batches:
        models.setdefault((batch.model, batch.version), []).append(batch)
    out = []
    for (model, version), mine in models.items():
        at = [parts[id(b.records)][0] + (np.arange(len(b.records)) if b.at is None else b.at) for b in mine]
        rows = np.concatenate(at)
        every = rows.size == size and bool((rows == np.arange(size)).all())
        scores = join_rows([b.scores for b in mine]) if len(mine) > 1 else mine[0].scores
        out.append(ScoreBatch(model, version, whole, scores, None if every else rows, mine[0].shadow))
    return whole, out


def _joined(parts: list[Records]) -> Records:
    if len(parts) == 1:
        return parts[0]
    return Records(join_rows([p.rows for p in parts]), join_rows([p.sides for p in parts]))


def choose(batch: ScoreBatch, chosen: NDArray[Any]) -> ScoreBatch:
    """Rows of a batch chosen by mask or index, with their own records, so that the rest can be freed."""
    rows = np.arange(len(batch))[chosen]
    records = batch.records.take(rows if batch.at is None else batch.at[rows])
    return ScoreBatch(batch.model, batch.version, records, rows_at(batch.scores, rows), None, batch.shadow)


def label_names(probes: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Names of all labels, in order of first appearance."""
    return list(dict.fromkeys(name for labels in probes.values() for name in labels))
