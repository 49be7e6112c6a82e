"""The watch command put together: an interface through the embedded bus to scored connections, and a live view."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from engine.commands.models import chosen_models
from engine.commands.run_summary import RunSummary
from engine.commands.score import Job, Scoring
from engine.commands.summary import add_connection_columns, connection_cells
from engine.commands.tap import Tap
from engine.commands.warm import warm_up
from engine.config import Config
from engine.labels.rules import Labels
from engine.scoring.building import ModelSpec
from engine.sensor.live import (
    CaptureReport,
    give_up_privileges,
    open_source,
)

logger = logging.getLogger(__name__)

REFRESH = 0.5  # seconds between updates of the view
SHOWN = 8  # most connections shown


@dataclass(frozen=True)
class WatchJob:
    """An interface to score."""

    interface: str
    config: Config
    labels: Labels | None = None
    models: Sequence[ModelSpec] | None = None  # models to score with; None: those of the configuration
    duration: float | None = None  # seconds; None: until stopped


class Watch:
    """Capture and detection in one process, built and ready."""

    def __init__(self, job: WatchJob) -> None:
        """Raises InputError, OutputError or ConfigError before any packet is taken."""
        self._job, self.interface = job, job.interface
        models = chosen_models(job.config) if job.models is None else job.models
        warm_up(job.config, models)
        self.source = open_source(job.interface, job.config.capture, logger.warning)
        try:
            give_up_privileges(job.config.privacy.user)
            self.tap = Tap(self.source, job.interface, job.config, job.labels)
            self.scoring = Scoring(Job((), job.config, job.labels, models, feed=self.tap))
        except BaseException:
            self.source.close()
            raise

    def stop(self) -> None:
        """Take no more packets; those already taken are scored. A signal handler may call it."""
        self.tap.stop()

    def run(self) -> tuple[CaptureReport, RunSummary]:
        """Score until stopped."""
        timer = threading.Timer(self._job.duration or 0.0, self.stop)
        timer.daemon = True
        if self._job.duration is not None:
            timer.start()
        try:
            summary = self.scoring.run()
            self.scoring.leave()
        finally:
            timer.cancel()
            self.source.close()
        counters = self.source.counters
        report = CaptureReport(
            self._job.interface, summary.seconds, counters.received, summary.packets,
            {"kernel": counters.kernel, "ring": counters.ring, "queue": 0, "bus": self.tap.published - summary.packets},
            skipped=counters.skipped, problem=summary.problem,
        )  # fmt: skip
        return report, summary


@contextmanager
def view(watch: Watch, console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Show rates, drops, connections and top scores while the block runs."""
    ended = threading.Event()
    frame = _Frame(watch, clock)
    with Screen(frame.picture(), console=console, auto_refresh=False, transient=True) as screen:

        def refresh() -> None:
            while not ended.wait(REFRESH):
                screen.update(frame.picture(), refresh=True)

        thread = threading.Thread(target=refresh, name="view", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Frame:
    """Contents of the view."""

    def __init__(self, watch: Watch, clock: Callable[[], float]) -> None:
        self._watch, self._clock = watch, clock
        self._began = self._looked = clock()
        self._received = 0
        self._rate = 0.0

    def picture(self) -> Group:
        """The current view."""
        counters, scoring = self._watch.source.counters, self._watch.scoring
        now = self._clock()
        if now > self._looked:
            self._rate = (counters.received - self._received) / (now - self._looked)
            self._received, self._looked = counters.received, now
        tables = [d.tracker.counters for d in scoring.detectors]
        facts: dict[str, str] = {
            "packets": f"{counters.received:,} ({self._rate:,.0f} a second)",
            "dropped": f"ring {counters.ring:,}, kernel {counters.kernel:,}",
            "connections": f"{sum(t['live'] for t in tables):,} live, {scoring.top.connections:,} ended",
        }
        for spec in scoring.specs:
            facts[f"model {spec.name}"] = _model(scoring, spec)
        lines = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            lines.add_row(Text(name, style="bold"), value)
        title = f"{self._watch.interface} for {now - self._began:,.0f} s, Ctrl-C ends"
        return Group(Text(title), lines, self._top(scoring))

    @staticmethod
    def _top(scoring: Scoring) -> Table:
        table = Table(
            box=None, title="highest scores of the last minute", title_justify="left", title_style="bold"
        )
        add_connection_columns(table)
        rows: list[dict[str, Any]] = scoring.top.recent(scoring.probes)[:SHOWN]
        for row in rows:
            table.add_row(*connection_cells(row))
        return table


def _model(scoring: Scoring, spec: ModelSpec) -> str:
    """Phase, threshold and alarms of a model."""
    scorers = [s for d in scoring.detectors for s in d.scorers if s.name == spec.name]
    thresholds = [s.threshold_value for s in scorers if not np.isnan(s.threshold_value)]
    alarms = scoring.top.models[spec.name].alarms if spec.name in scoring.top.models else 0
    bound = f" above {max(thresholds):.4f}" if thresholds else ""
    phases = ", ".join(sorted({s.phase for s in scorers}))
    return f"{phases}; {alarms:,} alarms{bound}" + (" (shadow)" if spec.shadow else "")
