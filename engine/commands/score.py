"""The score command put together: a feed through the embedded bus to detectors and sinks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from prometheus_client import generate_latest

from connectors.bus.memory import BusClosedError, MemoryBus
from connectors.files.whole import write_whole
from connectors.prometheus import MetricsServer, registry_of
from engine.commands.feed import CaptureFeed, Feed, Replay
from engine.commands.memory import keep_freed
from engine.commands.models import chosen_models, first_of
from engine.commands.notes import notes_of
from engine.commands.reading import Choice, Progress
from engine.commands.run_summary import RunSummary, by_labels, count_streams, fill, losses_of
from engine.commands.summary import shown_labels
from engine.config import Config
from engine.consumer.file_sinks import AlertFile, ScoreFile, TraceFile
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet
from engine.consumer.segments import ScoreSegments
from engine.consumer.top import Top
from engine.consumer.worker import Flushing, Worker
from engine.errors import ConfigError, InputError, OutputError
from engine.labels.rules import NO_PROBES, Labels
from engine.labels.slices import Slices
from engine.metrics import Metrics, serve
from engine.scoring.batch import label_names
from engine.scoring.building import ModelSpec, build_detector
from engine.scoring.detector import Detector
from engine.scoring.trace import MOST_CONNECTIONS, Selection, Tracer, check_labels, trace_notes

METRICS_FILE = "metrics.prom"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One scoring run through the embedded bus."""

    captures: Sequence[Path]
    config: Config
    labels: Labels | None = None
    models: Sequence[ModelSpec] | None = None  # models to score with; None: those of the configuration
    speed: float = 0.0  # multiple of real time; 0: as fast as possible
    progress: Progress | None = None
    linger: float = 0.0  # seconds that the metrics endpoint stays up after the last packet
    feed: Feed | None = None  # source of packets; None: the captures
    trace: Selection | None = None  # connections to trace, with an output directory
    keep_trace: bool = False  # whether the traced packets are kept for ``Scoring.traced``: needs no directory
    choice: Choice = field(default_factory=Choice)  # packets of the captures to score
    max_gap: float = 0.0  # longest pause in seconds of the capture; 0: as long as they are


