"""Small detectors, for tests of what surrounds them."""

from __future__ import annotations

from engine.connections.bounds import TrackerConfig
from engine.features.afterimage import AfterImageConfig
from engine.scoring.detector import Detector, slots_needed
from engine.scoring.kitsune import ScorerConfig, new_kitsune
from models.kitnet.kitnet import KitNETConfig
from models.threshold import ThresholdConfig


def detector(partition: int = 0, capacity: int = 256, mapping: int = 1 << 20, flows: int = 4096) -> Detector:
    """A detector whose model learns after ``mapping`` packets: from 60, then 40 give the threshold."""
    config = TrackerConfig(capacity=capacity)
    scorer = new_kitsune(
        AfterImageConfig(flows=flows),
        KitNETConfig(map_samples=mapping, learn_samples=60),
        ThresholdConfig(false_positive_rate=0.2),
        ScorerConfig(calibrate_packets=40),
        slots_needed(config),
    )
    return Detector(partition, config, [scorer])
