"""Where the parts are put together: what each command does, without the command line."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from prometheus_client import generate_latest

import engine
from connectors.bus.memory import BusClosedError, MemoryBus
from connectors.files.whole import write_whole
from connectors.prometheus import MetricsServer, registry_of
from engine.commands.bundles import KIND, build_detector, check_bundle_place, digest_of_file
from engine.commands.reading import Progress, check_captures, frames, late_note
from engine.config import BusSection, Config, MetricsSection, OutputSection
from engine.consumer.file_sinks import AlertFile, ScoreFile, Top
from engine.consumer.intake import Intake
from engine.consumer.outlet import Outlet
from engine.consumer.segments import ScoreSegments
from engine.consumer.worker import Every, Worker
from engine.errors import ConfigError, InputError, OutputError
from engine.labels.file import NO_PROBES, Labels, Slices
from engine.metrics import Metrics, serve
from engine.scoring.columns import label_names
from engine.scoring.kitsune import KitsuneScorer
from engine.sensor.publisher import LATENCY, Pace, Publisher, Sensor, replay
from engine.types import NO_LOSS, PHASES
from models.bundle import BundleError, pack

METRICS_FILE = "metrics.prom"

logger = logging.getLogger(__name__)


class Live(Protocol):
    """Publishes what passes an interface; engine/commands/watch.py has it."""

    name: str  # of this run, for a folder

    def publish(self, bus: MemoryBus) -> None:
        """Publish until stopped. Raises InputError when the interface is gone, after what it gave."""

    def stop(self) -> None:
        """Take no more packets, and end."""


@dataclass(frozen=True)
class Job:
    """One scoring run over captures through the embedded bus."""

    captures: Sequence[Path]
    config: Config
    labels: Labels | None = None
    model: Path | None = None  # bundle to score with, frozen
    speed: float = 0.0  # times real time; 0 = as fast as it goes
    progress: Progress | None = None
    linger: float = 0.0  # seconds the metrics endpoint stays up after the last packet
    live: Live | None = None  # an interface instead of captures


@dataclass
class Summary:
    """What a run came to."""

    packets: int = 0
    connections: int = 0
    scored: int = 0
    alarms: int = 0
    alerts: int = 0
    seconds: float = 0.0
    phase: str = ""
    threshold: float | None = None  # the greatest of the partitions'
    least_threshold: float | None = None
    losses: dict[str, int] = field(default_factory=dict)
    top: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    trained: bool = False  # a bundle was made: what alarmed while learning is of no interest
    problem: str | None = None  # where a capture is damaged; what came before it is in the summary

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["top"] = [
            {
                name: None if isinstance(value, float) and np.isnan(value) else value
                for name, value in row.items()
            }
            for row in self.top
        ]
        return values


class Scoring:
    """Publisher, bus, detectors and sinks of one run, built and ready."""

    def __init__(self, job: Job) -> None:
        """Raises InputError, OutputError or ConfigError before anything is written."""
        config = job.config
        self.job = job
        self.probes = job.labels.probes if job.labels else NO_PROBES
        self._check()
        self.bus = MemoryBus(config.bus.partitions, config.bus.queue_blocks)
        self.metrics = Metrics(tuple(config.labels.slice))
        self.detectors = [build_detector(config, k, job.model) for k in range(config.bus.partitions)]
        self.top = Top()
        self.files: list[ScoreFile | AlertFile] = []
        self.segments: list[ScoreSegments] = []
        self.server: MetricsServer | None = None
        self._stopped = threading.Event()
        self._publisher: Publisher | None = None
        try:
            self.server = serve(self.metrics.collector, config.metrics.host, config.metrics.port)
            self._open_files()
        except BaseException:
            self.abort()
            raise

    def _check(self) -> None:
        check_captures(self.job.captures)
        if self.job.labels is None:
            return
        names = label_names(self.probes)
        if not names:
            raise InputError(f"{self.job.labels.source}: no row has a label")
        if unknown := [name for name in self.job.config.labels.slice if name not in names]:
            raise ConfigError(
                f"labels.slice: {', '.join(unknown)}: {self.job.labels.source} has {', '.join(names)}"
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
        live, name = self.job.live, self.job.config.sensor.name
        if live is not None:
            self.segments.append(ScoreSegments(directory / live.name, self.probes))
        else:
            self.files.append(ScoreFile(directory / "scores.parquet", self.probes))
        self.files.append(AlertFile(directory / "alerts.jsonl", self.probes, name, append=live is not None))

    def abort(self) -> None:
        """Leave nothing half written."""
        for file in self.files:
            file.abort()
        if self.server is not None:
            self.server.close()

    def stop(self) -> None:
        """End the captures early; what was published is still scored. A signal handler may call it."""
        self._stopped.set()
        if self.job.live is not None:
            self.job.live.stop()
        else:
            self.bus.end()

    def run(self) -> Summary:
        """Score everything, up to ``stop``. A damaged capture that gave packets is told of in the summary."""
        config = self.job.config
        slices = Slices(config.labels.slice, config.labels.max_values)
        worker = Worker(
            self.bus,
            self.detectors,
            Intake(self.metrics),
            Outlet([self.top, *self.segments, *self.files], self.metrics, self.probes, slices),
            (config.output.flush_connections, max(1, config.bus.queue_blocks // 2)),
            Every(config.detect.flush_seconds, config.detect.snapshot_seconds) if self.job.live else None,
        )
        thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
        began = time.perf_counter()
        summary = Summary()
        thread.start()
        try:
            try:
                worker.run()
            except InputError as error:
                if self.job.live is None and not any(d.packets for d in self.detectors):
                    raise
                summary.problem = str(error)
                worker.close()
            summary.interrupted = self._stopped.is_set() and self.job.live is None
            summary.seconds = time.perf_counter() - began
            self._fill(summary)
            self._finish(summary)
        except BaseException:
            self.stop()
            self.bus.end()  # releases a publisher that waits for room
            self.abort()
            raise
        finally:
            thread.join(timeout=1 if self.job.live is None else None)  # it may wait for a pipe
        return summary

    def leave(self) -> None:
        """Keep the metrics endpoint for as long as the job wants it, up to ``stop``, then close it."""
        if self.server is not None:
            self._stopped.wait(self.job.linger)
            self.server.close()

    def _publish(self) -> None:
        try:
            if self.job.live is not None:
                self.job.live.publish(self.bus)
            else:
                self._publish_captures()
            self.bus.end()
        except BusClosedError:
            return
        except BaseException as error:
            self.bus.end(error)

    def _publish_captures(self) -> None:
        config = self.job.config
        sensor = Sensor(
            config.sensor.name,
            config.sensor.epoch or 0,
            config.bus.block_packets,
            config.decode,
            self.job.labels,
        )
        publisher = self._publisher = Publisher(sensor, self.bus)
        blocks = frames(self.job.captures, config.bus.block_packets, self.job.progress)
        live = self.job.speed > 0 or any(str(path) == "-" for path in self.job.captures)
        try:
            replay(
                blocks, publisher, Pace(self.job.speed, LATENCY if live else None, sleep=self._stopped.wait)
            )
        except InputError:  # what came before the damage is still scored
            publisher.finish()
            raise

    def _fill(self, summary: Summary) -> None:
        detectors = self.detectors
        summary.packets = sum(d.packets for d in detectors)
        summary.connections, summary.scored, summary.alarms = (
            self.top.connections, self.top.scored, self.top.alarms,
        )  # fmt: skip
        summary.alerts = sum(f.alerts for f in self.files if isinstance(f, AlertFile))
        losses = Counter({"dropped by the sensor": sum(d.dropped for d in detectors)})
        losses["lost packets"] = sum(d.lost_packets for d in detectors)
        losses["evicted connections"] = sum(d.tracker.counters["evicted"] for d in detectors)
        for d in detectors:
            losses.update({f"not read whole: {why}": n for why, n in d.unread.items() if why != NO_LOSS})
        summary.losses = {name: n for name, n in losses.items() if n}
        scorers = [s for d in detectors for s in d.scorers]
        summary.phase = min((s.phase for s in scorers), key=PHASES.index)
        thresholds = [s.threshold_value for s in scorers if not np.isnan(s.threshold_value)]
        summary.threshold = max(thresholds) if thresholds else None
        summary.least_threshold = min(thresholds) if thresholds else None
        if summary.phase != "score":
            config = self.job.config.kitsune
            need = config.kitnet.map_samples + config.kitnet.learn_samples + config.scorer.calibrate_packets
            most = max(s.kitnet.samples for s in scorers if isinstance(s, KitsuneScorer))
            summary.notes.append(
                f"the model is still in phase {summary.phase}: it learns from {need} packets a partition, "
                f"and the fullest had {most}; --learn N makes do with fewer"
            )
        summary.notes += self._notes(summary)
        summary.top = self.top.rows(self.probes)

    def _notes(self, summary: Summary) -> list[str]:
        notes = []
        kitsunes = [s for d in self.detectors for s in d.scorers if isinstance(s, KitsuneScorer)]
        fitted = [s.threshold for s in kitsunes if s.threshold is not None]
        if guessed := [t for t in fitted if not t.sufficient]:
            t = min(guessed, key=lambda t: t.n)
            notes.append(
                f"the threshold is a guess: {t.n} connections are too few for a false-positive rate of "
                f"{t.false_positive_rate:g} (kitsune.threshold)"
            )
        late = sum(d.tracker.counters["late_packets"] for d in self.detectors)
        if note := late_note(late, summary.packets):
            notes.append(note)
        if self.job.labels is not None and self.job.live is None:
            n = self._publisher.labelled if self._publisher else 0
            what = f"{n:,} of {summary.packets:,} packets match a label"
            notes.append(what if n else f"{what}: are its addresses and times those of the captures?")
        return notes

    def _finish(self, summary: Summary) -> None:
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


def score(job: Job) -> Summary:
    """Score captures through the embedded bus. Raises WiresondeError; see also ``Summary.problem``."""
    scoring = Scoring(job)
    summary = scoring.run()
    scoring.leave()
    return summary


def train_kitsune(
    captures: Sequence[Path], config: Config, out: Path, progress: Progress | None = None
) -> Summary:
    """Learn from captures that hold nothing but normal traffic, and write the bundle and nothing else."""
    check_bundle_place(out)
    alone = {"output": OutputSection(), "metrics": MetricsSection(), "bus": BusSection()}
    scoring = Scoring(Job(captures, config.model_copy(update=alone), progress=progress))
    summary = scoring.run()
    summary.trained, summary.top = True, []
    learned = config.kitsune.kitnet.map_samples + config.kitsune.kitnet.learn_samples
    learned += config.kitsune.scorer.calibrate_packets
    if summary.problem is not None:
        raise InputError(f"{summary.problem}; no bundle was written")
    scorer = scoring.detectors[0].scorers[0]
    assert isinstance(scorer, KitsuneScorer)
    if scorer.threshold is None:
        raise InputError(f"{summary.notes[0]}; no bundle was written")
    k = config.kitsune
    sections = {
        "kitnet": asdict(scorer.kitnet.config),
        "features": {"lambdas": list(k.features.lambdas)},
        "scorer": asdict(k.scorer),
        "threshold": asdict(scorer.threshold),
    }
    provenance = {
        "wiresonde": engine.__version__,
        "version": scorer.version,
        "packets": min(summary.packets, learned),
        "captures": [
            {"name": path.name, "sha256": digest_of_file(path)} for path in captures if path.is_file()
        ],
    }
    try:
        write_whole(out, pack(scorer.kitnet.state(), sections, provenance, kind=KIND))
    except BundleError as error:
        raise OutputError(f"{out}: {error}") from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error
    summary.files.append(str(out))
    return summary
