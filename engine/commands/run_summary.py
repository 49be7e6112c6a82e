"""The summary of a run, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from engine.commands.models import first_of
from engine.consumer.top import MOST_PROBES, Top
from engine.labels.rules import Probes
from engine.scoring.batch import PHASES
from engine.scoring.building import ModelSpec
from engine.scoring.detector import Detector
from engine.scoring.scorer import Scorer
from engine.sensor.tally import Tally
from engine.types import NO_LOSS
from models.threshold import Threshold

ATTACK = "attack"  # name of the label that marks probes as attacks
BENIGN = ("", "0", "0.0", "false", "no", "none", "benign", "normal")  # values of that label for no attack
OUT_OF_RANGE = 0.02  # share of inputs outside the learned range above which a note is made
LEAST_LEARNED = 500  # packets learned from, below which a model is not to be relied on
LEAST_CALIBRATED = 20  # connections that gave the threshold, below which it is not


@dataclass
class ModelSummary:
    """Results of one model."""

    kind: str
    shadow: bool
    versions: list[str]  # distinct versions in the partitions
    phase: str  # earliest phase among the partitions
    threshold: float | None  # greatest threshold among the partitions
    least_threshold: float | None  # least threshold among the partitions
    promised_rate: (
        float | None
    )  # share of benign connections above the threshold that calibration can promise
    out_of_range: float | None  # share of inputs outside the learned range; None: none scored, or not counted
    scored: int  # connections with a score
    alarms: int  # connections that ended with an alarm
    new_alarms: int  # those with a host that learning never saw


@dataclass
class RunSummary:
    """Results of a run. Fields of one model are those of the first that is not a shadow; ``models`` has all."""

    packets: int = 0
    connections: int = 0
    scored: int = 0
    alarms: int = 0
    new_alarms: int = 0  # alarms with a host that learning never saw
    alerts: int = 0
    seconds: float = 0.0
    phase: str = ""
    threshold: float | None = None  # greatest threshold among the partitions
    least_threshold: float | None = None
    promised_rate: float | None = (
        None  # share of benign connections above the threshold that calibration can promise
    )
    losses: dict[str, int] = field(default_factory=dict)
    top: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    trained: bool = False  # whether a bundle was made: alarms during training are not shown
    problem: str | None = None  # damage of a capture; packets before it are in the summary
    models: dict[str, ModelSummary] = field(default_factory=dict)
    alarm_pairs: list[dict[str, Any]] = field(default_factory=list)  # originator, responder, alarms, …
    labels: list[dict[str, Any]] = field(default_factory=list)  # connections, scored, alarms by labels
    partitions: dict[int, int] = field(default_factory=dict)  # detect: partition held -> next offset
    counters: dict[str, int] = field(default_factory=dict)  # detect: losses, skipped packets and cold starts

    def as_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        values = asdict(self)
        values["top"] = [{name: _plain(value) for name, value in row.items()} for row in self.top]
        return values


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def fill(summary: RunSummary, specs: Sequence[ModelSpec], detectors: Sequence[Detector], top: Top) -> None:
    """Fill in the results of detectors and their rows: everything except packets, losses, files and time."""
    summary.connections = top.connections
    for spec in specs:
        scorers = [s for d in detectors for s in d.scorers if s.name == spec.name]
        summary.models[spec.name] = _model(spec, scorers, top, out_of_range(spec, detectors))
    first = summary.models[first_of(specs).name]
    summary.scored, summary.alarms, summary.phase = first.scored, first.alarms, first.phase
    summary.new_alarms = first.new_alarms
    summary.threshold, summary.least_threshold = first.threshold, first.least_threshold
    summary.promised_rate = first.promised_rate
    summary.alarm_pairs = top.alarm_pairs()
    if top.other_probes:
        summary.notes.append(
            f"{top.other_probes:,} connections have label combinations beyond the first {MOST_PROBES:,}: the counts "
            "by label leave them out"
        )
    for spec in specs:
        summary.notes += [_named(note, spec, specs) for note in _notes(spec, detectors)]


def _named(note: str, spec: ModelSpec, specs: Sequence[ModelSpec]) -> str:
    return note if len(specs) == 1 else f"{spec.name}: {note}"


def _model(spec: ModelSpec, scorers: Sequence[Scorer], top: Top, outside: float | None) -> ModelSummary:
    thresholds = [s.threshold_value for s in scorers if not np.isnan(s.threshold_value)]
    tally = top.models.get(spec.name)
    return ModelSummary(
        kind=spec.kind.name,
        shadow=spec.shadow,
        versions=sorted({s.version for s in scorers}),
        phase=min((s.phase for s in scorers), key=PHASES.index, default=PHASES[0]),
        threshold=max(thresholds) if thresholds else None,
        least_threshold=min(thresholds) if thresholds else None,
        promised_rate=max((s.threshold.promised_rate for s in scorers if s.threshold), default=None),
        out_of_range=outside,
        scored=tally.scored if tally else 0,
        alarms=tally.alarms if tally else 0,
        new_alarms=tally.of_new if tally else 0,
    )


def too_little(spec: ModelSpec, threshold: Threshold | None) -> str | None:
    """Why a model that learned must not be relied on, None if it may be. threshold: the one that it calibrated."""
    learned = spec.kind.learns(spec.section)
    if 0 < learned < LEAST_LEARNED:
        return f"{learned:,} packets to learn from, at least {LEAST_LEARNED:,} are needed"
    if threshold is not None and threshold.n < LEAST_CALIBRATED:
        return f"{threshold.n:,} connections to calibrate with, at least {LEAST_CALIBRATED} are needed"
    return None


def out_of_range(spec: ModelSpec, detectors: Sequence[Detector]) -> float | None:
    """Share of a model's inputs outside the range that it learned; None if it scored none, or does not count them."""
    counters: Counter[str] = Counter()
    for d in detectors:
        for s in d.scorers:
            if s.name == spec.name:
                counters.update({k: v for k, v in d.counters(s).items() if k in ("out_of_range", "inputs")})
    return counters["out_of_range"] / counters["inputs"] if counters["inputs"] else None


