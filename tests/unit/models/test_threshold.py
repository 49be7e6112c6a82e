from __future__ import annotations

import numpy as np
import pytest

from models.threshold import Threshold, ThresholdConfig, fit


def lognormal(n: int = 20_000, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(mean=-3.0, sigma=0.5, size=n)


def test_the_quantile_lets_the_wanted_share_through() -> None:
    scores = lognormal()
    threshold = fit(scores, ThresholdConfig(false_positive_rate=0.001))
    assert threshold.alarm(scores).sum() in (19, 20)
    assert threshold.sufficient
    assert threshold.n == 20_000


def test_the_lognormal_looks_beyond_the_scores_it_was_given() -> None:
    config = ThresholdConfig(method="lognormal", false_positive_rate=1e-6)
    threshold = fit(lognormal(2_000), config)
    true = np.exp(-3.0 + 0.5 * 4.753424)  # 4.753424 = the normal's quantile at 1 - 1e-6
    assert threshold.value == pytest.approx(true, rel=0.15)  # 5 standard errors of the fit's slope
    assert threshold.log_mean == pytest.approx(-3.0, abs=0.05)
    assert threshold.log_std == pytest.approx(0.5, abs=0.03)


def test_small_scores_do_not_move_the_lognormal() -> None:
    config = ThresholdConfig(method="lognormal", false_positive_rate=1e-4)
    scores = np.sort(lognormal())
    low = scores.copy()
    low[:9_000] = 1e-12
    assert fit(low, config) == fit(scores, config)


def test_zeros_take_their_share_of_the_rate_only() -> None:
    config = ThresholdConfig(method="lognormal", false_positive_rate=1e-3)
    mostly_zero = fit(np.concatenate([np.zeros(16_000), lognormal(4_000)]), config)
    without = fit(lognormal(4_000), ThresholdConfig(method="lognormal", false_positive_rate=5e-3))
    assert mostly_zero.value == pytest.approx(without.value, rel=1e-12)  # 1e-3 of all is 5e-3 of the others


def test_a_rate_above_the_share_that_is_not_zero_gives_zero() -> None:
    config = ThresholdConfig(method="lognormal", false_positive_rate=0.5)
    assert fit(np.concatenate([np.zeros(100), lognormal(50)]), config).value == 0.0


def test_the_order_of_scores_does_not_matter() -> None:
    scores = lognormal(500)
    for method in ("quantile", "lognormal"):
        config = ThresholdConfig(method=method, false_positive_rate=0.01)
        assert fit(scores[::-1], config) == fit(scores, config)


def test_too_few_scores_for_the_rate_are_told() -> None:
    config = ThresholdConfig(false_positive_rate=0.001, least_tail=10)
    assert not fit(lognormal(9_999), config).sufficient
    assert fit(lognormal(10_000), config).sufficient
    tail = ThresholdConfig(method="lognormal", tail=0.5, least_tail=10)
    assert not fit(lognormal(18), tail).sufficient
    assert fit(lognormal(20), tail).sufficient


@pytest.mark.parametrize("method", ["quantile", "lognormal"])
@pytest.mark.parametrize("scores", [[0.3], [0.3, 0.3], [0.3] * 100, [0.0, 0.0, 0.3]])
def test_few_or_equal_scores_give_the_largest(method: str, scores: list[float]) -> None:
    threshold = fit(np.array(scores), ThresholdConfig(method=method))  # type: ignore[arg-type]
    assert threshold.value == pytest.approx(0.3)


def test_the_score_at_the_threshold_and_a_missing_one_are_no_alarm() -> None:
    threshold = Threshold(0.5, "quantile", 0.001, 1, sufficient=False)
    scores = np.array([0.4, 0.5, 0.6, np.nan, np.inf], np.float32)
    assert threshold.alarm(scores).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("scores", [[], [0.1, np.nan], [0.1, np.inf], [0.1, -0.1]])
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="scores"):
        fit(np.array(scores), ThresholdConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "mean"},
        {"false_positive_rate": 0.0},
        {"false_positive_rate": 1.0},
        {"tail": 0.0},
        {"least_tail": 0},
    ],
)
def test_a_value_out_of_range_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ThresholdConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", -0.1), ("value", "0.5"), ("value", True), ("method", "mean"), ("false_positive_rate", "x"),
        ("false_positive_rate", 1.0), ("n", "abc"), ("n", 0), ("n", 2.5), ("sufficient", "no"), ("sufficient", 1),
        ("log_mean", "x"), ("log_std", float("nan")),
    ],
)  # fmt: skip
def test_a_threshold_that_is_none_is_refused_with_what_is_wrong(field: str, value: object) -> None:
    good = {"value": 0.5, "method": "quantile", "false_positive_rate": 0.001, "n": 5, "sufficient": True}
    with pytest.raises(ValueError, match=f"threshold: {field} {value!r} is not valid"):
        Threshold(**{**good, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["quantile", "lognormal"])
@pytest.mark.parametrize(("n", "promised"), [(14, 1 / 14), (999, 1 / 999), (1000, 0.001), (20_000, 0.001)])
def test_no_better_rate_is_promised_than_the_number_of_scores_allows(
    method: str, n: int, promised: float
) -> None:
    config = ThresholdConfig(method=method, false_positive_rate=0.001)  # type: ignore[arg-type]
    assert fit(lognormal(n), config).promised_rate == promised
