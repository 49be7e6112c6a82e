"""The weights of a KitNET as nets of its naive twin, and back: by way of its state, as files have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.kitnet.feature_map import FeatureMap
from models.kitnet.kitnet import KitNET, KitNETConfig, Phase, State
from tests.support.naive_kitnet import Net


def nets_of(kitnet: KitNET) -> list[Net]:
    """Copies of the ensemble, in the order of the feature map, and of the output layer."""
    state = kitnet.state()
    return [Net(*(part.copy() for part in views)) for views in _views(state)]


def handed_over(config: KitNETConfig, feature_map: FeatureMap, nets: Sequence[Net]) -> KitNET:
    """A KitNET in SCORE with the ensemble nets[a] over the features feature_map[a]; the last is the output layer."""
    state = KitNET(config, feature_map).state()
    for views, net in zip(_views(state), nets, strict=True):
        for view, part in zip(views, (net.w, net.c, net.b), strict=False):
            view[...] = part
    for own, net in zip(feature_map, nets, strict=False):
        state["low"][list(own)], state["high"][list(own)] = net.low, net.high
    state["out_low"][:], state["out_high"][:] = nets[-1].low, nets[-1].high
    state["phase"][0] = list(Phase).index(Phase.SCORE)
    state["counters"][:] = 0, config.learn_samples, 1, 0, 0
    return KitNET.from_state(config, state)


def _views(state: State | Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Weights, biases and ranges of each net in a state; weights and biases may be written through."""
    views = []
    for a, (v, h, at) in enumerate(zip(state["visible"], state["hidden"], state["start"])):
        own = state["features"][at : at + v]
        w, c, b = state["w"][a, :v, :h], state["b_hidden"][a, :h], state["b_visible"][a, :v]
        views.append((w, c, b, state["low"][own], state["high"][own]))
    output = tuple(state[f"out_{name}"] for name in ("w", "b_hidden", "b_visible", "low", "high"))
    return [*views, output]
