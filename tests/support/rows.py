"""What detectors say of a stream, numbered and joined as on the way to the sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.connections.bounds import TrackerConfig
from engine.consumer.outlet import Outlet, Spans
from engine.labels.rules import NO_PROBES
from engine.labels.slices import Slices
from engine.metrics import Metrics
from engine.scoring.batch import ScoreBatch
from engine.scoring.building import BundleFile, ModelSpec, build_detector, pack_model
from engine.scoring.columns import score_table
from engine.scoring.detector import Detector
from engine.scoring.kind import Kind
from engine.scoring.scorer import Scorer
from engine.scoring.start import StartConfig
from engine.types import PacketBlock
from models.threshold import ThresholdConfig


class Recorder:
    """A sink that keeps tables."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []

    def write(self, batch: ScoreBatch) -> None:
        self.tables.append(score_table(batch))

    def flush(self, spans: Spans) -> None:
        pass

    def sync(self, partition: int) -> None:
        pass

    def rows(self, model: str) -> pa.Table:
        """All rows of a model, by their identity."""
        table = pa.concat_tables(self.tables)
        table = table.filter(pa.compute.equal(table["model"], model))
        return table.sort_by([("partition", "ascending"), ("offset", "ascending"), ("row", "ascending")])


def outlet(recorder: Recorder) -> Outlet:
    """The way from detectors to a recorder."""
    return Outlet([recorder], Metrics(), NO_PROBES, Slices())


def said(
    models: Sequence[ModelSpec] | Detector,
    blocks: Sequence[PacketBlock],
    config: TrackerConfig,
    flush_every: int = 3,
) -> Recorder:
    """What models say of a stream in one process, message k being block k."""
    detector = models if isinstance(models, Detector) else build_detector(0, config, models)
    recorder = Recorder()
    out = outlet(recorder)
    for k, block in enumerate(blocks):
        out.keep(0, k, detector.process(block))
        if k % flush_every == flush_every - 1:
            out.flush()
    out.end(0, len(blocks), detector.flush())
    out.flush()
    return recorder


def small(kind: Kind, name: str | None = None, *, shadow: bool = False) -> ModelSpec:
    """A model of a kind with small tables, that has learned and calibrated after 150 packets and alarms often.

    With a bundle it scores from the first packet on.
    """
    section = replace(kind.small(kind.section()), threshold=ThresholdConfig(false_positive_rate=0.2))
    if kind.start(section) is not None:
        section = replace(section, start=StartConfig(warmup_packets=0))
    return ModelSpec(name or kind.name, kind, section, shadow)


def bundled(spec: ModelSpec, blocks: Sequence[PacketBlock], path: Path) -> ModelSpec:
    """The model with a bundle of what it learned from a stream."""
    detector = build_detector(0, TrackerConfig(capacity=4096), [spec])
    for block in blocks:
        detector.process(block)
    scorer: Scorer = detector.scorers[0]
    if not spec.kind.online:
        scorer.model.trained = 1  # type: ignore[attr-defined]  # random weights, and a bundle that says otherwise
    path.write_bytes(pack_model(spec.kind, scorer, {}))
    return replace(spec, bundle=BundleFile(path))


def scores_of(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Scores of a table's rows, NaN for null."""
    return np.array([np.nan if v is None else v for v in table["score"].to_pylist()], float)