def _notes(spec: ModelSpec, detectors: Sequence[Detector]) -> list[str]:
    """Reasons to distrust a model's results, one line each."""
    pairs = [(d, s) for d in detectors for s in d.scorers if s.name == spec.name]
    fitted = [s.threshold for _, s in pairs if s.threshold is not None]
    notes = [*_phase_note(spec, pairs), *_start_notes(spec, pairs)]
    least = min(fitted, key=lambda t: t.n, default=None)
    if spec.bundle is None and (missing := too_little(spec, least)):
        notes.append(f"DO NOT RELY ON THESE ALARMS: the model had {missing}")
    if guessed := [t for t in fitted if not t.sufficient]:
        t = min(guessed, key=lambda t: t.n)
        wanted = replace(spec.section.threshold, method=t.method, false_positive_rate=t.false_positive_rate)
        do = (
            "train again with more"
            if spec.bundle is not None
            else f"learn from more, or set {spec.key}.threshold"
        )
        notes.append(
            f"the threshold is a guess: {t.n:,} connections are too few for a false-positive rate of "
            f"{t.false_positive_rate:g}, which needs {wanted.needed:,}; they promise {t.promised_rate:.2g}: {do}"
        )
    share = out_of_range(spec, detectors)
    if share is not None and share > OUT_OF_RANGE:
        notes.append(
            f"the model may not fit: {share:.1%} of its inputs lie outside the range that it learned; "
            "is this the network the model learned, or is much of it an attack?"
        )
    return notes


def count_streams(tally: Tally, detectors: Iterable[Detector]) -> None:
    """Add what detectors found of the packets' order and of their own room."""
    tally.follow(d.tracker.counters for d in detectors)


