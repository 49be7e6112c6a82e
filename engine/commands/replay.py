"""The replay command put together: captures to Kafka."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from connectors.bus.kafka import KafkaPublisher
from connectors.bus.kafka_client import KafkaSettings
from connectors.bus.kafka_table import KafkaTable
from connectors.bus.kafka_topics import PACKETS, PROBES, Admin
from connectors.files.frames import FrameBlock
from engine.commands.cluster import kafka_errors, settings_of
from engine.commands.reading import Choice, Progress, frames
from engine.config import Config
from engine.errors import ConfigError, InputError
from engine.labels.probes import introduce
from engine.labels.rules import Labels
from engine.sensor.publisher import LATENCY, Drift, Pace, Publisher, Sensor, replay
from engine.sensor.tally import Tally

ENDS = 1 << 20  # bytes at each end of a capture that identify it
PAUSE = 1_000_000_000  # ns of event time between two rounds of a loop


@dataclass(frozen=True)
class ReplayJob:
    """Captures to publish."""

    captures: Sequence[Path]
    config: Config
    labels: Labels | None = None
    speed: float = 0.0  # multiple of real time; 0: as fast as possible
    loop: int = 1  # number of times to publish
    progress: Progress | None = None
    choice: Choice = field(default_factory=Choice)  # packets to publish
    max_gap: float = 0.0  # longest pause in seconds of the capture; 0: as long as they are


@dataclass
class ReplayReport:
    """Counts of a replay."""

    packets: int = 0
    messages: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    drift: Drift = field(default_factory=Drift)


def epoch_of(captures: Sequence[Path], config: Config, expression: str = "") -> int:
    """An epoch that is equal whenever the same captures are published with the same decoder settings and filter.

    Computed from the size and both ends of each file; reading it completely would take a minute for each 20 GB.
    """
    digest = hashlib.sha256(repr(config.decode).encode() + expression.encode("utf-8", "surrogateescape"))
    for path in captures:
        if not path.is_file():
            raise ConfigError(f"{path}: a pipe cannot be identified in advance; give sensor.epoch or --epoch")
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(0, size - ENDS))
            digest.update(file.read(ENDS))
    return int.from_bytes(digest.digest()[:7], "little")


class Replay:
    """One replay, built and ready."""

    def __init__(self, job: ReplayJob) -> None:
        """Raises InputError, OutputError or ConfigError before anything is published."""
        self._job = job
        config = job.config
        settings = settings_of(config)
        for path in job.captures:
            if str(path) != "-" and not path.exists():
                raise InputError(f"{path}: No such file or directory")
        if job.loop > 1 and any(not path.is_file() for path in job.captures):
            raise ConfigError("--loop needs files: a pipe can be read only once")
        self._epoch = config.sensor.epoch
        if self._epoch is None:
            self._epoch = epoch_of(job.captures, config, job.choice.expression)
        self._stopped = threading.Event()
        with kafka_errors(), ExitStack() as stack:
            with Admin(settings) as admin:
                admin.packets()
            self._labels = job.labels
            if job.labels is not None:
                self._labels = _introduced(job.labels, settings)
            self._bus = KafkaPublisher(settings, PACKETS, config.bus.kafka.in_flight_bytes)
            stack.callback(self._bus.close, 0.0)
            stack.pop_all()

    def stop(self) -> None:
        """End early; packets already handed over are still delivered. A signal handler may call it."""
        self._stopped.set()

    def run(self) -> ReplayReport:
        """Publish the captures. Raises OutputError naming the first packet that did not reach the log."""
        job, report = self._job, ReplayReport()
        clock = Pace().clock
        began = clock()
        live = job.speed > 0 or any(str(path) == "-" for path in job.captures)
        latency = LATENCY if live else None
        pace = Pace(job.speed, latency, sleep=self._stopped.wait, drift=report.drift, max_gap=job.max_gap)
        try:
            with kafka_errors():
                shift = 0
                for turn in range(job.loop):
                    publisher = self._publisher(turn, shift)
                    try:
                        self._round(publisher, pace, turn)
                    finally:
                        report.packets += publisher.packets
                        report.messages = self._bus.messages
                    if self._stopped.is_set():
                        break
                    shift += publisher.span + PAUSE
                self._bus.flush()
        finally:
            report.seconds = clock() - began
            report.interrupted = self._stopped.is_set()
            # after a failure, no more packets may reach the log: they would hide the gap from a repeated replay
            self._bus.close(0.0 if self._bus.undelivered else 5.0)
        return report

    def _publisher(self, turn: int, shift: int) -> Publisher:
        config = self._job.config
        assert self._epoch is not None
        block, name = config.bus.kafka.block_packets, config.sensor.name
        sensor = Sensor(name, self._epoch + turn, block, config.decode, self._labels, shift=shift)
        tally = Tally() if turn else self._job.choice.tally  # every round reads the same
        return Publisher(sensor, self._bus, tally)

    def _round(self, publisher: Publisher, pace: Pace, turn: int) -> None:
        job = self._job
        choice = Choice(job.choice.expression) if turn else job.choice
        blocks = frames(job.captures, job.config.bus.kafka.block_packets, job.progress, choice)
        try:
            replay(self._until_stopped(blocks), publisher, pace)
        except InputError:
            publisher.finish()  # all packets before the damage are published
            self._bus.flush()
            raise

    def _until_stopped(self, blocks: Iterable[FrameBlock]) -> Iterator[FrameBlock]:
        for block in blocks:
            if self._stopped.is_set():
                return
            yield block


def _introduced(labels: Labels, settings: KafkaSettings) -> Labels:
    table = KafkaTable(settings, PROBES)
    try:
        publisher = KafkaPublisher(settings, PROBES)
        try:
            known = introduce(
                labels, table, lambda key, value: publisher.publish(0, value, key, about="a probe")
            )
            publisher.flush()
        finally:
            publisher.close()
    finally:
        table.close()
    return known
