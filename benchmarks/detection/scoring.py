"""Detectors that learn from some packets and score others; scores by packet and by connection.

Everything runs through the engine's `Detector`, as the commands do; several models share one, since a model changes no
row of another. Connections that are live when learning ends are ended there: a connection counts from the first
packet that is scored, for every way to start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.variants import Variant, drawn, spec_of
from engine.connections.bounds import TrackerConfig
from engine.connections.layout import CONNECTION
from engine.connections.tracker import Tracked
from engine.features.afterimage import AfterImage
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.detector import Detector
from engine.scoring.scorer import Ended, Events, State
from engine.scoring.trace import Selection, Tracer
from engine.types import Floats, PacketBlock, Packets, Rows, count_readable, join_rows, take, under
from models.threshold import ThresholdConfig

BLOCK = 4096  # packets of a block
TRACKER = TrackerConfig(capacity=1 << 16)  # more connections than these captures have at once

Ints = NDArray[np.int64]


class Watcher(Tracer):
    """Takes down every packet's connection and every model's score of it."""

    def __init__(self, models: Sequence[str], packets: int, first: int) -> None:
        """packets: how many come. first: number of the first of them in the detector's stream."""
        super().__init__(Selection(), models)
        self.first = first
        self.connection = np.full(packets, -1, np.int64)  # index of each packet's connection, -1: none
        self.packet_scores = np.full((len(models), packets), np.nan)
        self.ended: list[tuple[Ints, Rows]] = []  # indices and rows of connections, in order of their end
        self._opened = 0

    def allocate(self, slots: int) -> None:
        """Make room for the slots of a connection table."""
        self._now = np.full(slots, -1, np.int64)  # index of each slot's connection

    def packets(self, p: Packets, t: Tracked, connections: Rows) -> None:  # noqa: ARG002
        """Take packets."""
        known = t.slot >= 0
        slots, begin = np.unique(t.slot[known], return_index=True)
        new = slots[self._now[slots] < 0]
        new = new[np.argsort(begin[self._now[slots] < 0])]  # in order of appearance
        self._now[new] = self._opened + np.arange(new.size)
        self._opened += new.size
        at = t.number - self.first
        self.connection[at : at + t.slot.size][known] = self._now[t.slot[known]]

    def events(self, model: int) -> Any:
        """A function that takes a model's scores."""

        def take_down(events: Events) -> None:
            self.packet_scores[model, events.number - self.first] = events.score

        return take_down

    def end(self, ended: Ended) -> None:
        """Take connections that ended."""
        self.ended.append((self._now[ended.slot].copy(), ended.rows))
        self._now[ended.slot] = -1


@dataclass(frozen=True)
class Scores:
    """Scores of one variant: of m models that differ in their seed, over n packets and c connections."""

    packet: Floats  # (m, n), NaN: none
    connection: Floats  # (m, c)
    thresholds: Floats  # (m,)


@dataclass(frozen=True)
class Scored:
    """A stream, and what each variant made of it."""

    packets: Packets  # (n,)
    of: Ints  # (n,) index of each packet's connection; -1: none
    rows: Rows  # (c,) CONNECTION
    scores: Mapping[str, Scores]  # by name of the variant


@dataclass(frozen=True)
class Trained:
    """Models that have learned from a stream."""

    packets: Packets  # what they learned from
    variants: Sequence[Variant]
    specs: Mapping[str, Sequence[ModelSpec]]  # by name of the variant, one for each seed
    bundles: Mapping[str, Sequence[ModelSpec]]  # the same, frozen
    state: State  # of the detector after learning, for variants that go on
    thresholds: Mapping[str, Floats]
    sufficient: Mapping[str, bool]  # whether there were as many connections as the rate asked for needs


def blocks(p: Packets, first: int = 0) -> list[PacketBlock]:
    """Packets in blocks. first: number of the first packet."""
    cuts = [take(p, slice(k, k + BLOCK)) for k in range(0, p.ts.size, BLOCK)]
    return [PacketBlock("bench", 0, first + k * BLOCK, cut, int(cut.ts.max())) for k, cut in enumerate(cuts)]


