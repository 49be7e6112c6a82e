"""Paired estimates on scores whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from probing.analysis.paired import AREA, FALSE, FOUND, balanced_threshold, paired
from probing.analysis.roc import Bootstrap, Sample, area

HOW = Bootstrap(rounds=400, seed=1)
N, RUNS = 400, 40
POSITIVE = np.arange(N) % 2 == 0
UNIT = np.arange(N) % RUNS // 2 * 2 + POSITIVE  # runs of one kind each
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(3, N))


def sample(gap: float, noise: np.ndarray = NOISE, thresholds: np.ndarray | None = None) -> Sample:
    limits = np.full(len(noise), 0.5) if thresholds is None else thresholds
    return Sample(noise + gap * POSITIVE, POSITIVE, UNIT, limits)


def test_values_are_means_over_nets_and_equal_the_plain_measures() -> None:
    found = paired({"a": sample(1.0)}, HOW)
    scores = NOISE + POSITIVE
    assert found.estimate("a", AREA).value == pytest.approx(np.mean([area(row, POSITIVE) for row in scores]))
    assert found.estimate("a", FOUND).value == pytest.approx((scores[:, POSITIVE] > 0.5).mean())
    assert found.estimate("a", FALSE).value == pytest.approx((scores[:, ~POSITIVE] > 0.5).mean())


def test_equal_detectors_differ_by_nothing_and_a_better_one_by_an_interval_above_nothing() -> None:
    found = paired({"one": sample(1.0), "twin": sample(1.0), "better": sample(2.0)}, HOW, same_nets=True)
    assert found.difference("one", "twin", AREA) == (0.0, 0.0, 0.0)
    value, low, high = found.difference("better", "one", AREA)
    assert 0 < low < value < high
    assert found.difference("one", "better", AREA) == pytest.approx((-value, -high, -low))


def test_pairing_is_worth_more_than_the_intervals_of_both() -> None:
    """The noise of runs is common to both detectors, so it cancels in their difference."""
    shift = np.random.default_rng(2).normal(size=RUNS)[UNIT % RUNS]
    noisy = NOISE + 2 * shift
    found = paired({"a": sample(1.0, noisy), "b": sample(1.3, noisy)}, HOW, same_nets=True)
    a, b = (found.estimate(name, AREA) for name in "ab")
    difference = found.difference("b", "a", AREA)
    assert difference.high - difference.low < 0.5 * min(a.high - a.low, b.high - b.low)


def test_nets_of_different_detectors_are_drawn_apart_unless_they_are_the_same() -> None:
    levels = np.array([[0.0], [1.0], [4.0]])
    one = Sample(NOISE + levels * POSITIVE, POSITIVE, UNIT)
    apart, same = (paired({"a": one, "b": one}, HOW, same_nets=shared) for shared in (False, True))
    assert same.difference("a", "b", AREA) == (0.0, 0.0, 0.0)
    value, low, high = apart.difference("a", "b", AREA)
    assert value == 0.0
    assert low < -0.05
    assert high > 0.05


def test_samples_of_other_connections_are_refused() -> None:
    other = Sample(NOISE, ~POSITIVE, UNIT)
    with pytest.raises(ValueError, match="b: not of the same connections as the others"):
        paired({"a": sample(1.0), "b": other}, HOW)
    with pytest.raises(ValueError, match="b: 2 nets, the others have 3"):
        paired({"a": sample(1.0), "b": sample(1.0, NOISE[:2])}, HOW, same_nets=True)


@pytest.mark.parametrize(
    ("scores", "positive", "wanted"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5),
        (
            [0.1, 0.6, 0.7, 0.9],
            [0, 1, 0, 1],
            0.8,
        ),  # above .7: 1/2 of the positives, no negative; above .1: all, 1/2
        ([0.3, 0.3, 0.3], [0, 1, 1], 0.3),
    ],
)
def test_a_balanced_threshold_has_the_greatest_geometric_mean(
    scores: list[float], positive: list[int], wanted: float
) -> None:
    assert balanced_threshold(np.array(scores), np.array(positive)) == pytest.approx(wanted)


def test_a_balanced_threshold_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="positives and negatives are both needed"):
        balanced_threshold(np.array([0.1, 0.2]), np.array([1, 1]))