class Scoring:
    """Feed, bus, detectors and sinks of one run, built and ready."""

    def __init__(self, job: Job) -> None:
        """Raises InputError, OutputError or ConfigError before anything is written."""
        config = job.config
        self.job = job
        self.probes = job.labels.probes if job.labels else NO_PROBES
        self.specs = list(chosen_models(config) if job.models is None else job.models)
        self.feed = job.feed or _captures(job)
        self._check()
        self.bus = MemoryBus(config.bus.partitions, config.bus.queue_blocks)
        self.metrics = Metrics(tuple(config.labels.slice), {s.name: s.kind.bounds for s in self.specs})
        names = [spec.name for spec in self.specs]
        partitions = range(config.bus.partitions)
        self.tracers = (
            [
                Tracer(
                    job.trace,
                    names,
                    self.probes,
                    k,
                    MOST_CONNECTIONS // len(partitions),
                    waits=job.keep_trace,
                )
                for k in partitions
            ]
            if job.trace
            else []
        )
        self.detectors = [self._detector(k) for k in partitions]
        self.top = Top(first_of(self.specs).name)
        self.files: list[ScoreFile | AlertFile | TraceFile] = []
        self.segments: list[ScoreSegments] = []
        self.server: MetricsServer | None = None
        self._stopped = threading.Event()
        try:
            self.server = serve(self.metrics.collector, config.metrics.host, config.metrics.port)
            self._open_files()
        except BaseException:
            self.abort()
            raise

    def _detector(self, partition: int) -> Detector:
        tracer = self.tracers[partition] if self.tracers else None
        return build_detector(partition, self.job.config.connections, self.specs, tracer)

    def _check(self) -> None:
        needs_place = self.job.trace is not None and not self.job.keep_trace
        if needs_place and self.job.config.output.directory is None:
            raise ConfigError("--trace writes trace.parquet: give --out DIR")
        if self.job.trace is not None:
            check_labels(self.job.trace, self.probes)
        if self.job.labels is None:
            return
        names = label_names(self.probes)
        if not names:
            raise InputError(f"{self.job.labels.source}: no row has a label")
        if unknown := [name for name in self.job.config.labels.slice if name not in names]:
            raise ConfigError(
                f"labels.slice: {', '.join(unknown)}: not in {self.job.labels.source}, which has {', '.join(names)}"
            )

    def _open_files(self) -> None:
        directory = self.job.config.output.directory
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{directory}: {error.strerror}") from error
        if (directory / METRICS_FILE).is_dir():
            raise OutputError(f"{directory / METRICS_FILE}: Is a directory")
        endless, name = self.feed.endless, self.job.config.sensor.name
        if endless:
            self.segments.append(ScoreSegments(directory / self.feed.name, self.probes))
        else:
            self.files.append(ScoreFile(directory / "scores.parquet", self.probes))
        self.files.append(AlertFile(directory / "alerts.jsonl", self.probes, name, append=endless))
        if self.tracers and not self.job.keep_trace:
            self.files.append(TraceFile(directory / "trace.parquet", self.tracers))

    def abort(self) -> None:
        """Remove unfinished files and close the metrics endpoint."""
        for file in self.files:
            file.abort()
        if self.server is not None:
            self.server.close()

    def stop(self) -> None:
        """End early; packets already published are still scored. A signal handler may call it."""
        self._stopped.set()
        self.feed.stop()
        if not self.feed.endless:
            self.bus.end()

    def run(self) -> RunSummary:
        """Score all packets, or until ``stop``. Damage after the first packets is reported in the summary."""
        keep_freed()
        worker = self._worker()
        thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
        began = time.perf_counter()
        summary = RunSummary()
        thread.start()
        try:
            try:
                worker.run()
            except InputError as error:
                if not self.feed.endless and not any(d.packets for d in self.detectors):
                    raise
                summary.problem = str(error)
                worker.close()
            summary.interrupted = self._stopped.is_set() and not self.feed.endless
            summary.seconds = time.perf_counter() - began
            self._fill(summary)
            self._finish(summary)
        except BaseException:
            self.stop()
            self.bus.end()  # releases a publisher that is waiting for room
            self.abort()
            raise
        finally:
            thread.join(timeout=None if self.feed.endless else 1)  # it may be waiting for a pipe
        return summary

    def _worker(self) -> Worker:
        config = self.job.config
        slices = Slices(config.labels.slice, config.labels.max_values)
        return Worker(
            self.bus,
            self.detectors,
            Intake(self.metrics),
            Outlet([self.top, *self.segments, *self.files], self.metrics, self.probes, slices),
            Flushing(
                config.output.flush_connections,
                max(1, config.bus.queue_blocks // 2),
                config.detect.flush_seconds if self.feed.endless else None,
                config.detect.snapshot_seconds if self.feed.endless else None,
            ),
        )

    def traced(self) -> pa.Table:
        """With ``Job.keep_trace``, after ``run``: the packets of the traced connections."""
        return pa.concat_tables([tracer.drain() for tracer in self.tracers])

    def leave(self) -> None:
        """Keep the metrics endpoint open for the job's linger time or until ``stop``, then close it."""
        if self.server is not None:
            self._stopped.wait(self.job.linger)
            self.server.close()

    def _publish(self) -> None:
        try:
            self.feed.publish(self.bus)
            self.bus.end()
        except BusClosedError:
            return
        except BaseException as error:
            self.bus.end(error)

    def _fill(self, summary: RunSummary) -> None:
        detectors = self.detectors
        summary.packets = sum(d.packets for d in detectors)
        summary.alerts = sum(f.alerts for f in self.files if isinstance(f, AlertFile))
        summary.losses = losses_of(detectors)
        fill(summary, self.specs, detectors, self.top)
        count_streams(self.feed.tally, detectors)
        summary.notes += notes_of(self.feed.tally)
        summary.notes += trace_notes(self.tracers)
        if (n := self.feed.labelled) is not None:
            what = f"{n:,} of {summary.packets:,} packets match a label"
            summary.notes.append(what if n else f"{what}: do its addresses and times fit the captures?")
        summary.top = self.top.rows(self.probes)
        shown = shown_labels(self.job.config.labels.slice, self.probes)
        summary.labels = by_labels(self.top, self.probes, shown) if shown else []

    def _finish(self, summary: RunSummary) -> None:
        summary.files += [str(segment.directory) for segment in self.segments]
        for file in self.files:
            file.close()
            summary.files.append(str(file.path))
        directory = self.job.config.output.directory
        if directory is not None:
            path = directory / METRICS_FILE
            try:
                write_whole(path, generate_latest(registry_of(self.metrics.collector)))
            except OSError as error:
                raise OutputError(f"{path}: {error.strerror}") from error
            summary.files.append(str(path))


def _captures(job: Job) -> CaptureFeed:
    how = Replay(job.speed, job.progress, job.choice, job.max_gap)
    return CaptureFeed(job.captures, job.config, job.labels, how)


def score(job: Job) -> RunSummary:
    """Score captures through the embedded bus. Raises WiresondeError; see also ``RunSummary.problem``."""
    scoring = Scoring(job)
    summary = scoring.run()
    scoring.leave()
    return summary
