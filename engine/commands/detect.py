"""The detect command put together: a member of a consumer group from Kafka to sinks."""

from __future__ import annotations

import functools
import gc
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaBusError, KafkaSettings
from connectors.bus.kafka_table import KafkaTable
from connectors.bus.kafka_topics import ALERTS, DEAD_LETTER, PACKETS, PROBES, SCORES, Admin, Topic
from connectors.prometheus import MetricsServer
from engine.commands.cluster import kafka_errors, settings_of
from engine.commands.memory import keep_freed
from engine.commands.models import chosen_models, first_of
from engine.commands.notes import notes_of
from engine.commands.run_summary import RunSummary, by_labels, count_streams, fill
from engine.commands.summary import shown_labels
from engine.commands.warm import warm_up
from engine.config import Config
from engine.connections.layout import CONNECTION, LINK, SIDE
from engine.consumer.file_sinks import AlertFile
from engine.consumer.intake import Intake
from engine.consumer.member import Member, MemberConfig, Processing
from engine.consumer.outlet import Outlet, Sink
from engine.consumer.restore import Recovery
from engine.consumer.segments import ScoreSegments, TraceSegments
from engine.consumer.snapshot import SnapshotStore, Stamp
from engine.consumer.top import Top
from engine.consumer.topic_sinks import AlertTopic, DeadLetter, ScoreTopic
from engine.errors import ConfigError, StateError
from engine.labels.probes import ProbeBook
from engine.labels.rules import Probes
from engine.labels.slices import Slices
from engine.metrics import Metrics, serve
from engine.scoring.building import ModelSpec, build_detector, digest_of
from engine.scoring.detector import Detector
from engine.scoring.trace import MOST_CONNECTIONS, Selection, Tracer, trace_notes
from engine.sensor.tally import Tally

LINGER = 0.02  # seconds to gather messages: a request for each of a scan's thousands of alerts costs a second of CPU
logger = logging.getLogger(__name__)

LAYOUTS = {"connection": CONNECTION, "side": SIDE, "link": LINK}


@dataclass(frozen=True)
class DetectJob:
    """A detector on Kafka."""

    config: Config
    group: str
    state: str  # directory or URL for snapshots
    models: Sequence[ModelSpec] | None = None  # models to score with; None: those of the configuration
    instance: str | None = None  # name of this process as a static member of the group
    stop_at_end: bool = False
    trace: Selection | None = None  # connections to trace, with an output directory


