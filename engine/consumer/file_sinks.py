"""Sinks on disk: scores and traces as Parquet, alerts as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from connectors.files.alerts import JsonLines
from connectors.files.parquet import ParquetFile
from engine.consumer.alerts import alert_documents
from engine.consumer.outlet import Spans
from engine.errors import OutputError
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch, label_names
from engine.scoring.columns import score_schema, score_table
from engine.scoring.trace import Tracer, trace_schema


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Raise the errors of a file as OutputError with its path."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


class _ParquetSink:
    """A Parquet file that appears at ``close``, complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        """Raises OutputError when the file cannot be created."""
        self.path = path
        with errors_of(path):
            self._file = ParquetFile(path, schema)

    def sync(self, partition: int) -> None:
        """Do nothing: the file appears at ``close``, complete."""

    def close(self) -> None:
        """Make the file appear."""
        with errors_of(self.path):
            self._file.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.abort()


class ScoreFile(_ParquetSink):
    """Sink: all rows as one Parquet file."""

    def __init__(self, path: Path, probes: Probes) -> None:
        """Raises OutputError when the file cannot be created."""
        super().__init__(path, score_schema(label_names(probes)))
        self._probes = probes

    def write(self, batch: ScoreBatch) -> None:
        """Append a batch."""
        with errors_of(self.path):
            self._file.write(score_table(batch, self._probes))

    def flush(self, spans: Spans) -> None:
        """Do nothing: the file appears at ``close``, complete."""


class AlertFile:
    """Sink: a line of ECS JSON for each connection that alarms, when its alarm begins."""

    def __init__(self, path: Path, probes: Probes, observer: str, append: bool = False) -> None:
        """``append``: keep the lines of an earlier run. Raises OutputError when the file cannot be created."""
        self.path = path
        self._probes = probes
        self._observer = observer
        self.alerts = 0
        with errors_of(path):
            self._file = JsonLines(path, append)

    def write(self, batch: ScoreBatch) -> None:
        """Write a line for each alarm that begins in a batch."""
        documents = alert_documents(batch, self._probes, self._observer)
        if not documents:
            return
        with errors_of(self.path):
            self._file.write(documents)
        self.alerts += len(documents)

    def flush(self, spans: Spans) -> None:
        """Do nothing: lines are written at once."""

    def sync(self, partition: int) -> None:  # noqa: ARG002 -- lines of all partitions are in one file
        """Make the lines of all partitions durable."""
        with errors_of(self.path):
            self._file.sync()

    def close(self) -> None:
        """Make all lines durable."""
        with errors_of(self.path):
            self._file.close()

    def abort(self) -> None:
        """Keep the complete lines written so far."""
        self._file.abort()


class TraceFile(_ParquetSink):
    """Sink: the packets of traced connections that have ended, as Parquet."""

    def __init__(self, path: Path, tracers: Sequence[Tracer]) -> None:
        """``tracers``: one for each partition, all for the same models. OutputError if the file cannot be created."""
        super().__init__(path, trace_schema(tracers[0].models))
        self._tracers = tracers

    def write(self, batch: ScoreBatch) -> None:
        """Do nothing: ``flush`` takes the packets."""

    def flush(self, spans: Spans) -> None:  # noqa: ARG002 -- takes all ended connections
        """Append the packets of connections that have ended."""
        with errors_of(self.path):
            for tracer in self._tracers:
                if (table := tracer.drain()).num_rows:
                    self._file.write(table)
