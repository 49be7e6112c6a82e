"""The detect command put together: a member of a consumer group from Kafka to sinks."""

from __future__ import annotations

import gc
import logging
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from connectors.bus.kafka import KafkaPublisher, KafkaSubscriber
from connectors.bus.kafka_client import KafkaBusError, KafkaSettings
from connectors.bus.kafka_table import KafkaTable
from connectors.bus.kafka_topics import ALERTS, DEAD_LETTER, PACKETS, PROBES, SCORES, Admin, Topic
from connectors.prometheus import MetricsServer
from engine.commands.bundles import build_detector, model_digest
from engine.commands.replay import kafka_errors, settings_of
from engine.commands.warm import warm_up
from engine.config import Config
from engine.connections.layout import CONNECTION, LINK, SIDE
from engine.consumer.file_sinks import AlertFile, Top
from engine.consumer.intake import Intake
from engine.consumer.member import Member, MemberConfig, Processing
from engine.consumer.outlet import Outlet, Sink
from engine.consumer.restore import Recovery
from engine.consumer.segments import ScoreSegments
from engine.consumer.snapshot import SnapshotStore, Stamp, digest_of
from engine.consumer.topic_sinks import AlertTopic, DeadLetter, ScoreTopic
from engine.errors import StateError
from engine.features.streams import FLOW, KEY
from engine.labels.file import Probes, Slices
from engine.labels.probes import ProbeBook
from engine.metrics import Metrics, serve
from engine.scoring.detector import Detector
from engine.scoring.kitsune import SUM

LINGER = 0.02  # seconds; one alert a request would cost a scan's thousands of alerts a second of the CPU
logger = logging.getLogger(__name__)

LAYOUTS = {"connection": CONNECTION, "side": SIDE, "link": LINK, "sum": SUM, "flow": FLOW, "key": KEY}


@dataclass(frozen=True)
class DetectJob:
    """A detector on Kafka."""

    config: Config
    group: str
    state: str  # folder or URL of snapshots
    model: Path | None = None
    instance: str | None = None  # name of a static member
    stop_at_end: bool = False


@dataclass
class DetectReport:
    """What a detector did."""

    packets: int = 0
    connections: int = 0
    scored: int = 0
    alarms: int = 0
    seconds: float = 0.0
    partitions: dict[int, int] = field(default_factory=dict)  # held at the end -> next offset
    top: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)


class Detect:
    """One detector process, built and ready."""

    def __init__(self, job: DetectJob, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises OutputError, InputError, ConfigError or StateError before a message is taken."""
        self._job, self._clock = job, clock
        config = job.config
        self.metrics = Metrics(tuple(config.labels.slice))
        self.top = Top()
        self.server: MetricsServer | None = None
        with ExitStack() as stack, kafka_errors():
            settings = settings_of(config)
            with Admin(settings) as admin:
                topic = admin.packets()
            store = SnapshotStore(job.state, topic.name)
            stamp = Stamp(topic.id, topic.partitions, _state_digest(job))
            warm_up(config)  # within the group it would last longer than members may be silent
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
            self._probes = book.probes
            outlet = Outlet(sinks, self.metrics, book.probes, slices, lambda ids: _look_up(book, ids))
            intake = Intake(self.metrics, DeadLetter(self._topics[DEAD_LETTER]))
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
        return build_detector(self._job.config, partition, self._job.model)

    def _files(self, probes: Probes, stack: ExitStack) -> list[Sink]:
        directory = self._job.config.output.directory
        if directory is None:
            return []
        segments = ScoreSegments(directory, probes)
        name = self._job.instance or socket.gethostname()
        alerts = AlertFile(directory / "alerts.jsonl", probes, name, append=True)
        stack.callback(alerts.abort)  # its lines are durable already
        return [segments, alerts]

    def _busy(self) -> bool:
        with self.metrics.collector.lock:
            for name, topic in self._topics.items():
                self.metrics.in_flight.set((name,), topic.in_flight)
        return any(topic.behind for topic in self._topics.values())

    def stop(self) -> None:
        """End after the messages at hand. A signal handler may call it."""
        self.member.stop()

    def run(self) -> DetectReport:
        """Work until stopped, or to the end of the log. Raises StateError, OutputError or InputError."""
        began = self._clock()
        # Rows and alerts are trees that reference counting frees. The collector would walk a million objects of the
        # compiled kernels for nothing, again and again: a tenth of a detector's time.
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

    def _report(self, seconds: float) -> DetectReport:
        m = self.metrics
        return DetectReport(
            packets=int(sum(m.packets.values.values())),
            connections=self.top.connections,
            scored=self.top.scored,
            alarms=self.top.alarms,
            seconds=seconds,
            partitions={int(k): int(v) for (k,), v in sorted(m.next_offset.values.items())},
            top=self.top.rows(self._probes),
            counters={
                "lost packets": int(m.lost_packets.values[()]),
                "packets published again, skipped": int(m.repeated_packets.values[()]),
                "messages that held no packets": int(m.unreadable.values[()]),
                "evicted connections": int(m.evicted.values[()]),
                "cold starts": int(m.cold_starts.values[()]),
            },
        )


def _look_up(book: ProbeBook, ids: set[int]) -> None:
    try:
        book.resolve(ids)
    except KafkaBusError as error:  # labels are no reason to stop detecting
        logger.warning("probes not looked up: %s", error)


def _same_topic(settings: KafkaSettings, topic: Topic) -> None:
    """Raise StateError when the topic was made anew while we ran. While the cluster does not answer, nobody knows."""
    try:
        with Admin(settings) as admin:
            now = admin.packets()
    except KafkaBusError as error:
        logger.warning("topic not looked at: %s", error)
        return
    if now.id != topic.id:
        raise StateError(
            f"topic {topic.name} was made anew: its id is {now.id} now and was {topic.id}; start again"
        )


def _state_digest(job: DetectJob) -> str:
    k = job.config.kitsune
    sections: dict[str, Any] = {
        "connections": asdict(job.config.connections),
        "features": asdict(k.features),
        "model": model_digest(job.model),
    }
    if job.model is None:
        sections |= {"kitnet": asdict(k.kitnet), "threshold": asdict(k.threshold), "scorer": asdict(k.scorer)}
    return digest_of(sections, LAYOUTS)
