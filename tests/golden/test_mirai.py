"""Detection on the development stream of the Mirai capture, against what the public Kitsune-py gives on it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from connectors.files.pcap import CaptureFile
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.headers.decode import decode
from models.kitnet.kitnet import KitNET, KitNETConfig
from tests.support.captures import CAPTURES, needs_captures

pytestmark = [needs_captures, pytest.mark.compiled]

BENIGN, ATTACK = "jsu__mirai_small.pcap.gz", "trafficmanipulator__mirai_attack_1_4000.pcap"
FIRST_ATTACK, MAP, LEARN = 20_000, 2_000, 13_000  # as the reference file was made


def area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties half."""
    n, m = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def interval(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], rounds: int = 200
) -> tuple[float, float]:
    """95 % bootstrap interval of the area, over blocks of 100 packets since neighbours are alike."""
    rng = np.random.default_rng(1)
    blocks = np.array_split(np.arange(scores.size), scores.size // 100)
    areas = []
    for _ in range(rounds):
        chosen = np.concatenate([blocks[k] for k in rng.integers(0, len(blocks), len(blocks))])
        areas.append(area(scores[chosen], positive[chosen]))
    return float(np.quantile(areas, 0.025)), float(np.quantile(areas, 0.975))


def test_the_area_under_the_curve_is_at_least_the_public_codes() -> None:
    folder = CAPTURES / "kitsune"
    features = AfterImage(AfterImageConfig(interarrival="public"))
    kitnet = KitNET(KitNETConfig(map_samples=MAP, learn_samples=LEARN))
    scores = np.concatenate(
        [
            kitnet.process(features.update(decode(frames)))
            for name in (BENIGN, ATTACK)
            for frames in CaptureFile(folder / name)
        ]
    )[MAP + LEARN :]
    attack = np.arange(MAP + LEARN, FIRST_ATTACK + 4_000) >= FIRST_ATTACK
    with np.load(folder / "reference_kitsune_py__features_rmse.npz") as reference:
        theirs = reference["rmse"][MAP + LEARN + 1 :]
    public = area(theirs, attack[1:])
    assert public == pytest.approx(0.9968, abs=5e-5)
    ours = area(scores, attack)
    low, high = interval(scores, attack)
    assert ours >= 0.9968, f"{ours:.4f} ({low:.4f} to {high:.4f}), the public code {public:.4f}"
    benign = np.sort(scores[~attack])
    assert (scores[attack] > benign[int(0.99 * benign.size)]).mean() > 0.95
