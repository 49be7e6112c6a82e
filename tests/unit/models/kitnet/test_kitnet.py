from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.kitnet.kitnet import KitNET, KitNETConfig, Phase
from tests.support import naive_kitnet as naive
from tests.support.kitnet_parts import handed_over, nets_of

SMALL = KitNETConfig(
    features=11, max_cluster=4, map_samples=40, learn_samples=120, learning_rate=0.1, precision="float64"
)
MAP = ((3, 1), (0, 2, 4, 5), (6,), (10, 9, 8), (7,))
OTHER_ORDER = 1e-9  # relative: sums in another order, rounding carried through 120 steps
SINGLE = 1e-5  # relative: float32 scoring against float64

CAPTURES = Path(os.environ.get("WIRESONDE_CAPTURES", Path(__file__).parents[5] / "shared" / "captures"))
PUBLISHED = CAPTURES / "kitsune" / "reference_kitsune_py__features_rmse.npz"


def mixed(n: int, d: int = 11, seed: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n, 4)) @ rng.random((4, d)) + 0.3 * rng.random((n, d))


def learned(config: KitNETConfig = SMALL) -> KitNET:
    net = KitNET(config, MAP)
    net.learn(mixed(config.learn_samples))
    return net


def test_scores_equal_those_of_the_definition_while_learning_and_after() -> None:
    x = mixed(300)
    x[200:] += 0.2  # some beyond the range, and some of those beyond the band
    x[250] *= 50
    expected = naive.kitnet(x, MAP, learn=120)
    np.testing.assert_allclose(KitNET(SMALL, MAP).process(x), expected, rtol=OTHER_ORDER)


def test_a_map_of_many_single_features_gives_the_scores_of_the_definition() -> None:
    config = replace(SMALL, features=30)
    feature_map = (tuple(range(4)), *((i,) for i in range(4, 30)))
    x = mixed(160, 30)
    expected = naive.kitnet(x, feature_map, learn=120)
    np.testing.assert_allclose(KitNET(config, feature_map).process(x), expected, rtol=OTHER_ORDER)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_other_shapes_and_rates_give_the_scores_of_the_definition(ratio: float) -> None:
    config = replace(SMALL, hidden_ratio=ratio, learning_rate=0.4, seed=9)
    x = mixed(160)
    expected = naive.kitnet(x, MAP, learn=120, rate=0.4, ratio=ratio, seed=9)
    np.testing.assert_allclose(KitNET(config, MAP).process(x), expected, rtol=OTHER_ORDER)


def test_float32_scores_agree_with_float64() -> None:
    x = mixed(500) * 1.3
    wide = learned().score(x)
    narrow = learned(replace(SMALL, precision="float32")).score(x)
    np.testing.assert_allclose(narrow, wide, rtol=SINGLE)
    assert (narrow != wide).any()


def test_float32_samples_give_the_scores_of_their_values() -> None:
    x = mixed(50).astype(np.float32)
    np.testing.assert_array_equal(learned().score(x), learned().score(x.astype(np.float64)))


def test_phases_follow_each_other_at_the_sample_counts_within_one_block() -> None:
    net = KitNET(SMALL)
    out = net.process(mixed(200))
    assert np.isnan(out[:40]).all()
    assert np.isfinite(out[40:]).all()
    assert (net.phase, net.samples, net.learned, net.steps) == (Phase.SCORE, 200, 120, 120)


@pytest.mark.parametrize(
    ("samples", "phase"), [(39, Phase.MAP), (40, Phase.LEARN), (159, Phase.LEARN), (160, Phase.SCORE)]
)
def test_a_phase_ends_with_its_last_sample(samples: int, phase: Phase) -> None:
    net = KitNET(SMALL)
    net.process(mixed(samples))
    assert net.phase is phase


def test_the_map_is_that_of_the_map_samples_and_learning_begins_after_them() -> None:
    x = mixed(160)
    net = KitNET(SMALL)
    out = net.process(x)
    assert net.feature_map is not None
    expected = naive.clusters(naive.distance(x[:40]), 4)
    assert sorted(sorted(part) for part in net.feature_map) == sorted(sorted(part) for part in expected)
    np.testing.assert_allclose(out[40:], naive.kitnet(x[40:], net.feature_map, 120), rtol=OTHER_ORDER)


def test_score_changes_nothing() -> None:
    net = learned()
    before = net.state()
    first = net.score(mixed(30) * 5)
    np.testing.assert_array_equal(net.score(mixed(30) * 5), first)
    after = net.state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_score_sees_what_was_learned_last() -> None:
    net = learned()
    before = net.score(mixed(5))
    net.learn(mixed(5))
    assert (net.score(mixed(5)) != before).all()


