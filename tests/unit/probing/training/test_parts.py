"""Which connections are learned from, and which never are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import InputError
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import of_corpus
from probing.training.batches import POOLED, Draws, weights
from probing.training.parts import divide, shares, warnings, with_parts
from probing.training.recipe import Recipe
from probing.training.sequences import Sequences
from tests.support.corpora import table
from tests.support.small_corpus import ATTACK, clean, write


def made(rows: Sequence[dict[str, Any]], general: bool = False) -> Sequences:
    """Sequences of one token with these labels."""
    n = len(rows)
    labels = table(*rows).append_column("general", pa.array([general] * n))
    return Sequences(np.zeros((n, 12), np.int16), np.ones((n, 12), np.float32), np.arange(n + 1), labels)


def runs(n: int, **given: Any) -> list[dict[str, Any]]:
    """Runs of two samples, two and two of them twins."""
    own = [(k, s, {"run": f"{given}{k}", "pair": f"{given}{k // 2}/{s}"}) for k in range(n) for s in range(2)]
    return [row | {"twin": "ab"[k % 2], "sample": s, "part": "train"} | given for k, s, row in own]


CALIBRATE = [{"run": "c", "part": "calibrate"}]


@pytest.mark.parametrize("seed", range(5))
def test_validation_tears_neither_runs_nor_pairs(seed: int) -> None:
    parts = divide(made(runs(40) + runs(40, **ATTACK) + CALIBRATE), 0.2, seed)
    for name in ("run", "pair"):
        fit, held_out = (set(p.labels.column(name).to_pylist()) for p in (parts.fit, parts.held_out))
        assert not fit & held_out
    assert len(parts.fit) + len(parts.held_out) == 160
    assert 16 <= len(parts.held_out) <= 48


def test_only_benign_connections_calibrate_and_tests_are_not_touched() -> None:
    more = [
        {"run": "t", "part": "test"},
        {"run": "a", "part": "calibrate", **ATTACK},
        {"run": "n", "part": ""},
    ]
    parts = divide(made(runs(20) + runs(20, **ATTACK) + CALIBRATE + more), 0.2, 1)
    assert parts.calibrate.labels.column("run").to_pylist() == ["c"]
    assert set(parts.fit.labels.column("part").to_pylist()) == {"train"}


def test_unsure_connections_are_not_learned_from() -> None:
    failed = runs(10, **ATTACK, succeeded=False)
    parts = divide(made(runs(20) + runs(20, **ATTACK) + failed + CALIBRATE), 0.2, 1)
    assert len(parts.fit) + len(parts.held_out) == 80


def test_a_part_that_is_missing_is_named() -> None:
    with pytest.raises(InputError, match="none has part train; parts: calibrate"):
        divide(made(CALIBRATE), 0.2, 1)
    with pytest.raises(InputError, match="no benign connection to calibrate with"):
        divide(made(runs(4)), 0.2, 1)


def test_a_corpus_without_parts_is_split_as_the_check_splits_it(tmp_path: Path) -> None:
    known, how = with_parts(of_corpus(read_corpus(write(tmp_path, clean()))))
    parts = known.labels.column("part").to_pylist()
    assert {name: parts.count(name) for name in set(parts)} == {"train": 60, "calibrate": 20, "test": 20}
    assert how.startswith("train 60%, calibrate 20%, test 20%")


def test_shares_are_by_type_of_traffic_and_little_is_warned_of() -> None:
    probes = made(runs(4, activity="visit", scenario="sql") + runs(1, **ATTACK))
    assert shares(probes) == {"probe: sql/visit": 0.8, "attack: injection": 0.2}
    everything = made(runs(9), general=True)
    assert shares(everything) == {"general traffic": 1.0}
    assert warnings({"general traffic": 0.9, "attack: injection": 0.09, "probe: sql/visit": 0.1}) == [
        "only 9.0% of the connections to learn from are attack: injection: below 10%, a model may not learn it"
    ]


def test_batches_have_both_classes_alike_and_like_lengths() -> None:
    attack = np.arange(1000) < 50
    lengths = np.random.default_rng(1).integers(1, 400, 1000)
    draws = Draws(attack, lengths, Recipe(cut=100))
    drawn = [draws.batch(step) for step in range(4 * POOLED)]
    pools = [np.concatenate(drawn[k : k + POOLED]) for k in range(0, len(drawn), POOLED)]
    assert [int(attack[pool].sum()) for pool in pools] == [256] * 4
    spread = [np.ptp(np.minimum(lengths[which], 100)) for which in drawn]
    assert np.median(spread) < 15
    benign = np.concatenate(drawn)
    assert np.unique(benign[~attack[benign]]).size == 950  # 1,024 draws: every one, before any comes twice


def test_batches_depend_on_seed_and_step_alone() -> None:
    attack, lengths = np.arange(100) < 30, np.arange(100)
    one, other = (Draws(attack, lengths, Recipe(seed=s)) for s in (1, 2))
    later = Draws(attack, lengths, Recipe(seed=1)).batch(50)
    assert [one.batch(step).tolist() for step in range(51)][50] == later.tolist()
    assert other.batch(50).tolist() != later.tolist()


def test_weights_of_a_connection_add_up_and_half_is_the_last_tokens() -> None:
    found = weights(np.array([1, 3]), 4, 0.5)
    assert found.tolist() == [[1, 0, 0, 0], pytest.approx([0.5 / 6, 1 / 6, 0.5 + 0.25, 0])]


def test_a_recipe_rises_and_falls_once() -> None:
    recipe = Recipe(steps=100)
    rates = [recipe.rate_at(k) for k in range(101)]
    assert max(rates) == rates[30] == pytest.approx(recipe.rate)
    assert rates[0] == pytest.approx(recipe.rate / 25)
    assert rates[100] == pytest.approx(recipe.rate * 1e-5)
    assert sorted(rates[:31]) == rates[:31]
    assert sorted(rates[30:], reverse=True) == rates[30:]
    assert replace(recipe, seed=2).rate_at(7) == rates[7]


def test_many_types_of_little_traffic_are_one_warning() -> None:
    given = {f"probe: a/{k}": 0.01 * (k + 1) for k in range(6)} | {"attack: b": 0.79}
    (line,) = warnings(given)
    assert line == (
        "6 types of traffic have each below 10% of the connections to learn from (the least: probe: a/0 1.0%, "
        "probe: a/1 2.0%, probe: a/2 3.0%): a model may not learn them"
    )
    assert len(warnings({name: given[name] for name in list(given)[:5]})) == 5
