"""Areas, rates and intervals against their definitions and against distributions whose answer is known."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probing.analysis.roc import Bootstrap, Sample, above, area, measures

Floats = NDArray[np.float64]


def sample(scores: Any, positive: Any, unit: Any = None, thresholds: Any = None) -> Sample:
    """A sample of one model, each score a unit of its own unless given."""
    scores = np.atleast_2d(np.asarray(scores, float))
    own = np.arange(scores.shape[1]) if unit is None else np.asarray(unit)
    limits = None if thresholds is None else np.asarray(thresholds, float)
    return Sample(scores, np.asarray(positive, bool), own.astype(np.int64), limits)


def by_pairs(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The area from its definition: all pairs."""
    a, b = scores[positive][:, None], scores[~positive][None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def by_cuts(scores: Floats, positive: NDArray[np.bool_], rate: float) -> float:
    """The share found at a rate from its definition: all cuts."""
    cuts = [np.inf, *scores, -np.inf]
    fair = [cut for cut in cuts if (scores[~positive] > cut).mean() <= rate]
    return max(float((scores[positive] > cut).mean()) for cut in fair)


@pytest.mark.parametrize("values", [3, 20, 10**6], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(4))
def test_area_and_rates_are_those_of_the_definition(values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, 400).astype(float)
    positive = rng.random(400) < 0.3
    assert area(scores, positive) == pytest.approx(by_pairs(scores, positive), abs=1e-12)
    rates = (0.05, 0.1, 0.5)
    found = measures(sample(scores, positive), rates, Bootstrap(rounds=2)).at
    for rate, one in zip(rates, found):
        assert one is not None
        assert one.value == pytest.approx(by_cuts(scores, positive, rate), abs=1e-12)


def test_a_perfect_scorer_has_area_one_and_finds_all_at_every_rate() -> None:
    positive = np.arange(3000) < 1000
    found = measures(sample(positive * 1.0, positive, None, [0.5]), (0.01, 0.1), Bootstrap(rounds=50))
    assert found.area == (1.0, 1.0, 1.0)
    assert [one.value for one in found.at if one] == [1.0, 1.0]
    assert found.found is not None
    assert found.false is not None
    assert (found.found.value, found.false.value) == (1.0, 0.0)
    assert found.found.low == pytest.approx(0.025 ** (1 / 1000))
    assert found.false.high == pytest.approx(1 - 0.025 ** (1 / 2000))


def test_a_scorer_by_chance_has_area_one_half_within_its_interval() -> None:
    rng = np.random.default_rng(5)
    found = measures(sample(rng.random(2000), rng.random(2000) < 0.4), (0.1,), Bootstrap(rounds=300))
    assert found.area.low < 0.5 < found.area.high
    assert found.area.high - found.area.low < 0.1
    assert found.at[0] is not None
    assert found.at[0].low < 0.1 < found.at[0].high


def test_a_scorer_that_gives_everything_the_same_score_has_area_one_half_and_finds_nothing() -> None:
    positive = np.arange(300) % 3 == 0
    found = measures(sample(np.ones(300), positive), (0.5,), Bootstrap(rounds=20))
    assert found.area == (0.5, 0.5, 0.5)
    assert found.at[0] is not None
    assert found.at[0].value == 0.0


@pytest.mark.parametrize(("negatives", "known"), [(999, False), (1000, True)])
def test_a_rate_that_the_negatives_are_too_few_for_is_none(negatives: int, known: bool) -> None:
    positive = np.arange(negatives + 10) >= negatives
    found = measures(sample(np.arange(positive.size), positive), (0.01,), Bootstrap(rounds=3))
    assert (found.at[0] is not None) == known


@pytest.mark.parametrize("rate", [0.1, 0.29, 0.5])
def test_a_rate_may_be_used_up_to_the_last_negative(rate: float) -> None:
    allowed = round(rate * 100)
    negatives, positives = np.arange(100.0), np.array([99.5, 99 - allowed + 0.5, -1.0])
    given = sample(np.concatenate([negatives, positives]), np.arange(103) >= 100)
    found = measures(given, (rate,), Bootstrap(rounds=2)).at[0]
    assert found is not None
    assert found.value == pytest.approx(2 / 3)  # the second lies above all but the allowed negatives


def test_shares_above_the_threshold_are_counted_and_the_threshold_itself_is_no_alarm() -> None:
    found = measures(
        sample([1, 2, 3, 2, 3, 4], [0, 0, 0, 1, 1, 1], None, [2.0]), (), Bootstrap(rounds=200, seed=1)
    )
    assert found.found is not None
    assert found.false is not None
    assert found.found.value == pytest.approx(2 / 3)
    assert found.false.value == pytest.approx(1 / 3)
    assert 0 <= found.false.low < 1 / 3 < found.false.high <= 1


def test_the_value_is_the_mean_over_models_and_the_interval_spans_them() -> None:
    positive = np.arange(100) < 50
    good, bad = positive * 1.0, np.zeros(100)
    found = measures(sample([good, bad], positive), (), Bootstrap(rounds=100))
    assert found.areas == (1.0, 0.5)
    assert found.area == (0.75, 0.5, 1.0)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    rng = np.random.default_rng(2)
    given = sample(rng.random(200), rng.random(200) < 0.5)
    one, same, other = (measures(given, (), Bootstrap(rounds=50, seed=s)).area for s in (1, 1, 2))
    assert one == same
    assert one != other


def clustered(rng: np.random.Generator, within: float) -> Sample:
    """40 units of positives and 40 of negatives with 10 each; half of a variance of 1 is shared within a unit if
    ``within`` is 0.5. The area of the law is that of two normal laws one apart.
    """
    unit = np.repeat(np.arange(80), 10)
    shared = rng.normal(size=80)[unit] * np.sqrt(within)
    scores = shared + rng.normal(size=800) * np.sqrt(1 - within)
    positive = unit < 40
    return sample(scores + positive, positive, unit)


@pytest.mark.compiled
@pytest.mark.parametrize("within", [0.0, 0.5, 0.9])
def test_intervals_over_units_cover_the_truth_as_often_as_they_say(within: float) -> None:
    truth = NormalDist().cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(7)
    found = [measures(clustered(rng, within), (), Bootstrap(rounds=200, seed=k)).area for k in range(300)]
    covered = float(np.mean([e.low <= truth <= e.high for e in found]))
    assert 0.90 <= covered <= 0.985  # 300 draws at 95 %: standard error 1.3 %; percentiles are a little short


@pytest.mark.compiled
def test_intervals_over_single_scores_are_too_short_where_units_resemble() -> None:
    truth = NormalDist().cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(7)
    drawn = [clustered(rng, 0.5) for _ in range(100)]
    alone = [
        measures(sample(s.scores, s.positive), (), Bootstrap(rounds=200, seed=k)).area
        for k, s in enumerate(drawn)
    ]
    assert np.mean([e.low <= truth <= e.high for e in alone]) < 0.8


def test_a_unit_with_positives_and_negatives_counts_as_one_of_each() -> None:
    found = measures(sample([1, 2, 3, 4], [0, 1, 0, 1], [7, 7, 7, 9]), (), Bootstrap(rounds=5))
    assert found.units == (2, 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (([1, 2], [1, 1]), "2 of 2 are positive"),
        (([1, 2], [0, 0]), "0 of 2 are positive"),
        (([1, np.nan], [0, 1]), "not finite"),
        (([1, 2], [0, 1], [0]), "2 scores, but 2 labels and 1 units"),
        (([1, 2], [0, 1], None, [1.0, 2.0]), "1 models, but 2 thresholds"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sample(*given)


def test_a_rate_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate of false positives 1\.5"):
        measures(sample([1, 2], [0, 1]), (1.5,))


def test_a_share_above_the_threshold_is_the_mean_over_models() -> None:
    scores, limits = np.array([[1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 3.0, 4.0]]), np.array([2.5, 0.5])
    found = above(scores, limits, np.arange(4), Bootstrap(rounds=100))
    assert found.value == pytest.approx((0.25 + 1.0) / 2)
    assert found.low < 0.25
    assert found.high == 1.0


def test_a_share_of_none_has_the_bound_of_so_many_units() -> None:
    found = above(np.zeros((1, 100)), np.ones(1), np.arange(100) // 5, Bootstrap(rounds=10))
    assert list(found) == pytest.approx([0.0, 0.0, 1 - 0.025 ** (1 / 20)])


@pytest.mark.compiled
def test_intervals_of_shares_over_units_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(60), 10)
    hits = 0
    for k in range(300):
        chance = rng.beta(2, 6, 60)  # mean 0.25, equal within a unit
        scores = (rng.random(600) < chance[unit]).astype(float)
        found = above(scores[None], np.array([0.5]), unit, Bootstrap(rounds=200, seed=k))
        hits += found.low <= 0.25 <= found.high
    assert 0.90 <= hits / 300 <= 0.985


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        above(np.zeros((1, 0)), np.zeros(1), np.zeros(0, np.int64))
