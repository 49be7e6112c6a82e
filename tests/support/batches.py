"""Made-up scores of made-up connections."""

from __future__ import annotations

import numpy as np

from engine.connections.layout import CONNECTION, SIDE
from engine.scoring.batch import PHASES, SCORE, Records, ScoreBatch


def batch(n: int, seed: int = 0, *, probes: int = 1, version: str = "v1") -> ScoreBatch:
    """n connections that ended, each between hosts of its own, a tenth of them with an alarm."""
    rng = np.random.default_rng(seed)
    rows, sides, scores = np.zeros(n, CONNECTION), np.zeros((n, 2), SIDE), np.zeros(n, SCORE)
    rows["a_lo"] = 0xFFFF << 32 | rng.integers(0, 2**32, n)
    rows["b_lo"] = 0xFFFF << 32 | rng.integers(0, 2**32, n)
    rows["a_port"], rows["b_port"] = rng.integers(1024, 65536, n), 80
    rows["proto"] = 6
    rows["start"] = 1_700_000_000_000_000_000 + rng.integers(0, 10**12, n)
    rows["last"] = rows["start"] + 1_500_000_000
    rows["probe"] = rng.integers(0, probes, n)
    sides["packets"], sides["ip_bytes"] = rng.integers(1, 50, (n, 2)), rng.integers(40, 9999, (n, 2))
    scores["score"] = scores["peak"] = rng.random(n)
    scores["mean"] = scores["score"] / 2
    scores["threshold"] = 0.9
    scores["alarm"] = scores["begins"] = scores["score"] > 0.9
    scores["peak_at"] = rows["start"] + 5
    scores["scored"] = 3
    scores["final"] = True
    scores["phase"] = PHASES.index("score")
    return ScoreBatch("kitsune", version, Records(rows, sides), scores)
