"""Score -> alarm: a threshold for a given rate of false alarms, from scores of benign traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdConfig:
    """Settings for finding a threshold.

    quantile: the empirical quantile; assumes nothing, but cannot look beyond the scores it was given.
    lognormal: a log-normal law, fitted to the upper part of the scores; for rates below 1 / n.
    """

    method: Literal["quantile", "lognormal"] = "quantile"  # empirical quantile, or that of a log-normal fit
    false_positive_rate: float = 0.001  # share of benign scores above the threshold
    tail: float = 0.5  # share of the scores, the largest, that the log-normal is fitted to
    least_tail: int = 10  # fewest scores beyond the threshold (quantile) or in the tail (lognormal)

    def __post_init__(self) -> None:
        if self.method not in ("quantile", "lognormal"):
            raise ValueError(f"method {self.method!r} must be quantile or lognormal")
        if not 0.0 < self.false_positive_rate < 1.0:
            raise ValueError(f"false_positive_rate {self.false_positive_rate} must lie in (0, 1)")
        if not 0.0 < self.tail <= 1.0:
            raise ValueError(f"tail {self.tail} must lie in (0, 1]")
        if self.least_tail < 1:
            raise ValueError(f"least_tail {self.least_tail} must be >= 1")

    @property
    def needed(self) -> int:
        """Least number of scores for which the threshold is more than a guess."""
        share = self.false_positive_rate if self.method == "quantile" else self.tail
        return math.ceil(self.least_tail / share)


@dataclass(frozen=True)
class Threshold:
    """Scores above `value` are alarms. The other fields record how the value was found."""

    value: float
    method: str
    false_positive_rate: float  # requested rate
    n: int  # number of scores it was fitted to
    sufficient: bool  # False: too few scores for the requested rate, the value is a guess
    log_mean: float | None = None  # mean of the log-normal
    log_std: float | None = None

    def __post_init__(self) -> None:
        for name, good in (
            ("value", _is_number(self.value) and 0 <= self.value < math.inf),
            ("method", self.method in ("quantile", "lognormal")),
            (
                "false_positive_rate",
                _is_number(self.false_positive_rate) and 0 < self.false_positive_rate < 1,
            ),
            ("n", type(self.n) is int and self.n >= 1),
            ("sufficient", type(self.sufficient) is bool),
            ("log_mean", self.log_mean is None or _is_number(self.log_mean)),
            ("log_std", self.log_std is None or _is_number(self.log_std)),
        ):
            if not good:
                raise ValueError(f"threshold: {name} {getattr(self, name)!r} is not valid")

    @property
    def promised_rate(self) -> float:
        """Share of benign scores above the value that n scores can promise: the rate requested, at best 1 / n."""
        return max(self.false_positive_rate, 1.0 / self.n)

    def alarm(self, scores: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each score is above the threshold; false for NaN, the score of a sample that was not scored."""
        return np.asarray(scores > self.value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def fit(scores: NDArray[Any], config: ThresholdConfig) -> Threshold:
    """The threshold for benign `scores` (n,), finite and >= 0; ValueError for other scores, or without any."""
    scores = np.sort(np.asarray(scores, np.float64).ravel())
    if scores.size == 0:
        raise ValueError("no scores to fit a threshold to")
    bad = int(np.count_nonzero(~np.isfinite(scores) | (scores < 0.0)))
    if bad:
        raise ValueError(f"{bad} of {scores.size} scores are negative or not finite")
    return _quantile(scores, config) if config.method == "quantile" else _lognormal(scores, config)


def _quantile(scores: Floats, config: ThresholdConfig) -> Threshold:
    rate, n = config.false_positive_rate, scores.size
    value = float(np.quantile(scores, 1.0 - rate, method="higher"))
    return Threshold(value, "quantile", rate, n, sufficient=n * rate >= config.least_tail)


def _lognormal(scores: Floats, config: ThresholdConfig) -> Threshold:
    """A line through the upper part of the normal probability plot of log(score).

    Its slope is the standard deviation, its height at 0 the mean. Small scores, which often follow another law, are
    left out. Zeros have no logarithm: the law is that of the scores above zero, and so is the rate.
    """
    from scipy.special import ndtri  # takes a quarter of a second to import; a quantile does without

    rate, n = config.false_positive_rate, scores.size
    logs = np.log(scores[scores > 0.0])
    many = logs.size
    first = int(np.floor(many * (1.0 - config.tail)))
    x = ndtri((np.arange(first, many) + 0.5) / many)  # normal quantile of each score's rank
    y = logs[first:]
    if x.size < 2:
        return Threshold(float(scores[-1]), "lognormal", rate, n, sufficient=False)
    std = float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))
    mean = float(y.mean() - std * x.mean())
    value = float(np.exp(mean - std * ndtri(min(1.0, rate * n / many))))
    enough = x.size >= config.least_tail
    return Threshold(value, "lognormal", rate, n, sufficient=enough, log_mean=mean, log_std=std)