def test_learning_can_go_on_after_the_learning_phase() -> None:
    x = mixed(150)
    net = KitNET(SMALL, MAP)
    scores = np.concatenate([net.learn(x[:120]), net.learn(x[120:])])
    assert net.phase is Phase.SCORE
    np.testing.assert_allclose(scores, naive.kitnet(x, MAP, learn=150), rtol=OTHER_ORDER)


def test_freeze_ends_learning_early() -> None:
    net = KitNET(SMALL, MAP)
    net.process(mixed(10))
    net.freeze()
    assert net.phase is Phase.SCORE
    steps = net.steps
    net.process(mixed(10))
    assert net.steps == steps


def test_nothing_learned_cannot_be_frozen_or_scored_with() -> None:
    with pytest.raises(RuntimeError, match="nothing was learned"):
        KitNET(SMALL, MAP).freeze()
    net = KitNET(SMALL)
    net.process(mixed(5))
    for call in (net.score, net.learn):
        with pytest.raises(RuntimeError, match="5 of 40 samples"):
            call(mixed(1))


def test_values_beyond_the_band_are_clipped_and_those_outside_the_learned_range_are_counted() -> None:
    net = learned()
    inside = mixed(120)[:1]
    high, low = nets_of(net)[2].high[0], nets_of(net)[2].low[0]  # feature 6
    edge, beyond = inside.copy(), inside.copy()
    edge[0, 6] = low + (2.0 - 1e-12) * (high - low)
    beyond[0, 6] = 1e6
    at_the_edge = net.process(edge)
    assert net.out_of_range == 1
    np.testing.assert_allclose(net.process(beyond), at_the_edge, rtol=1e-9)  # the edge is 1e-12 inside
    assert net.out_of_range == 2
    bounds = np.repeat(inside, 4, axis=0)
    bounds[:, 6] = low, high, low - 0.01 * (high - low), high + 0.01 * (high - low)
    net.process(bounds[:2])
    assert net.out_of_range == 2
    net.process(bounds[2:])
    assert net.out_of_range == 4


def test_a_constant_feature_that_moves_a_little_gives_no_huge_score() -> None:
    x = mixed(200)
    x[:, 6] = 1.0
    x[190, 6] = 1.01
    scores = KitNET(SMALL, MAP).process(x)
    assert scores[190] > scores[160:190].max()
    assert scores[190] < 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_unusable_values_are_skipped_in_learning_and_clipped_in_scoring(bad: float) -> None:
    x = mixed(200)
    dirty = np.insert(x, [20, 100, 199], bad, axis=0)
    rows = np.array([20, 101, 201])
    config = replace(SMALL, learn_samples=100)
    clean = KitNET(replace(config, map_samples=39, learn_samples=99))
    net = KitNET(config)
    scores = net.process(dirty)
    kept = np.delete(scores, rows)
    np.testing.assert_array_equal(kept, clean.process(x))
    assert np.isnan(scores[rows[:2]]).all()
    assert np.isfinite(scores[201])
    assert (net.skipped, net.out_of_range - clean.out_of_range, net.steps) == (2, 11, 99)


def test_what_is_not_a_number_scores_as_the_upper_bound() -> None:
    x = mixed(3)
    low, nan, high = x.copy(), x.copy(), x.copy()
    low[:, 4], nan[:, 4], high[:, 4] = -np.inf, np.nan, np.inf
    net = learned()
    np.testing.assert_array_equal(net.score(nan), net.score(high))
    assert (net.score(nan) != net.score(low)).all()


@pytest.mark.parametrize("samples", [0, 17, 40, 41, 100, 160, 190])
def test_a_state_goes_on_to_the_last_bit(samples: int) -> None:
    config = replace(SMALL, precision="float32")
    x = mixed(230)
    x[[5, 70], 2] = np.nan
    one = KitNET(config)
    one.process(x[:samples])
    state = one.state()
    assert all(np.isfinite(array).all() for array in state.values())
    two = KitNET.from_state(config, state)
    np.testing.assert_array_equal(two.process(x[samples:]), one.process(x[samples:]))
    assert two.feature_map == one.feature_map
    for name, value in one.state().items():
        np.testing.assert_array_equal(two.state()[name], value, err_msg=name)


def test_a_state_is_a_copy() -> None:
    net = learned()
    state = net.state()
    kept = {name: array.copy() for name, array in state.items()}
    net.learn(mixed(3) * 2)
    net.score(mixed(1))
    for name, value in kept.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_a_state_of_another_config_is_refused() -> None:
    state = learned().state()
    for config in (
        replace(SMALL, features=12),
        replace(SMALL, hidden_ratio=0.25),
        replace(SMALL, max_cluster=3),
    ):
        with pytest.raises(ValueError, match=r"shape|clusters"):
            KitNET.from_state(config, state)
    del state["out_w"]
    with pytest.raises(ValueError, match="out_w"):
        KitNET.from_state(SMALL, state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase", 3), ("phase", -1), ("phase", 1), ("counters", -1), ("hidden", 9), ("start", 100),
        ("features", 11), ("features", 0), ("visible", 2), ("visible", -1),
    ],
)  # fmt: skip
def test_a_state_with_wrong_indices_is_refused(name: str, value: int) -> None:
    state = learned().state()
    state[name][-1] = value
    with pytest.raises(ValueError, match=r"state|feature map"):
        KitNET.from_state(SMALL, state)


