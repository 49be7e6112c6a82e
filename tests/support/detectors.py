"""Small detectors, for tests of what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.connections.bounds import TrackerConfig
from engine.features.afterimage import AfterImageConfig
from engine.scoring.building import ModelSpec, build_detector
from engine.scoring.detector import Detector
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KitsuneSection
from engine.scoring.scorer import ScorerConfig
from models.kitnet.kitnet import KitNETConfig
from models.threshold import ThresholdConfig

ROOM = TrackerConfig(capacity=4096)


def kitsune(
    name: str = "kitsune", *, mapping: int = 50, flows: int = 64, seed: int = 1234, shadow: bool = False
) -> ModelSpec:
    """A Kitsune that learns after ``mapping`` packets from 60, then 40 give the threshold."""
    section = KitsuneSection(
        AfterImageConfig(flows=flows),
        KitNETConfig(map_samples=mapping, learn_samples=60, seed=seed),
        ThresholdConfig(false_positive_rate=0.2),
        ScorerConfig(calibrate_packets=40),
    )
    return ModelSpec(name, KINDS["kitsune"], section, shadow)


def detector(
    partition: int = 0, capacity: int = 256, mapping: int = 1 << 20, flows: int = 4096,
    models: Sequence[ModelSpec] | None = None,
) -> Detector:  # fmt: skip
    """A detector of some models, by default one Kitsune that learns after ``mapping`` packets."""
    specs = [kitsune(mapping=mapping, flows=flows)] if models is None else models
    return build_detector(partition, TrackerConfig(capacity=capacity), specs)
