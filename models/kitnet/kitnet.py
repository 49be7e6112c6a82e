"""KitNET: an ensemble of small autoencoders and one over their scores (Mirsky et al. 2018, IV).

The phases follow each other at sample counts, from 0: the map is made from samples [0, map_samples), the
autoencoders learn from [map_samples, map_samples + learn_samples), and later samples are scored with what was
learned. The public code uses one sample more: its map takes [0, FM], it learns from [FM + 1, FM + AD], and its first
score is that of FM + AD + 1; map_samples = FM + 1 and learn_samples = AD give the same.

Differences from the public code, all on purpose: ties in the map are broken by index (feature_map.py). Inputs are
clipped to a band in scoring, where one odd value could give a score of 1e14. Values that are not finite, or beyond
1e100, do not affect what is learned: a sample with such a value counts for the phase, but mapping and learning skip
it, with the score NaN; scoring clips it, NaN to the upper bound. The scores that the output layer gets are not
clipped, so a worse sample still scores higher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.kitnet import learn as learning
from models.kitnet import score_kernels as kernels
from models.kitnet.feature_map import CorrelationDistance, FeatureMap, check_map, cluster
from models.kitnet.score_kernels import TINY, Floats, Frozen, Nets, hidden_units

State = dict[str, NDArray[Any]]

LARGEST_WEIGHT = 1e6  # learned weights are below 100; above this, scoring in float32 could overflow


class Phase(Enum):
    """The use of the next sample."""

    MAP = "map"  # statistics of the features; no score
    LEARN = "learn"  # a step of the autoencoders; the score before it
    SCORE = "score"  # a score; changes nothing


@dataclass(frozen=True)
class KitNETConfig:
    """All that makes two KitNETs equal, given the same samples."""

    features: int = 100  # number of inputs: 20 for each of the lambdas
    max_cluster: int = 10  # most features of one autoencoder
    map_samples: int = 5_000  # packets from which the feature map is made
    learn_samples: int = 50_000  # packets from which the model then learns
    hidden_ratio: float = 0.75  # ratio of hidden units to inputs; their number is rounded up
    learning_rate: float = 0.2  # step size; published: 0.1, too little for the short learning of a stream
    seed: int = 1234  # seed of the initial weights, the same for every autoencoder
    clip: tuple[float, float] = (-1.0, 2.0)  # band of normalised inputs in scoring; learned ones are in 0..1
    precision: Literal["float32", "float64"] = "float32"  # type of numbers in scoring; learning uses float64

    def __post_init__(self) -> None:
        low, high = self.clip
        for name, good, bound in (
            ("features", _is_count(self.features, 1), "a number >= 1"),
            ("max_cluster", _is_count(self.max_cluster, 1), "a number >= 1"),
            ("map_samples", _is_count(self.map_samples, 0), "a number >= 0"),
            ("learn_samples", _is_count(self.learn_samples, 1), "a number >= 1"),
            ("hidden_ratio", 0.0 < self.hidden_ratio <= 1.0, "in (0, 1]"),
            ("learning_rate", 0.0 < self.learning_rate <= 100.0, "in (0, 100]"),
            ("seed", _is_count(self.seed, 0) and self.seed < 2**32, "in 0..4294967295"),
            ("clip", -1e9 <= low <= 0.0 and 1.0 <= high <= 1e9, "a pair in -1e9..0 and 1..1e9"),
            ("precision", self.precision in ("float32", "float64"), "float32 or float64"),
        ):
            if not good:
                raise ValueError(f"{name} {getattr(self, name)!r} must be {bound}")


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**62


class KitNET:
    """Anomaly scores of samples (n, features), learned from the first of them.

    Cutting the samples into other calls changes no bit of the scores.
    """

    def __init__(self, config: KitNETConfig, feature_map: FeatureMap | None = None) -> None:
        """A KitNET without samples; with a feature map it starts in LEARN."""
        self.config = config
        self.samples = 0  # rows given to `process` and `learn`
        self.learned = 0  # rows given in learning, skipped ones included
        self.steps = 0  # rows learned from
        self.skipped = 0  # rows skipped in mapping or learning, for an unusable value
        self.out_of_range = 0  # values outside the learned range scored by `process`
        self.feature_map: FeatureMap | None = None
        self._phase = Phase.MAP
        self._statistics = CorrelationDistance(0 if feature_map else config.features)
        self._nets: Nets | None = None
        self._packed: learning.Packed | None = None  # the same in the layout for learning
        self._stale = False  # whether _packed is newer than _nets
        self._frozen: Frozen | None = None  # the same in the layout for scoring
        self._scratch: kernels.Scratch  # scratch for the frozen nets
        if feature_map is not None:
            self._start_learning(feature_map)
        elif config.map_samples == 0:
            raise ValueError("map_samples 0 needs a feature map")

    @property
    def phase(self) -> Phase:
        """The phase of the next sample given to `process`."""
        return self._phase

    def process(self, x: NDArray[Any]) -> Floats:
        """Process the rows of x (n, features) in order; returns (n,) scores, NaN for samples of the map.

        Scores of LEARN are in float64, those of SCORE in `config.precision`, returned as float64.
        """
        x = self._rows(x)
        out = np.full(len(x), np.nan)
        done = 0
        while done < len(x):
            if self._phase is Phase.MAP:
                end = min(len(x), done + self.config.map_samples - self.samples)
                self._map(x[done:end])
            elif self._phase is Phase.LEARN:
                end = min(len(x), done + self.config.learn_samples - self.learned)
                out[done:end] = self.learn(x[done:end])
            else:
                end = len(x)
                self.out_of_range += self._score(x[done:], out[done:])
                self.samples += end - done
            done = end
        return out

    def learn(self, x: NDArray[Any]) -> Floats:
        """One SGD step for each row of x in order; returns (n,) scores before it, NaN for a skipped row.

        As published, the score before a step uses the range that already holds the row. Also works in SCORE, where it
        continues learning; not in MAP (RuntimeError).
        """
        x = self._rows(x)
        if self._packed is None:
            self._packed = learning.pack(self._ready())
        out = np.empty(len(x))
        rate, scratch = self.config.learning_rate, learning.make_step(self._packed)
        with np.errstate(all="ignore"):  # uncompiled kernels warn of values that they handle
            skipped = learning.learn(self._packed, scratch, np.asarray(x, np.float64), rate, out)
        self._stale = True
        self.samples += len(x)
        self.learned += len(x)
        self.skipped += skipped
        self.steps += len(x) - skipped
        self._frozen = None
        if self.learned >= self.config.learn_samples:
            self._phase = Phase.SCORE
        return out

    def score(self, x: NDArray[Any]) -> Floats:
        """(n,) scores of the rows of x by what has been learned so far; changes nothing.

        RuntimeError in MAP; NaN if nothing was learned yet.
        """
        x = self._rows(x)
        self._ready()
        out = np.empty(len(x))
        self._score(x, out)
        return out

    def expected(self, x: NDArray[Any]) -> Floats:
        """(features,) each input of the sample x (features,) as its autoencoder reconstructs it; changes nothing.

        RuntimeError in MAP.
        """
        nets, out = self._ready(), np.empty(self.config.features)
        for a in range(len(nets.visible)):
            v, h, s = int(nets.visible[a]), int(nets.hidden[a]), int(nets.start[a])
            own, w = nets.features[s : s + v], nets.w[a, :v, :h]
            low, width = nets.low[own], nets.high[own] - nets.low[own]
            inside = np.clip(np.nan_to_num((x[own] - low) / (width + TINY)), *self.config.clip)  # (v,)
            code = _sigmoid(inside @ w + nets.b_hidden[a, :h])  # (h,)
            out[own] = low + width * _sigmoid(w @ code + nets.b_visible[a, :v])
        return out

    def freeze(self) -> None:
        """End learning now, whatever the count; RuntimeError if nothing was learned to score with."""
        self._ready()
        if self.steps == 0:
            raise RuntimeError("cannot freeze: nothing was learned yet")
        self._phase = Phase.SCORE

    def state(self) -> State:
        """All that later scores depend on, as finite arrays; `from_state` continues from it to the last bit."""
        counters = [self.samples, self.learned, self.steps, self.skipped, self.out_of_range]
        state: State = {
            "phase": np.array([list(Phase).index(self._phase)], np.int64),
            "counters": np.array(counters, np.int64),
        }
        if self._nets is None:
            s = self._statistics
            return state | {
                "map_samples": np.array([s.samples], np.int64),
                "map_total": s.total.copy(),
                "map_squares": s.squares.copy(),
                "map_products": s.products.copy(),
            }
        for name, array in self._ready()._asdict().items():
            unset = name in _RANGES and self.steps == 0  # infinities: files hold finite values only
            state[name] = np.zeros_like(array) if unset else array.copy()
        return state

    @classmethod
    def from_state(cls, config: KitNETConfig, state: Mapping[str, NDArray[Any]]) -> KitNET:
        """The KitNET with this `state`; ValueError when it does not fit the config.

        Allocates no more than the state already holds, and checks every index from it.
        """
        number = int(_array(state, "phase", (1,))[0])
        counters = [int(value) for value in _array(state, "counters", (5,))]
        samples, learned, steps = counters[:3]
        if not 0 <= number < len(Phase) or min(counters) < 0:
            raise ValueError(f"state has phase {number} and counters {counters}, which do not fit")
        phase = list(Phase)[number]
        if phase is Phase.MAP:
            kitnet = cls._mapping(config, state)
            if samples >= config.map_samples:
                raise ValueError(f"state is in phase map after {samples} of {config.map_samples} samples")
        else:
            kitnet = cls._mapped(config, state, learned_from=steps > 0)
            if phase is Phase.LEARN and learned >= config.learn_samples:
                raise ValueError(f"state is in phase learn after {learned} of {config.learn_samples} samples")
        if kitnet._nets is not None and steps > 0:
            for low, high in (
                (kitnet._nets.low, kitnet._nets.high),
                (kitnet._nets.out_low, kitnet._nets.out_high),
            ):
                if not (low <= high).all():
                    raise ValueError("state has a range whose lower end is above its upper")
            if any(np.abs(w).max() > LARGEST_WEIGHT for w in (kitnet._nets.w, kitnet._nets.out_w)):
                raise ValueError(f"state has a weight beyond {LARGEST_WEIGHT:g}")
        kitnet._phase = phase
        kitnet.samples, kitnet.learned, kitnet.steps, kitnet.skipped, kitnet.out_of_range = counters
        return kitnet

    @classmethod
    def _mapping(cls, config: KitNETConfig, state: Mapping[str, NDArray[Any]]) -> KitNET:
        d = config.features
        statistics = CorrelationDistance(0)
        statistics.samples = int(_array(state, "map_samples", (1,))[0])
        statistics.total = _array(state, "map_total", (d,)).copy()
        statistics.squares = _array(state, "map_squares", (d,)).copy()
        statistics.products = _array(state, "map_products", (d, d)).copy()
        kitnet = cls(config)
        kitnet._statistics = statistics
        return kitnet

    @classmethod
    def _mapped(
        cls, config: KitNETConfig, state: Mapping[str, NDArray[Any]], *, learned_from: bool
    ) -> KitNET:
        features = [int(i) for i in _array(state, "features", (config.features,))]
        visible = [int(v) for v in state.get("visible", np.empty(0))]
        feature_map = _cut(features, visible)
        check_map(feature_map, config.features, config.max_cluster)
        k, widest = len(visible), max(visible)
        _array(state, "w", (k, widest, hidden_units(widest, config.hidden_ratio)))
        _array(state, "out_w", (k, hidden_units(k, config.hidden_ratio)))
        kitnet = cls(config, feature_map)
        for name, array in kitnet._ready()._asdict().items():
            value = _array(state, name, array.shape)
            if array.dtype.kind == "i" and not np.array_equal(value, array):
                raise ValueError(f"{name} of the state does not fit its feature map")
            if name not in _RANGES or learned_from:
                array[...] = value
        return kitnet

    def _rows(self, x: NDArray[Any]) -> NDArray[Any]:
        if x.ndim != 2 or x.shape[1] != self.config.features:
            raise ValueError(f"samples of shape {x.shape}, must be (n, {self.config.features})")
        if x.dtype not in (np.float64, np.float32):
            raise ValueError(f"samples of type {x.dtype}, must be float64 or float32")
        return np.ascontiguousarray(x)

    def _ready(self) -> Nets:
        if self._nets is None:
            raise RuntimeError(
                f"no feature map yet: {self.samples} of {self.config.map_samples} samples seen"
            )
        if self._packed is not None and self._stale:
            learning.unpack(self._packed, self._nets)
            self._stale = False
        return self._nets

    def _map(self, x: NDArray[Any]) -> None:
        self.skipped += self._statistics.update(np.asarray(x, np.float64))
        self.samples += len(x)
        if self.samples >= self.config.map_samples:
            self._start_learning(cluster(self._statistics.distance(), self.config.max_cluster))

    def _start_learning(self, feature_map: FeatureMap) -> None:
        check_map(feature_map, self.config.features, self.config.max_cluster)
        self.feature_map = feature_map
        self._nets = kernels.fresh_nets(feature_map, self.config.hidden_ratio, self.config.seed)
        self._phase = Phase.LEARN
        self._statistics = CorrelationDistance(0)

    def _score(self, x: NDArray[Any], out: Floats) -> int:
        if self._frozen is None:
            self._frozen = kernels.frozen_nets(self._ready(), self.config.precision, self.config.clip)
            self._scratch = kernels.make_scratch(self._frozen)
        with np.errstate(all="ignore"):
            return int(kernels.score(self._frozen, self._scratch, x, out))


_RANGES = ("low", "high", "out_low", "out_high")


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.maximum(x, -700.0))))


def _cut(features: list[int], sizes: list[int]) -> FeatureMap:
    ends = np.cumsum(sizes, dtype=np.int64)
    return tuple(tuple(features[int(e) - v : int(e)]) for v, e in zip(sizes, ends))


def _array(state: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in state:
        raise ValueError(f"state has no array {name!r}")
    if state[name].shape != shape:
        raise ValueError(f"{name} has shape {state[name].shape}, must be {shape}")
    return state[name]
