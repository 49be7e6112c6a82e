"""Steps of KitNET's learning, seen from outside; that they are those of the definition is test_kitnet.py's."""

from __future__ import annotations

import numpy as np

from models.kitnet.kitnet import KitNET, KitNETConfig
from tests.support import naive_kitnet as naive
from tests.support.kitnet_parts import nets_of

TINY_STEP = 1e-6  # central differences err by its square, and by 1e-16 / step from rounding
GRADIENT = 1e-8  # absolute, on gradients of the order of 0.1

CONFIG = KitNETConfig(features=6, max_cluster=3, map_samples=0, learning_rate=0.1, precision="float64")
MAP = ((4, 0, 2), (1, 3), (5,))


def cross_entropy(net: naive.Net, v: np.ndarray) -> float:
    z = naive.loss(net, v)[2]
    return float(-np.sum(v * np.log(z) + (1 - v) * np.log(1 - z)))


def slopes(net: naive.Net, v: np.ndarray) -> dict[str, np.ndarray]:
    """Of the cross-entropy at v by each weight and bias, from central differences."""
    out = {}
    for name in ("w", "c", "b"):
        values = getattr(net, name)
        slope = np.empty(values.shape)
        for at in np.ndindex(*values.shape):
            kept = values[at]
            values[at] = kept + TINY_STEP
            above = cross_entropy(net, v)
            values[at] = kept - TINY_STEP
            slope[at] = (above - cross_entropy(net, v)) / (2 * TINY_STEP)
            values[at] = kept
        out[name] = slope
    return out


def test_a_step_goes_down_the_gradient_of_the_cross_entropy_in_every_net() -> None:
    x = np.random.default_rng(1).random((31, 6))
    kitnet = KitNET(CONFIG, MAP)
    kitnet.learn(x[:30])
    before = nets_of(kitnet)
    kitnet.learn(x[30:])
    after = nets_of(kitnet)
    scores: list[float] = []
    inputs = [x[30, list(own)] for own in MAP]
    for k, (old, new) in enumerate(zip(before, after)):
        sample = inputs[k] if k < len(MAP) else np.array(scores)
        v = (sample - new.low) / (new.high - new.low + 1e-16)
        scores.append(naive.loss(old, v)[0])
        for name, slope in slopes(old, v).items():
            step = (getattr(new, name) - getattr(old, name)) / CONFIG.learning_rate
            np.testing.assert_allclose(step, -slope, atol=GRADIENT, err_msg=f"{name} of net {k}")


def test_learning_lowers_the_score_of_what_is_learned() -> None:
    rng = np.random.default_rng(2)
    x = rng.random(6) + 0.2 * rng.random((2000, 1))
    scores = KitNET(CONFIG, (tuple(range(3)), tuple(range(3, 6)))).learn(x)
    assert np.mean(scores[-100:]) < 0.5 * np.mean(scores[100:200])


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    x = np.column_stack([np.full((10, 5), 7.0), np.arange(10.0)])
    assert np.isfinite(KitNET(CONFIG, MAP).learn(x)).all()
