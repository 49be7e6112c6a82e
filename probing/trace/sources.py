"""The connections that were asked for, with the files beside their captures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from engine.commands.reading import Progress, read_connection_tables
from engine.commands.trace import Traced, chosen_records, ends_text, trace
from engine.config import Config
from engine.errors import ConfigError, InputError
from engine.labels.file import read_labels
from engine.labels.rules import Labels
from engine.scoring.building import ModelSpec
from engine.scoring.columns import as_dicts
from probing.trace.connection import Mark, TracedConnection, traced_connection
from probing.trace.marks import Frames, beside, in_force
from probing.trace.twins import LabRows, is_of_lab

ID = r"C[0-9A-Za-z]{16}|1:[0-9A-Za-z+/]{27}="
TWIN = re.compile(rf"(?:(?P<capture>.+):)?(?P<id>{ID})", re.DOTALL)
SHOWN_LABELS = (
    "activity", "attack_kind", "delay_ms", "jitter_ms", "loss_pct", "burst_loss_pct", "outage_ms", "reorder_pct",
    "duplicate_pct", "corrupt_pct", "rate_kbit",
)  # of the lab's labels: those of the circumstances; of others all  # fmt: skip
PLAIN = {"", "0", "0.0", "none"}  # values of circumstances that are not shown


@dataclass(frozen=True)
class Question:
    """What a trace is of."""

    capture: Path
    connections: Sequence[str]  # uids or community ids
    twins: Sequence[str] = ()  # the same, of the capture, or CAPTURE:UID
    all_twins: bool = False  # whether the labels' twins of the connection are added
    labels: Path | None = None  # of the capture; None: those beside it
    frames: Path | None = None


def parse_twin(text: str, capture: Path) -> tuple[Path, str]:
    """The capture and the id of a twin. Raises ConfigError."""
    found = TWIN.fullmatch(text)
    if found is None:
        raise ConfigError(f"--twin {text}: give a uid, a community id, or one of them after PCAP:")
    return Path(found["capture"]) if found["capture"] else capture, found["id"]


def traced_connections(
    asked: Question, config: Config, specs: list[ModelSpec], progress: Progress | None = None
) -> list[TracedConnection]:
    """The connections in the order in which they were asked for, twins last. Raises ConfigError and InputError."""
    twins = [parse_twin(text, asked.capture) for text in asked.twins]
    for wrong in (name for name in asked.connections if not re.fullmatch(ID, name)):
        raise ConfigError(
            f"--connection {wrong}: give a uid (C and 16 letters or digits) or a community id (1:…=)"
        )
    captures = dict.fromkeys([asked.capture, *(capture for capture, _ in twins)])
    for capture in captures:
        if not capture.is_file():
            raise InputError(f"{capture}: no such file, and a pipe cannot be read twice")
    told: list[TracedConnection] = []
    for capture in captures:
        names = [name for other, name in twins if other == capture]
        if capture == asked.capture:
            one = _Capture(capture, asked.labels, asked.frames, config)
            told += one.connections([*asked.connections, *names], specs, progress, asked.all_twins)
        else:
            told += _Capture(capture, None, None, config).connections(names, specs, progress)
    return told


class _Capture:
    """A capture with the files beside it."""

    def __init__(self, capture: Path, labels: Path | None, frames: Path | None, config: Config) -> None:
        self.capture, self.config = capture, config
        self.frames = frames or beside(capture, "frames.parquet")
        labels = labels or beside(capture, "labels.parquet")
        self.labels: Labels | None = read_labels(labels, config.labels.max_probes) if labels else None
        self.rows = LabRows(labels) if labels and is_of_lab(labels) else None

    def connections(
        self, wanted: Sequence[str], specs: list[ModelSpec], progress: Progress | None, twins: bool = False
    ) -> list[TracedConnection]:
        """Connections by uid or community id, in this order; then the twins of the first."""
        records = chosen_records(self.capture, self._tables(), wanted)
        if twins:
            if self.rows is None:
                raise ConfigError(
                    f"--twins: {self.capture} has no label file of the lab beside it: give --labels"
                )
            uids = records["uid"].to_pylist()
            more = [uid for uid in self.rows.twins(uids[0]) if uid not in uids]
            records = chosen_records(self.capture, self._tables(), [*uids, *more])
        traced = trace(
            self.capture, self.config, specs, frozenset(records["uid"].to_pylist()),
            self.labels.tag if self.labels else None, progress,
        )  # fmt: skip
        if not (known := [r for r in as_dicts(records) if _packets(traced, r["uid"]).num_rows]):
            raise InputError(f"{self.capture}: no packet of these connections was kept")
        numbers = pa.chunked_array([c for r in known for c in _packets(traced, r["uid"])["number"].chunks])
        frames = Frames(self.frames, numbers.to_numpy() + 1) if self.frames else None
        return [self._whole(record, traced, frames) for record in known]

    def _tables(self) -> Iterator[pa.Table]:
        tables = read_connection_tables([self.capture], self.config)
        return tables if self.rows is None else self.rows.watch(tables)

    def _whole(self, record: Mapping[str, Any], traced: Traced, frames: Frames | None) -> TracedConnection:
        """A connection with its packets, labels, phases and verdicts."""
        packets = _packets(traced, record["uid"])
        one = traced_connection(self.capture.name, record, packets, ends_text(record))
        one = replace(one, thresholds=traced.thresholds, left_out=traced.left_out)
        if self.labels is not None:
            probe = next((k for k in packets["probe"].to_pylist() if k), 0)
            one = replace(one, labels=_shown(self.labels.probes[probe], self.rows is not None))
        marks: Sequence[Mark] = [] if self.rows is None else self.rows.marks(one.uid)
        if frames is not None:
            verdicts, changes = frames.of(one.frame, one.ts)
            one, marks = replace(one, verdict=verdicts), marks or changes
        return replace(one, marks=in_force(marks, one.ts))


def _packets(traced: Traced, uid: str) -> pa.Table:
    return traced.packets.filter(pc.equal(traced.packets["uid"], uid))


def _shown(labels: Mapping[str, str], of_lab: bool) -> dict[str, str]:
    """The labels that are shown: of the lab's those that say what happens and what the link does."""
    if not of_lab:
        return dict(labels)
    return {name: labels[name] for name in SHOWN_LABELS if labels.get(name, "") not in PLAIN}