def test_a_state_of_more_map_samples_than_the_config_has_is_refused() -> None:
    net = KitNET(SMALL)
    net.process(mixed(30))
    with pytest.raises(ValueError, match="30 of 20"):
        KitNET.from_state(replace(SMALL, map_samples=20), net.state())


def test_nets_taken_from_a_state_give_the_same_scores() -> None:
    net = learned()
    *ensemble, output = nets_of(net)
    again = handed_over(SMALL, MAP, [*ensemble, output])
    np.testing.assert_array_equal(again.process(mixed(50)), net.process(mixed(50)))
    parts = [naive.run(part, mixed(1)[0, list(own)], 0.0, None) for part, own in zip(ensemble, MAP)]
    expected = naive.run(output, np.array(parts), 0.0, None)
    np.testing.assert_allclose(net.score(mixed(1)), [expected], rtol=OTHER_ORDER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 0}, {"max_cluster": 0}, {"map_samples": -1}, {"learn_samples": 0}, {"hidden_ratio": 0.0},
        {"learning_rate": 0.0}, {"learning_rate": np.nan}, {"seed": -1}, {"clip": (0.1, 2.0)},
        {"clip": (-1.0, np.inf)}, {"precision": "float16"},
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KitNETConfig(**wrong)  # type: ignore[arg-type]


def test_samples_of_another_shape_or_type_are_refused() -> None:
    net = KitNET(SMALL)
    with pytest.raises(ValueError, match="11"):
        net.process(np.zeros((3, 10)))
    with pytest.raises(ValueError, match="int64"):
        net.process(np.zeros((3, 11), np.int64))
    with pytest.raises(ValueError, match="feature map"):
        KitNET(replace(SMALL, map_samples=0))


def test_no_samples_give_no_scores() -> None:
    for net in (KitNET(SMALL), KitNET(SMALL, MAP), learned()):
        assert net.process(np.empty((0, 11))).shape == (0,)


@pytest.mark.captures
def test_a_twentieth_of_the_published_features_gives_the_definition_s_scores() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"no {PUBLISHED}: set WIRESONDE_CAPTURES")
    x = np.load(PUBLISHED)["features"][:500]
    config = KitNETConfig(map_samples=101, learn_samples=300, learning_rate=0.1, precision="float64")
    net = KitNET(config)
    scores = net.process(x)
    assert net.feature_map is not None
    np.testing.assert_allclose(scores[101:], naive.kitnet(x[101:], net.feature_map, 300), rtol=OTHER_ORDER)


@pytest.mark.captures
def test_map_learning_and_scores_equal_those_of_the_public_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its map is handed over: among ties it orders features arbitrarily."""
    folder = os.environ.get("KITSUNE_PY")
    if not folder or not PUBLISHED.exists():
        pytest.skip("set KITSUNE_PY to a checkout of ymirsky/Kitsune-py, and WIRESONDE_CAPTURES")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "KitNET"]:
        monkeypatch.delitem(sys.modules, name)
    with np.errstate():
        from KitNET.KitNET import KitNET as Public  # type: ignore[import-not-found]

        x = np.load(PUBLISHED)["features"]
        public = Public(100, 10, 300, 500, 0.1, 0.75)
        expected = np.array([public.process(row) for row in x])
    config = KitNETConfig(
        map_samples=301, learn_samples=500, learning_rate=0.1, clip=(-1e9, 1e9), precision="float64"
    )
    net = KitNET(config)
    net.process(x)
    feature_map = tuple(tuple(int(i) for i in part) for part in public.v)
    assert net.feature_map is not None
    assert sorted(map(sorted, net.feature_map)) == sorted(map(sorted, feature_map))
    handed = KitNET(config, feature_map)
    np.testing.assert_allclose(handed.process(x[301:])[500:], expected[801:], rtol=OTHER_ORDER)
    parts = [
        naive.Net(dA.W, dA.hbias, dA.vbias, dA.norm_min, dA.norm_max)
        for dA in (*public.ensembleLayer, public.outputLayer)
    ]
    exact = handed_over(config, feature_map, parts)
    np.testing.assert_allclose(exact.process(x[801:]), expected[801:], rtol=OTHER_ORDER)
    assert (expected[:801] == 0).all()
    assert (expected[801:] > 0).all()