class Detect:
    """One detector process, built and ready."""

    def __init__(self, job: DetectJob, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OutputError, InputError, ConfigError or StateError before any message is taken."""
        self._job, self._clock = job, clock
        config = job.config
        self.specs = list(chosen_models(config) if job.models is None else job.models)
        if job.trace is not None and config.output.directory is None:
            raise ConfigError("--trace writes trace-*.parquet: give --out DIR")
        self.metrics = Metrics(tuple(config.labels.slice), {s.name: s.kind.bounds for s in self.specs})
        self.top = Top(first_of(self.specs).name)
        self.tally = Tally()  # counts of what was read, once the run has ended
        self._traces: TraceSegments | None = None
        self.server: MetricsServer | None = None
        with ExitStack() as stack, kafka_errors():
            settings = settings_of(config)
            with Admin(settings) as admin:
                topic = admin.packets()
            store = SnapshotStore(job.state, topic.name)
            self._partitions = topic.partitions
            stamp = Stamp(topic.id, topic.partitions, _state_digest(config))
            warm_up(config, self.specs)  # before joining: it takes longer than max_poll_interval_ms
            table = KafkaTable(settings, PROBES)
            stack.callback(table.close)
            book = ProbeBook(table)
            book.resolve(set())
            in_flight = config.bus.kafka.in_flight_bytes
            self._topics = {}
            for name in (SCORES, ALERTS, DEAD_LETTER):
                self._topics[name] = KafkaPublisher(settings, name, in_flight, LINGER)
                stack.callback(self._topics[name].close)
            sinks: list[Sink] = [
                self.top,
                ScoreTopic(self._topics[SCORES], book.probes),
                AlertTopic(self._topics[ALERTS], book.probes, config.sensor.name),
                *self._files(book.probes, stack),
            ]
            slices = Slices(config.labels.slice, config.labels.max_values)
            self.probes, self._look_up = book.probes, functools.partial(_look_up, book)
            outlet = Outlet(sinks, self.metrics, book.probes, slices, self._look_up)
            intake = self._intake = Intake(self.metrics, DeadLetter(self._topics[DEAD_LETTER]))
            self._bus = KafkaSubscriber(
                settings, PACKETS, job.group, instance=job.instance, stop_at_end=job.stop_at_end
            )
            stack.callback(self._bus.close)
            self.member = Member(
                self._bus,
                Recovery(store, stamp, self._build, lambda: _same_topic(settings, topic)),
                Processing(intake, outlet, self.metrics, self._busy),
                MemberConfig(
                    config.detect.snapshot_seconds, config.detect.flush_seconds, config.output.flush_connections,
                    end_connections=job.stop_at_end,
                ),
                clock,
            )  # fmt: skip
            self.server = serve(
                self.metrics.collector, config.metrics.host, config.metrics.port,
                lambda: self._clock() - self.member.progress < config.detect.alive_seconds, lambda: self.member.ready,
            )  # fmt: skip
            self._close = stack.pop_all()

    def _build(self, partition: int) -> Detector:
        tracer = None
        if self._traces is not None and self._job.trace is not None:
            tracer = Tracer(
                self._job.trace,
                [spec.name for spec in self.specs],
                self.probes,
                partition,
                MOST_CONNECTIONS // self._partitions,
                self._look_up,
            )
            self._traces.adopt(tracer)
        return build_detector(partition, self._job.config.connections, self.specs, tracer)

    def _files(self, probes: Probes, stack: ExitStack) -> list[Sink]:
        directory = self._job.config.output.directory
        if directory is None:
            return []
        segments = ScoreSegments(directory, probes)
        name = self._job.instance or socket.gethostname()
        alerts = AlertFile(directory / "alerts.jsonl", probes, name, append=True)
        stack.callback(alerts.abort)  # written lines are already durable
        if self._job.trace is None:
            return [segments, alerts]
        self._traces = TraceSegments(directory)
        return [segments, alerts, self._traces]

    def _busy(self) -> bool:
        with self.metrics.collector.lock:
            for name, topic in self._topics.items():
                self.metrics.in_flight.set((name,), topic.in_flight)
        return any(topic.behind for topic in self._topics.values())

    def stop(self) -> None:
        """End after the messages already polled. A signal handler may call it."""
        self.member.stop()

    def run(self) -> RunSummary:
        """Process messages until stopped or to the end of the log. Raises StateError, OutputError or InputError."""
        began = self._clock()
        keep_freed()
        # Reference counting frees rows and alerts, which have no cycles. Without the freeze, the collector would walk
        # a million objects of the compiled kernels repeatedly and in vain: a tenth of a detector's time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        try:
            with kafka_errors():
                self.member.run()
        finally:
            if self.server is not None:
                self.server.close()
            self._close.close()
        return self._report(self._clock() - began)

    def _report(self, seconds: float) -> RunSummary:
        detectors, totals = list(self._intake.detectors.values()), self._intake.totals()
        summary = RunSummary(packets=self._intake.packets, seconds=seconds)
        fill(summary, self.specs, detectors, self.top)
        tally = self.tally = Tally(summary.packets)
        for d in detectors:
            tally.unread.update(d.unread)
        count_streams(tally, detectors)
        summary.notes += notes_of(tally)
        if self._traces is not None:
            summary.notes += trace_notes([d.tracer for d in detectors if d.tracer is not None])
        shown = shown_labels(self._job.config.labels.slice, self.probes)
        summary.labels = by_labels(self.top, self.probes, shown) if shown else []
        summary.top = self.top.rows(self.probes)
        summary.partitions = {int(k): int(v) for (k,), v in sorted(self.metrics.next_offset.values.items())}
        summary.counters = {
            "lost packets": totals["lost_packets", ()],
            "packets published again, skipped": totals["repeated_packets", ()],
            "messages that held no packets": self._intake.unreadable,
            "evicted connections": totals["evicted", ()],
            "cold starts": int(self.metrics.cold_starts.values[()]),
        }
        summary.losses = {name: n for name, n in summary.counters.items() if n}
        return summary


def _look_up(book: ProbeBook, ids: set[int]) -> None:
    try:
        book.resolve(ids)
    except KafkaBusError as error:  # missing labels are no reason to stop detecting
        logger.warning("probes could not be looked up: %s", error)


def _same_topic(settings: KafkaSettings, topic: Topic) -> None:
    """Raise StateError if the topic was deleted and created again while we ran; only log if the cluster is silent."""
    try:
        with Admin(settings) as admin:
            now = admin.packets()
    except KafkaBusError as error:
        logger.warning("topic could not be checked: %s", error)
        return
    if now.id != topic.id:
        raise StateError(
            f"topic {topic.name} was deleted and created again: its id was {topic.id}, now it is {now.id}; "
            "restart the detector"
        )


def _state_digest(config: Config) -> str:
    """Digest of the configuration that all state depends on; each model's state has its own digest."""
    return digest_of({"connections": asdict(config.connections)}, LAYOUTS)
