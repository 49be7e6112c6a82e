"""A short run of what tests/fuzz/mutate.py does for longer."""

from __future__ import annotations

import numpy as np
import pytest

from engine.headers.decode import decode
from engine.types import Reason
from tests.fuzz.mutate import CONFIGS, block, findings, mutated
from tests.fuzz.seeds import seeds

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("k", range(len(CONFIGS)))
def test_changed_frames_break_no_rule(k: int) -> None:
    rng = np.random.default_rng(k)
    frames = mutated(seeds(), 20_000, rng)
    assert {what for what, rows in findings(frames, CONFIGS[k], rng) if rows.any()} == set()


def test_changed_frames_reach_every_reason_but_those_of_opened_tunnels() -> None:
    found = np.zeros(len(Reason), np.int64)
    for k in range(4):
        frames = mutated(seeds(), 20_000, np.random.default_rng(k))
        found += np.bincount(decode(block(frames, 0), CONFIGS[0]).reason, minlength=len(Reason))
    assert [reason.name for reason in Reason if not found[reason]] == []
