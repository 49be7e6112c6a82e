"""The trivial detector, against its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.baseline import LARGEST, Baseline, BaselineConfig

CONFIG = BaselineConfig(features=7, learn_samples=400, kept=100, tail=0.05)


def samples(seed: int, n: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    x = np.random.default_rng(seed).gamma(2.0, 1.0, (n, 7)) * 10.0 ** np.arange(-3, 4)
    x[:, 2] = 5.0  # never moves while learning
    return x


def naive(learned: np.ndarray, x: np.ndarray, kept: int, tail: float) -> list[float]:
    """Scores by the definition, column by column."""
    rows = learned[:: -(-len(learned) // kept)]
    out = []
    for row in x:
        scores = [0.0]
        for j, value in enumerate(row):
            column = rows[:, j]
            low, middle, high = np.quantile(column, [tail, 0.5, 1 - tail])
            unit = (high - middle) if value > middle else (middle - low)
            spread = column.max() - column.min()
            if spread > 0:
                scores.append(abs(value - middle) / max(unit, spread / 100))
        out.append(max(scores))
    return out


def test_scores_are_those_of_the_definition() -> None:
    model, x = Baseline(CONFIG), samples(1, 900)
    got = model.process(x)
    assert np.isnan(got[:400]).all()
    np.testing.assert_allclose(got[400:], naive(x[:400], x[400:], 100, 0.05), rtol=1e-9)


@given(cuts=st.lists(st.integers(0, 900), max_size=6), at=st.integers(0, 900))
def test_scores_do_not_depend_on_cuts_nor_on_a_state_saved_in_between(cuts: list[int], at: int) -> None:
    x = samples(2, 900)
    whole = Baseline(CONFIG).process(x)
    model, out, edges = Baseline(CONFIG), [], sorted({0, *cuts, at, 900})
    for a, b in pairwise(edges):
        if a == at:
            model = Baseline.from_state(CONFIG, model.state())
        out.append(model.process(x[a:b]))
    np.testing.assert_array_equal(np.concatenate(out), whole)


def test_a_side_without_a_tail_has_a_share_of_the_range_and_a_column_that_never_moved_says_nothing() -> None:
    model, x = Baseline(CONFIG), samples(3, 400)
    x[:, 0] = np.where(np.arange(400) % 10 == 0, 3.0, 1.0)  # nothing below the median
    model.process(x)
    odd = np.tile(model.middle, (3, 1))
    odd[0, 0], odd[1, 0], odd[2, 2] = 5.0, -1.0, 1e6
    assert model.score(odd).tolist() == pytest.approx([2.0, 100.0, 0.0])


def test_values_that_are_not_finite_have_a_finite_score() -> None:
    model, x = Baseline(CONFIG), samples(4, 400)
    x[7] = np.nan
    x[11, 3] = np.inf
    model.process(x)
    odd = samples(5, 3)
    odd[0, 1], odd[1, 1], odd[2, 1] = np.nan, np.inf, -np.inf
    scores = model.score(odd)
    assert np.isfinite(scores).all()
    assert scores[1] == LARGEST


def test_only_so_many_samples_are_kept() -> None:
    model = Baseline(CONFIG)
    model.process(samples(6, 399))
    assert len(model.state()["kept"]) == 100
    model.process(samples(7, 1))
    assert len(model.state()["kept"]) == 0


@pytest.mark.parametrize(
    "wrong", [{"features": 0}, {"learn_samples": 0}, {"kept": 0}, {"tail": 0.0}, {"tail": 0.5}]
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BaselineConfig(**wrong)  # type: ignore[arg-type]


def test_a_state_of_other_columns_is_refused() -> None:
    state = Baseline(CONFIG).state()
    for name in ("middle", "above", "below", "kept"):
        with pytest.raises(ValueError, match=name):
            Baseline.from_state(CONFIG, state | {name: np.zeros(3)})


def test_values_outside_the_learned_range_are_counted_wherever_the_stream_is_cut() -> None:
    x = samples(6, 900)
    x[500, 0], x[501, 6], x[502, 2], x[503, 1] = 1e6, -1e9, 5.1, np.nan  # column 2 was always 5
    whole = Baseline(CONFIG)
    whole.process(x)
    kept = x[:400:4]
    low, high = kept.min(axis=0), kept.max(axis=0)
    inside = (x[400:] >= low) & (x[400:] <= high)
    assert whole.out_of_range == np.count_nonzero(~inside) >= 4
    model = Baseline(CONFIG)
    for part in np.array_split(x, 7):
        model.process(part)
        model = Baseline.from_state(CONFIG, model.state())
    assert model.out_of_range == whole.out_of_range
    whole.score(x)
    assert whole.out_of_range == model.out_of_range  # asking for scores counts nothing
