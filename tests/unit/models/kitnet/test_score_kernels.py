"""What the autoencoders begin with, and scores of extreme weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from models.kitnet.kitnet import KitNETConfig
from models.kitnet.score_kernels import hidden_units, initial_weights
from tests.support.kitnet_parts import handed_over
from tests.support.naive_kitnet import Net


def test_every_net_of_a_size_begins_with_the_same_weights() -> None:
    np.testing.assert_array_equal(initial_weights(7, 6, 1234), initial_weights(7, 6, 1234))
    assert (np.abs(initial_weights(7, 6, 1234)) <= 1 / 7).all()
    assert not np.array_equal(initial_weights(7, 6, 1234), initial_weights(7, 6, 5))


def test_hidden_units_are_the_ratio_rounded_up() -> None:
    assert [hidden_units(n, 0.75) for n in (1, 2, 3, 4, 5, 10)] == [1, 2, 3, 3, 4, 8]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_large_weights_do_not_overflow(precision: Literal["float32", "float64"]) -> None:
    config = KitNETConfig(features=2, max_cluster=2, map_samples=0, precision=precision)
    net = Net(np.full((2, 2), -1e6), np.zeros(2), np.zeros(2), np.zeros(2), np.ones(2))
    output = Net(np.full((1, 1), -1e6), np.zeros(1), np.zeros(1), np.zeros(1), np.ones(1))
    assert np.isfinite(handed_over(config, ((0, 1),), [net, output]).score(np.ones((1, 2)))).all()
