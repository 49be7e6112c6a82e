"""Detection on the development stream of the Mirai capture, against what the public Kitsune-py gives on it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from connectors.files.pcap import CaptureFile
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.headers.decode import decode
from engine.types import Packets, concatenate
from models.kitnet.kitnet import KitNET, KitNETConfig
from models.threshold import ThresholdConfig, fit
from tests.support.captures import CAPTURES, needs_captures

pytestmark = [needs_captures, pytest.mark.compiled]

INFECTED = 0xFFFF_C0A8_026E  # 192.168.2.110, which scans in ATTACK
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


def packets(name: str) -> Packets:
    return concatenate([decode(frames) for frames in CaptureFile(CAPTURES / "kitsune" / name)])


def test_the_infected_hosts_packets_stand_out_and_harmless_ones_after_the_pause_do_not() -> None:
    """The attack begins 63 minutes after the benign packets. The public features see that pause."""
    benign, attack = packets(BENIGN), packets(ATTACK)
    p = concatenate([benign, attack])
    during = (np.arange(p.ts.size) >= FIRST_ATTACK)[MAP + LEARN :]
    host = during & (p.src_lo == np.uint64(INFECTED))[MAP + LEARN :]
    found = {}
    for rule in ("restart", "public"):
        kitnet = KitNET(KitNETConfig(map_samples=MAP, learn_samples=LEARN))
        x = AfterImage(AfterImageConfig(interarrival=rule)).update(p)
        scores = kitnet.process(x)[MAP + LEARN :]
        found[rule] = area(scores, host), area(scores[during], host[during])
    assert min(found["restart"]) >= 0.99
    assert max(found["public"]) < 0.98


def alarms_after(pause: float, rule: str) -> int:
    """Alarmed connections, by pairs of endpoints, of the last 6,000 benign packets with a pause halfway."""
    p = packets(BENIGN)
    ts = p.ts.copy()
    ts[17_000:] += int(pause * 1e9)
    p = p._replace(ts=ts)
    kitnet = KitNET(KitNETConfig(map_samples=1_400, learn_samples=9_800))
    scores = kitnet.process(AfterImage(AfterImageConfig(interarrival=rule)).update(p))  # type: ignore[arg-type]
    ends = np.stack([p.src_lo, p.dst_lo, p.sport.astype("u8"), p.dport.astype("u8")], axis=1)
    low = np.minimum(ends[:, [0, 2]], ends[:, [1, 3]])
    pair = np.unique(
        np.hstack([low, np.maximum(ends[:, [0, 2]], ends[:, [1, 3]])]), axis=0, return_inverse=True
    )[1]
    pair = pair.reshape(-1)
    threshold = fit(greatest(scores[11_200:14_000], pair[11_200:14_000]), ThresholdConfig()).value
    return int((greatest(scores[14_000:], pair[14_000:]) > threshold).sum())


def greatest(scores: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.full(int(of.max()) + 1, -1.0)
    np.maximum.at(out, of, scores)
    return out[out >= 0]


@pytest.mark.parametrize("pause", [60, 300, 900, 3600, 86_400])
def test_after_a_pause_benign_connections_alarm_hardly_more_often_than_without(pause: int) -> None:
    without, after = (alarms_after(seconds, "restart") for seconds in (0, pause))
    assert after <= max(2 * without, without + 10)
    if pause >= 900:
        assert alarms_after(pause, "public") > 50