def train(p: Packets, variants: Sequence[Variant], seeds: Sequence[int]) -> Trained:
    """Let variants learn and calibrate on all packets of p. ValueError if one finds no threshold."""
    n = count_readable(p)
    specs = {
        v.name: [spec_of(v, seed, f"m{i}s{seed}", n) for seed in (seeds if drawn(v) else seeds[:1])]
        for i, v in enumerate(variants)
    }
    detector = build_detector(0, TRACKER, [spec for own in specs.values() for spec in own])
    for block in blocks(p):
        detector.process(block)
    detector.flush()
    by_name = {scorer.name: scorer for scorer in detector.scorers}
    if late := [name for name, scorer in by_name.items() if scorer.threshold is None]:
        raise ValueError(f"{n} packets are too few: {', '.join(late)} found no threshold")
    bundles = {
        v.name: [_bundled(spec, detector, v.carries) for spec in specs[v.name]]
        for v in variants
        if v.start == "bundle"
    }
    limits = {
        name: np.array([by_name[spec.name].threshold_value for spec in own]) for name, own in specs.items()
    }
    enough = {
        name: all(t is not None and t.sufficient for t in (by_name[spec.name].threshold for spec in own))
        for name, own in specs.items()
    }
    return Trained(p, variants, specs, bundles, detector.state(), limits, enough)


def _bundled(spec: ModelSpec, detector: Detector, carries: bool) -> ModelSpec:
    """A model with a bundle of what it learned, read back from a file as every bundle is."""
    scorer = next(s for s in detector.scorers if s.name == spec.name)
    start, features = spec.kind.start(spec.section), detector.features_of(scorer)
    streams = features.carry(start.carry_flows) if carries and start and features else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(pack_model(spec.kind, scorer, {}, streams))
        return replace(spec, bundle=BundleFile(path))


def score(trained: Trained, p: Packets) -> Scored:
    """Score packets with every variant. Their times should follow those that were learned from."""
    found: dict[str, Scores] = {}
    for start in ("continued", "bundle"):
        own = [v for v in trained.variants if v.start == start]
        if not own:
            continue
        source = trained.bundles if start == "bundle" else trained.specs
        specs = {v.name: list(source[v.name]) for v in own}
        watcher, rows, by_model = _scored(trained, [s for group in specs.values() for s in group], p, start)
        first = 0
        for name, group in specs.items():
            models = slice(first, first + len(group))
            found[name] = Scores(watcher.packet_scores[models], by_model[models], trained.thresholds[name])
            first += len(group)
    return Scored(p, watcher.connection, rows, {v.name: found[v.name] for v in trained.variants})


def _scored(
    trained: Trained, specs: Sequence[ModelSpec], p: Packets, start: str
) -> tuple[Watcher, Rows, Floats]:
    """Score with some models. Gives rows of connections, and scores (models, connections), by connection's index."""
    names = [spec.name for spec in specs]
    first = int(trained.state[1]["packets"]) if start == "continued" else 0
    watcher = Watcher(names, p.ts.size, first)
    detector = build_detector(0, TRACKER, specs, watcher)
    if start == "continued":
        detector.restore(trained.state)  # of more models than these: the others' parts are not looked at
    batches = [batch for block in blocks(p, first) for batch in detector.process(block)] + detector.flush()
    order = np.concatenate([index for index, _ in watcher.ended])
    rows = np.zeros(order.size, CONNECTION)
    rows[order] = join_rows([rows for _, rows in watcher.ended])
    scores = np.full((len(names), order.size), np.nan)
    for k, name in enumerate(names):
        given = [b.scores["score"][b.scores["final"]] for b in batches if b.model == name]
        scores[k, order] = np.concatenate(given)
    return watcher, rows, scores


def columns(trained: Trained, variant: Variant, p: Packets) -> Floats:
    """(n, 100) AfterImage features of p with a variant's settings, after what it learned from."""
    spec = trained.specs[variant.name][0]
    features = spec.kind.features(spec.section)
    assert features is not None
    given = under(trained.state[0], f"features.{features.digest}.")
    return AfterImage.from_state(spec.section.features, given).update(p)


def greatest(values: Floats, of: Ints, connections: int) -> Floats:
    """(..., c) greatest value of each connection's packets; NaN where none has one. values: (..., n)."""
    out = np.full((*values.shape[:-1], connections), -np.inf)
    has = of >= 0
    for k in np.ndindex(values.shape[:-1]):
        seen = has & np.isfinite(values[k])
        np.maximum.at(out[k], of[seen], values[k][seen])
    out[np.isneginf(out)] = np.nan
    return out


def quantile_of(scores: Floats) -> float:
    """The threshold that the engine's default rule gives for benign scores, of any sign."""
    rate = ThresholdConfig().false_positive_rate
    return float(np.quantile(scores[np.isfinite(scores)], 1 - rate, method="higher"))
