"""Areas, intervals and chances of columns, against definitions and against luck."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from engine.types import Floats
from probing.corpus.giveaways import MOST_CLUSTERS, MOST_IN_CLUSTER, Sample, judge, thinned


def sample(values: Floats, attacking: int, runs: int, each: int, place: int = 1) -> Sample:
    """Columns of connections, ``each`` in each of so many runs, the first ``attacking`` of which are attacks."""
    run = np.repeat(np.arange(runs), each)
    return Sample(values, run < attacking, run, run % place)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_of_a_column_with_ties_is_that_of_a_peer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (1, 200)).astype(float)
    values[0, :100] += rng.integers(0, 3)
    found = judge(["x"], sample(values, 10, 20, 10), 1)
    area = mannwhitneyu(values[0, :100], values[0, 100:]).statistic / 100**2
    assert found.auc == pytest.approx(max(area, 1 - area), abs=1e-5)  # float32 within


def test_only_connections_at_the_same_place_are_compared() -> None:
    run = np.repeat(np.arange(40), 3)
    place = run % 2
    attack = run < 20
    values = (place * 10 + attack).astype(float)[
        None
    ]  # at each place attacks are greater; over both they are mixed
    found = judge(["x"], Sample(values, attack, run, place), 1)
    assert (found.outcome, found.auc) == ("giveaway", 1.0)
    assert judge(["x"], Sample(values, attack, run, place * 0), 1).outcome == "passed"


def test_a_constant_column_and_no_column_pass() -> None:
    found = judge(["x"], sample(np.ones((1, 100)), 10, 20, 5), 1)
    assert (found.outcome, found.auc) == ("passed", 0.5)
    assert judge([], sample(np.ones((0, 100)), 10, 20, 5), 1).outcome == "passed"


def test_random_columns_hardly_ever_fail_however_many_there_are_and_however_few_the_runs() -> None:
    """Every column is constant within each run, the worst case: connections of a run add nothing."""
    outcomes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = np.repeat(rng.normal(size=(100, 12)), 5, axis=1)
        outcomes.append(judge([f"{k}" for k in range(100)], sample(values, 6, 12, 5), seed).outcome)
    assert outcomes.count("giveaway") <= 2


def test_a_true_giveaway_is_found_among_many_random_columns() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        values = np.repeat(rng.normal(size=(100, 20)), 5, axis=1)
        values[57] = rng.normal(size=100)
        values[57, :50] -= 20
        found = judge([f"{k}" for k in range(100)], sample(values, 10, 20, 5), seed)
        assert (found.outcome, found.column, found.auc) == ("giveaway", "57", 1.0)
        assert found.chance <= 0.02


def test_one_run_that_differs_widens_the_interval_as_many_connections_do_not() -> None:
    """99.5 % of attacks have the value; all others are of one run."""
    run = np.repeat(np.arange(40), 10)
    attack = run < 20
    values = attack.astype(float)
    values[:10] = 0
    found = judge(["x"], Sample(values[None], attack, run, run * 0), 1)
    assert found.auc == pytest.approx(0.975)
    assert found.low < 0.9


def test_large_samples_are_thinned_evenly() -> None:
    runs, each = 2 * (MOST_CLUSTERS + 20), 2 * MOST_IN_CLUSTER
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, runs * each))
    values[1, : runs * each // 2] += 50
    given = sample(values, runs // 2, runs, each)
    found = judge(["noise", "told"], given, 1)
    kept = thinned(given, rng)
    for side in (kept.attack, ~kept.attack):
        assert np.unique(kept.run[side]).size == MOST_CLUSTERS
        assert set(np.bincount(kept.run[side]).tolist()) == {0, MOST_IN_CLUSTER}
    assert (found.outcome, found.column) == ("giveaway", "told")
