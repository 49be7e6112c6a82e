from __future__ import annotations

import numpy as np

from models.kitnet.autoencoder import Autoencoder, hidden_units

TINY_STEP = 1e-6  # central differences err by its square, and by 1e-16 / step from rounding
GRADIENT = 1e-8  # absolute, on gradients of the order of 0.1


def trained(visible: int = 6, samples: int = 30) -> tuple[Autoencoder, np.ndarray]:
    x = np.random.default_rng(1).random((samples, visible))
    net = Autoencoder.fresh(visible)
    for row in x:
        net.learn(row)
    return net, net.normalise(x[-1])


def cross_entropy(net: Autoencoder, x: np.ndarray) -> float:
    z = net.forward(x)[1]
    return float(-np.sum(x * np.log(z) + (1 - x) * np.log(1 - z)))


def test_a_step_goes_down_the_gradient_of_the_cross_entropy() -> None:
    net, x = trained()
    y, z = net.forward(x)
    directions = dict(zip(("b_hidden", "b_visible", "w"), net.step(x, y, x - z)))
    for name, direction in directions.items():
        values = getattr(net, name)
        slope = np.empty(values.shape)
        for at in np.ndindex(*values.shape):
            kept = values[at]
            values[at] = kept + TINY_STEP
            above = cross_entropy(net, x)
            values[at] = kept - TINY_STEP
            slope[at] = (above - cross_entropy(net, x)) / (2 * TINY_STEP)
            values[at] = kept
        np.testing.assert_allclose(direction, -slope, atol=GRADIENT, err_msg=name)


def test_learning_adds_the_step_times_the_rate() -> None:
    net, _ = trained()
    x = (net.low + net.high) / 2
    normal = net.normalise(x)
    y, z = net.forward(normal)
    before = {name: getattr(net, name).copy() for name in ("b_hidden", "b_visible", "w")}
    steps = net.step(normal, y, normal - z)
    net.learn(x)
    for (name, value), step in zip(before.items(), steps):
        np.testing.assert_array_equal(getattr(net, name), value + 0.1 * step)


def test_learning_lowers_the_score_of_what_is_learned() -> None:
    rng = np.random.default_rng(2)
    net = Autoencoder.fresh(5)
    base = rng.random(5)
    scores = [net.learn(base + 0.2 * rng.random() * np.ones(5)) for _ in range(2000)]
    assert np.mean(scores[-100:]) < 0.5 * np.mean(scores[100:200])


def test_learn_returns_the_score_before_the_step() -> None:
    net, _ = trained()
    inside = (net.low + net.high) / 2  # the range does not move
    expected = net.score(inside)
    assert net.learn(inside) == expected
    assert net.score(inside) != expected


def test_score_changes_nothing() -> None:
    net, _ = trained()
    before = [array.copy() for array in (net.w, net.b_hidden, net.b_visible, net.low, net.high)]
    net.score(np.full(6, 9.0))
    for old, new in zip(before, (net.w, net.b_hidden, net.b_visible, net.low, net.high)):
        np.testing.assert_array_equal(old, new)


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    net = Autoencoder.fresh(2)
    for i in range(10):
        assert np.isfinite(net.learn(np.array([7.0, float(i)])))


def test_every_net_of_a_size_begins_with_the_same_weights() -> None:
    np.testing.assert_array_equal(Autoencoder.fresh(7).w, Autoencoder.fresh(7).w)
    assert (np.abs(Autoencoder.fresh(7).w) <= 1 / 7).all()
    assert not np.array_equal(Autoencoder.fresh(7).w, Autoencoder.fresh(7, seed=5).w)


def test_hidden_units_are_the_ratio_rounded_up() -> None:
    assert [hidden_units(n, 0.75) for n in (1, 2, 3, 4, 5, 10)] == [1, 2, 3, 3, 4, 8]


def test_large_weights_do_not_overflow() -> None:
    net = Autoencoder.fresh(2)
    net.low, net.high = np.zeros(2), np.ones(2)
    net.w[:] = -1e6
    assert np.isfinite(net.score(np.ones(2)))