def _phase_note(spec: ModelSpec, pairs: Sequence[tuple[Detector, Scorer]]) -> list[str]:
    """A note on a model that has not come to score."""
    phase = min((s.phase for _, s in pairs), key=PHASES.index, default=PHASES[0])
    if not pairs or phase in ("warm", "score"):
        return []
    need = spec.kind.learns(spec.section) + spec.section.scorer.calibrate_packets
    most = max(d.counters(s).get("samples", d.packets) for d, s in pairs)
    known = sum(d.packets - d.unread["link_type"] for d, _ in pairs)
    also = "--learn N works with the first N packets, which must not hold an attack"
    return [
        f"the model is still in phase {phase} and scores nothing: it needs {need:,} packets in a partition, "
        f"and the largest had {most:,}. To score this capture, train a bundle on traffic without attacks and "
        f"give --model FILE; {also if known else 'but none of its packets could be read'}"
    ]


ORIGIN_NOTES = {
    "older": "the packets are older than the streams that the bundle carries",
    "gap": "the packets begin more than start.max_gap after the streams that the bundle carries",
    "strangers": "the first packets come from hosts that the bundle's streams do not know: is this the network the "
    "model learned?",
}


def _start_notes(spec: ModelSpec, pairs: Sequence[tuple[Detector, Scorer]]) -> list[str]:
    """Notes on how scoring with a bundle started."""
    passes = [own for d, s in pairs if s.start is not None and (own := d.features_of(s)) is not None]
    origins = {one.origin for one in passes}
    notes = [f"{text}: they were left out" for origin, text in ORIGIN_NOTES.items() if origin in origins]
    waiting = [s for d, s in pairs if s.phase == "warm" and d.packets]
    before = sum(s.first or 0 for _, s in pairs if s.start is not None)
    if waiting:
        notes.append(
            "warm-up: the packets were too few to fill the streams, so the model scored nothing"
            + (f" in {len(waiting)} partitions" if len(pairs) > 1 else "")
            + f"; {spec.key or spec.kind.name}.start.warmup_packets: 0 scores from the first packet, with false alarms"
        )
    if before and origins & {"empty", "older", "gap", "strangers"}:
        notes.append(f"warm-up: the first {before:,} packets filled the streams and have no score")
    return notes


def losses_of(detectors: Sequence[Detector]) -> dict[str, int]:
    """Losses by place; zeros are left out."""
    losses = Counter({"dropped by the sensor": sum(d.dropped for d in detectors)})
    losses["lost packets"] = sum(d.lost_packets for d in detectors)
    losses["evicted connections"] = sum(d.tracker.counters["evicted"] for d in detectors)
    for d in detectors:
        losses.update({f"not read whole: {why}": n for why, n in d.unread.items() if why not in NO_LOSS})
    return {name: n for name, n in losses.items() if n}


def is_attack(value: str | None) -> bool:
    """Whether a value of the label ``attack`` means an attack."""
    return (value or "").strip().lower() not in BENIGN


def by_labels(top: Top, probes: Probes, names: Sequence[str]) -> list[dict[str, Any]]:
    """Connections, scored and alarms by label values, in the order of ``label_place``."""
    found: dict[tuple[str, ...], list[int]] = {}
    for probe, own in top.probes.items():
        labels = probes.get(probe, {})
        if not labels:
            continue
        counts = found.setdefault(tuple(labels.get(name, "") for name in names), [0, 0, 0])
        for k, n in enumerate((own.connections, own.scored, own.alarms)):
            counts[k] += n
    rows = [
        {**{f"label.{n}": v for n, v in zip(names, values)}, "connections": a, "scored": b, "alarms": c}
        for values, (a, b, c) in found.items()
    ]
    return sorted(rows, key=label_place)


def label_place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Place of a row of labels: those with alarms first, among them attacks, then the most connections."""
    attack = row.get(f"label.{ATTACK}")
    benign = attack is not None and not is_attack(attack)
    return not row["alarms"], benign, -row["connections"], [str(value) for value in row.values()]


def hits(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Hits and false alarms of all rows, None where no label says what is an attack."""
    if not rows or f"label.{ATTACK}" not in rows[0]:
        return None
    totals = {True: [0, 0], False: [0, 0]}
    for row in rows:
        total = totals[is_attack(row[f"label.{ATTACK}"])]
        total[0] += row["alarms"]
        total[1] += row["scored"]
    (hit, attacks), (false, benign) = totals[True], totals[False]
    return f"{hit:,} of {attacks:,} attack connections alarm, and {false:,} of {benign:,} benign ones"
