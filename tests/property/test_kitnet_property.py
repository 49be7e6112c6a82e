from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kitnet.kitnet import KitNET, KitNETConfig

CONFIG = KitNETConfig(features=9, max_cluster=3, map_samples=20, learn_samples=30)
ROWS = 140  # several tiles of scoring
X = np.random.default_rng(8).normal(size=(ROWS, 4)) @ np.random.default_rng(9).normal(size=(4, 9))
X[[3, 25, 100, 130], [0, 1, 2, 3]] = np.nan, np.inf, -np.inf, 1e300
WHOLE = {kind: KitNET(replace(CONFIG, precision=kind)).process(X) for kind in ("float32", "float64")}

cuts = st.lists(st.integers(0, ROWS), max_size=8).map(sorted)
kinds = st.sampled_from(["float32", "float64"])


@settings(deadline=None, max_examples=40)
@given(cuts, kinds)
def test_cutting_the_samples_elsewhere_changes_no_bit_of_a_score(cut: list[int], kind: str) -> None:
    net = KitNET(replace(CONFIG, precision=kind))  # type: ignore[arg-type]
    parts = [net.process(part) for part in np.split(X, cut)]
    np.testing.assert_array_equal(np.concatenate(parts), WHOLE[kind])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, ROWS), kinds)
def test_a_restart_anywhere_changes_no_bit_of_a_score(at: int, kind: str) -> None:
    config = replace(CONFIG, precision=kind)  # type: ignore[arg-type]
    net = KitNET(config)
    first = net.process(X[:at])
    again = KitNET.from_state(config, net.state())
    np.testing.assert_array_equal(np.concatenate([first, again.process(X[at:])]), WHOLE[kind])
    assert again.samples == ROWS


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(20)), st.integers(0, 120), kinds)
def test_a_score_does_not_depend_on_its_neighbours(order: list[int], before: int, kind: str) -> None:
    net = KitNET(replace(CONFIG, precision=kind))  # type: ignore[arg-type]
    net.process(X[:50])
    alone = np.concatenate([net.score(X[i : i + 1]) for i in order])
    among = net.score(np.concatenate([X[:before], X[list(order)]]))[before:]
    np.testing.assert_array_equal(among, alone)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(width=64), min_size=9, max_size=9), min_size=1, max_size=20),
    st.integers(1, 60),
)
def test_no_input_poisons_what_is_learned(rows: list[list[float]], seen: int) -> None:
    net = KitNET(CONFIG)
    net.process(X[50 : 50 + seen])
    net.process(np.array(rows))
    clean = np.random.default_rng(1).normal(size=(80, 9))
    net.process(clean)
    assert np.isfinite(net.score(clean)).all()
    assert all(np.isfinite(array).all() for array in net.state().values())
