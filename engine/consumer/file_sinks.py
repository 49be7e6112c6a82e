"""Sinks on disk: scores and traces as Parquet, alerts as lines of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from connectors.files.alerts import JsonLines
from connectors.files.parquet import ParquetFile
from engine.consumer.alerts import alert_documents
from engine.consumer.outlet import Spans
from engine.errors import OutputError
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch, label_names
from engine.scoring.columns import score_schema, score_table
from engine.scoring.trace import Tracer, trace_schema


class ScoreFile:
    """Sink: all rows as one Parquet file."""

    def __init__(self, path: Path, probes: Probes) -> None:
        """Raises OutputError when the file cannot be created."""
        self.path = path
        self._probes = probes
        try:
            self._file = ParquetFile(path, score_schema(label_names(probes)))
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, batch: ScoreBatch) -> None:
        """Append a batch."""
        try:
            self._file.write(score_table(batch, self._probes))
        except OSError as error:
            raise _failed(self.path, error) from error

    def flush(self, spans: Spans) -> None:
        """Do nothing: the file appears at ``close``, complete."""

    def sync(self, partition: int) -> None:
        """Do nothing: the file appears at ``close``, complete."""

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
        """``append``: keep the lines of an earlier run. Raises OutputError when the file cannot be created."""
        self.path = path
        self._probes = probes
        self._observer = observer
        self.alerts = 0
        try:
            self._file = JsonLines(path, append)
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, batch: ScoreBatch) -> None:
        """Write a line for each alarm that begins in a batch."""
        documents = alert_documents(batch, self._probes, self._observer)
        if not documents:
            return
        try:
            self._file.write(documents)
        except OSError as error:
            raise _failed(self.path, error) from error
        self.alerts += len(documents)

    def flush(self, spans: Spans) -> None:
        """Do nothing: lines are written at once."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- lines of all partitions are in one file
        """Make the lines of all partitions durable."""
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
        """Keep the complete lines written so far."""
        self._file.abort()


class TraceFile:
    """Sink: the packets of traced connections that have ended, as Parquet."""

    def __init__(self, path: Path, tracers: Sequence[Tracer]) -> None:
        """``tracers``: one for each partition, all for the same models. OutputError if the file cannot be created."""
        self.path = path
        self._tracers = tracers
        try:
            self._file = ParquetFile(path, trace_schema(tracers[0].models))
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, batch: ScoreBatch) -> None:
        """Do nothing: ``flush`` takes the packets."""

    def flush(self, spans: Spans) -> None:  # noqa: ARG002 -- takes all ended connections
        """Append the packets of connections that have ended."""
        try:
            for tracer in self._tracers:
                if (table := tracer.drain()).num_rows:
                    self._file.write(table)
        except OSError as error:
            raise _failed(self.path, error) from error

    def sync(self, partition: int) -> None:
        """Do nothing: the file appears at ``close``, complete."""

    def close(self) -> None:
        """Make the file appear."""
        try:
            self._file.close()
        except OSError as error:
            raise _failed(self.path, error) from error

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.abort()


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: {error.strerror or error}")
