"""Where scores of connections go: Parquet, alerts, and the summary that a command prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.files.alerts import COLUMNS, JsonLines, to_ecs
from connectors.files.parquet import ParquetFile
from engine.connections.layout import CONNECTION, SIDE
from engine.consumer.outlet import Spans
from engine.errors import OutputError
from engine.labels.file import Probes
from engine.scoring.columns import as_dicts, score_table
from engine.types import SCORE, ScoreBatch, choose


def alert_documents(batch: ScoreBatch, probes: Probes, observer: str) -> list[dict[str, Any]]:
    """ECS documents of the alarms that begin in a batch."""
    begins = batch.scores["begins"]
    if not begins.any():
        return []
    table = score_table(batch, probes).filter(pa.array(begins.copy()))
    wanted = [name for name in table.column_names if name in COLUMNS or name.startswith("label.")]
    return [to_ecs(row, observer) for row in as_dicts(table.select(wanted))]


def no_scores() -> ScoreBatch:
    """A batch without rows, for a schema."""
    return ScoreBatch("", "", np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE), np.zeros(0, SCORE))


class ScoreFile:
    """Sink: every row as Parquet."""

    def __init__(self, path: Path, probes: Probes) -> None:
        """Raises OutputError when the file cannot be begun."""
        self.path = path
        self._probes = probes
        try:
            self._file = ParquetFile(path, score_table(no_scores(), probes).schema)
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, batch: ScoreBatch) -> None:
        """Append a batch."""
        try:
            self._file.write(score_table(batch, self._probes))
        except OSError as error:
            raise _failed(self.path, error) from error

    def flush(self, spans: Spans) -> None:
        """Nothing: the file appears whole, at the end."""

    def sync(self, partition: int) -> None:
        """Nothing, likewise."""

    def close(self) -> None:
        """Make the file appear."""
        try:
            self._file.close()
        except OSError as error:
            raise _failed(self.path, error) from error

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.abort()


class AlertFile:
    """Sink: a line of ECS JSON for each connection that alarms, when its alarm begins."""

    def __init__(self, path: Path, probes: Probes, observer: str, append: bool = False) -> None:
        """``append``: go on behind the lines of a run before. Raises OutputError when the file cannot be begun."""
        self.path = path
        self._probes = probes
        self._observer = observer
        self.alerts = 0
        try:
            self._file = JsonLines(path, append)
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, batch: ScoreBatch) -> None:
        """Write the alarms of a batch that begin in it."""
        documents = alert_documents(batch, self._probes, self._observer)
        if not documents:
            return
        try:
            self._file.write(documents)
        except OSError as error:
            raise _failed(self.path, error) from error
        self.alerts += len(documents)

    def flush(self, spans: Spans) -> None:
        """Nothing: lines are written at once."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- lines of all partitions are in one file
        """Make the lines durable."""
        try:
            self._file.sync()
        except OSError as error:
            raise _failed(self.path, error) from error

    def close(self) -> None:
        """Make all lines durable."""
        try:
            self._file.close()
        except OSError as error:
            raise _failed(self.path, error) from error

    def abort(self) -> None:
        """Keep the whole lines written so far."""
        self._file.abort()


class Top:
    """Sink: counts, and keeps the most anomalous connections."""

    def __init__(self, most: int = 10) -> None:
        self._most = most
        self._best: list[ScoreBatch] = []  # of one connection each
        self.connections = 0
        self.scored = 0
        self.alarms = 0

    def write(self, batch: ScoreBatch) -> None:
        """Count ended connections and keep those with the greatest scores."""
        final, scored = batch.scores["final"], batch.scores["scored"] > 0
        self.connections += int(final.sum())
        self.alarms += int((batch.scores["alarm"] & final).sum())
        ended = np.flatnonzero(final & scored)
        self.scored += ended.size
        order = np.lexsort((batch.rows["start"][ended], -batch.scores["score"][ended]))
        most = ended[order[: self._most]]
        self._best += [choose(batch, most[k : k + 1]) for k in range(most.size)]
        self._best.sort(key=lambda b: (-b.scores["score"][0], b.rows["start"][0]))
        del self._best[self._most :]

    def flush(self, spans: Spans) -> None:
        """Nothing."""

    def sync(self, partition: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def abort(self) -> None:
        """Nothing."""

    def rows(self, probes: Probes) -> list[dict[str, Any]]:
        """The kept connections, greatest score first."""
        return [row for batch in self._best for row in as_dicts(score_table(batch, probes))]


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: {error.strerror or error}")
