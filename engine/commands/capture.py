"""The capture command put together: an interface to Kafka."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from connectors.bus.disk_queue import SpillError
from connectors.bus.kafka import KafkaPublisher
from connectors.bus.kafka_topics import PACKETS, Admin
from connectors.bus.spill import Spill
from connectors.bus.spilling import Spilled, SpillingPublisher
from connectors.live import notify
from connectors.live.bpf import FilterError
from connectors.live.netdev import InterfaceError
from connectors.live.settings import CaptureLostError
from connectors.prometheus import MetricsServer
from engine.commands.cluster import kafka_errors, settings_of
from engine.commands.tap import live_sensor, spill_directory
from engine.commands.warm import warm_up_sensor
from engine.config import Config
from engine.errors import OutputError, WiresondeError
from engine.metrics import SensorMetrics, serve
from engine.sensor.live import (
    CaptureReport,
    give_up_privileges,
    open_source,
    publish_live,
)
from engine.sensor.publisher import Publisher

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between updates of the metrics
RELOADABLE = ("capture.filter", "capture.snaplen")


@dataclass(frozen=True)
class CaptureJob:
    """An interface to publish."""

    interface: str
    config: Config
    duration: float | None = None  # seconds; None: until stopped
    read_again: Callable[[], Config] | None = None  # reads the configuration again


class Capture:
    """One live sensor, built and ready."""

    def __init__(self, job: CaptureJob, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InputError, OutputError or ConfigError before any packet is taken."""
        self._job, self._clock = job, clock
        self._config = config = job.config
        settings = settings_of(config)
        warm_up_sensor(config)
        self.metrics = SensorMetrics()
        self.server: MetricsServer | None = None
        self._reload = threading.Event()
        self._looked = 0.0
        with ExitStack() as stack:
            self._source = open_source(job.interface, config.capture, logger.warning)
            stack.callback(self._source.close)
            give_up_privileges(config.privacy.user)
            sensor = live_sensor(config, config.bus.kafka.block_packets)
            with kafka_errors():
                with Admin(settings) as admin:
                    admin.packets()
                try:
                    spill = Spill(
                        config.spill.memory_bytes,
                        spill_directory(config, job.interface),
                        config.spill.disk_bytes,
                    )
                except SpillError as error:
                    raise OutputError(f"spill.directory: {error}") from None
                self._taken_over = spill.taken_over
                in_flight = config.bus.kafka.in_flight_bytes
                self._bus = SpillingPublisher(lambda: KafkaPublisher(settings, PACKETS, in_flight), spill)
            stack.callback(self._bus.close, 0.0)
            self._publisher = Publisher(sensor, self._bus)
            self.tally = self._publisher.tally
            alive = self._config.detect.alive_seconds
            self.server = serve(
                self.metrics.collector, self._config.metrics.host, self._config.metrics.port,
                lambda: self._clock() - self._looked < alive, lambda: self._bus.up,
            )  # fmt: skip
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Take no more packets; those already taken are published. A signal handler may call it."""
        self._source.stop()

    def reload(self) -> None:
        """Ask the loop to read the configuration again. A signal handler may call it."""
        self._reload.set()

    def run(self) -> CaptureReport:
        """Publish until stopped. A failure of the interface is reported in ``problem``."""
        job, problem = self._job, None
        began = self._clock()
        timer = threading.Timer(job.duration or 0.0, self.stop)
        timer.daemon = True
        if job.duration is not None:
            timer.start()
        watchdog = notify.watchdog_seconds()
        beat = LOOK if watchdog is None else min(LOOK, watchdog / 2)
        notify.ready(f"capturing from {job.interface}")
        logger.info("capturing interface=%s", job.interface)
        try:
            publish_live(self._source, self._publisher, lambda: self._look(beat), self._clock)
        except (CaptureLostError, OutputError) as error:
            problem = str(error)
        finally:
            timer.cancel()
            notify.stopping()
            spilled = self._bus.close(self._config.spill.stop_seconds)
            self._measure(spilled)
            if self.server is not None:
                self.server.close()
            self._stack.close()
        return self._report(spilled, self._clock() - began, problem)

    def _look(self, beat: float) -> None:
        now = self._clock()
        if now - self._looked < beat:
            return
        self._looked = now
        if self._bus.problem is not None:
            raise OutputError(f"publishing has stopped: {self._bus.problem}")
        notify.alive()
        self._measure(self._bus.spilled())
        if self._reload.is_set():
            self._reload.clear()
            notify.reloading()
            self._read_again()
            notify.ready(f"capturing from {self._job.interface}")

    def _read_again(self) -> None:
        """Apply the values that may change while running; log those that need a restart."""
        try:
            assert self._job.read_again is not None
            fresh = self._job.read_again()
            self._source.change(fresh.capture.filter, fresh.capture.snaplen)
        except (WiresondeError, FilterError, InterfaceError) as error:
            logger.warning("reload refused, nothing changed: %s", error)
            return
        before, after = _flat(self._config.model_dump()), _flat(fresh.model_dump())
        changed = [key for key in after if after[key] != before.get(key)]
        others = [key for key in changed if key not in RELOADABLE]
        logger.warning(
            "reloaded: filter=%r snaplen=%d%s", fresh.capture.filter, fresh.capture.snaplen,
            f"; a restart is needed for {', '.join(others)}" if others else "",
        )  # fmt: skip

    def _measure(self, spilled: Spilled) -> None:
        counters, m = self._source.counters, self.metrics
        at = (self._config.sensor.name, self._job.interface)
        with m.collector.lock:
            m.received.set(at, counters.received)
            m.published.set(at, spilled.published)
            for where, n in _dropped(counters.kernel, counters.ring, spilled).items():
                m.dropped.set((*at, where), n)
            m.waiting.set(at, spilled.waiting)
            m.spill.set((*at, "memory"), spilled.memory_bytes)
            m.spill.set((*at, "disk"), spilled.disk_bytes)
            m.bus_up.set(at, self._bus.up)
            m.skipped.set(at, counters.skipped)
            m.unstamped.set(at, counters.unstamped)
            m.softnet.set((), counters.softnet)
            m.clock_steps.set(at, self._source.clock.steps)
            m.correction.set(at, self._source.clock.correction * 1e-9)

    def _report(self, spilled: Spilled, seconds: float, problem: str | None) -> CaptureReport:
        counters = self._source.counters
        return CaptureReport(
            interface=self._job.interface,
            seconds=seconds,
            received=counters.received,
            published=spilled.published,
            dropped=_dropped(counters.kernel, counters.ring, spilled),
            waiting=spilled.waiting,
            taken_over=self._taken_over,
            skipped=counters.skipped,
            problem=problem,
        )


def _dropped(kernel: int, ring: int, spilled: Spilled) -> dict[str, int]:
    return {"kernel": kernel, "ring": ring, "queue": spilled.queue, "bus": spilled.bus}


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested sections."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
