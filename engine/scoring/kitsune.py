"""Kitsune: AfterImage features, KitNET over them (Mirsky et al., NDSS'18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.features.afterimage import AfterImageConfig, feature_names
from engine.features.streams import FLOW, KEY
from engine.metrics import DEFAULT_BOUNDS
from engine.scoring.kind import Kind, Moved, moved
from engine.scoring.passes import afterimage, check_columns, check_lambdas, features_packed, learned_with
from engine.scoring.scorer import Events, PromptModel, ScorerConfig, State, prompt
from engine.scoring.start import StartConfig
from engine.types import KIND_MASK, Floats, Packets
from engine.types import Kind as Layer
from models.bundle import Bundle, BundleError, require
from models.kitnet.kitnet import KitNET, KitNETConfig, Phase
from models.threshold import ThresholdConfig


@dataclass(frozen=True)
class KitsuneSection:
    """Kitsune: AfterImage features, KitNET, and the threshold of its scores."""

    features: AfterImageConfig = field(default_factory=AfterImageConfig)
    kitnet: KitNETConfig = field(default_factory=KitNETConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    start: StartConfig = field(default_factory=StartConfig)

    def __post_init__(self) -> None:
        if self.kitnet.map_samples < 1:
            raise ValueError("kitnet.map_samples 0: the feature map needs at least 1 packet")
        check_columns("kitnet.features", self.kitnet.features, self.features)


class Kitsune(PromptModel):
    """KitNET over the packets of one partition."""

    def __init__(self, features: AfterImageConfig, kitnet: KitNET) -> None:
        self.features, self.kitnet = features, kitnet

    @property
    def phase(self) -> str:
        """map, learn or score."""
        return str(self.kitnet.phase.value)

    @property
    def identity(self) -> Sequence[Any]:
        """Both configurations; what was learned shows in the threshold."""
        return [asdict(self.features), asdict(self.kitnet.config)]

    def step(self, p: Packets, t: Tracked, x: Floats) -> Events:
        """A score for each packet; NaN during learning, and for packets whose headers could not be read."""
        unread = (p.kind & KIND_MASK) == Layer.UNREAD
        if not unread.any():
            return prompt(p, t, self._samples(x))
        out = np.full(p.ts.size, np.nan)
        out[~unread] = self._samples(np.ascontiguousarray(x[~unread]))
        return prompt(p, t, out)

    def _samples(self, x: Floats) -> Floats:
        config, learning = self.kitnet.config, self.kitnet.phase is not Phase.SCORE
        first = max(0, config.map_samples + config.learn_samples - self.kitnet.samples) if learning else 0
        scores = self.kitnet.process(x)
        scores[:first] = np.nan  # rows of the learning phase: their scores are still falling
        return scores

    def state(self) -> State:
        """A copy of the model."""
        return self.kitnet.state(), {}

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``."""
        self.kitnet = KitNET.from_state(self.kitnet.config, state[0])

    def counters(self) -> Mapping[str, int]:
        """Numbers of samples taken, of inputs outside the learned range, and of inputs in scoring."""
        scored = max(0, self.kitnet.samples - self.kitnet.config.map_samples - self.kitnet.learned)
        return {
            "samples": self.kitnet.samples,
            "out_of_range": self.kitnet.out_of_range,
            "inputs": scored * self.kitnet.config.features,
        }


def _fresh(section: KitsuneSection, slots: int) -> Kitsune:  # noqa: ARG001 -- keeps nothing by slot
    return Kitsune(section.features, KitNET(section.kitnet))


def _load(bundle: Bundle, section: KitsuneSection, slots: int) -> Kitsune:  # noqa: ARG001
    check_lambdas(bundle, section.features)
    kitnet = kitnet_of(bundle)
    if kitnet.phase is not Phase.SCORE:
        raise BundleError(
            f"{bundle.path}: its model has not finished learning (phase {kitnet.phase.value}): train it again"
        )
    return Kitsune(section.features, kitnet)


def kitnet_of(bundle: Bundle) -> KitNET:
    """The KitNET of a bundle, bit for bit as it was saved. Raises BundleError if it does not fit this build."""
    try:
        values = dict(bundle.config["kitnet"])
        kitnet = KitNET.from_state(KitNETConfig(**{**values, "clip": tuple(values["clip"])}), bundle.arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleError(f"{bundle.path}: not a KitNET of this build: {error}") from error
    require(bundle, {name: (array.shape, array.dtype.name) for name, array in kitnet.state().items()})
    return kitnet


def _pack(model: Kitsune) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    config = {"kitnet": asdict(model.kitnet.config), "features": features_packed(model.features)}
    return model.kitnet.state(), config


def _small(section: KitsuneSection) -> KitsuneSection:
    return replace(
        section,
        features=replace(section.features, flows=1024),
        start=section.start.brief(),
        kitnet=replace(section.kitnet, map_samples=50, learn_samples=50),
        scorer=replace(section.scorer, calibrate_packets=50),
    )


def _learning(section: KitsuneSection, n: int) -> KitsuneSection:
    first, learned = n // 10, n * 7 // 10
    return replace(
        section,
        kitnet=replace(section.kitnet, map_samples=first, learn_samples=learned),
        scorer=replace(section.scorer, calibrate_packets=n - first - learned),
    )


def _explain(model: Kitsune, x: Floats) -> list[Moved]:
    names = feature_names(model.features.lambdas)
    return moved(model.kitnet.score, x, model.kitnet.expected(x), names)


KIND = Kind(
    name="kitsune",
    section=KitsuneSection,
    fresh=_fresh,
    load=_load,
    pack=_pack,
    features=lambda section: afterimage(section.features),
    small=_small,
    learning=_learning,
    learns=lambda section: section.kitnet.map_samples + section.kitnet.learn_samples,
    layouts={"flow": FLOW, "key": KEY},
    bounds=DEFAULT_BOUNDS,
    explain=_explain,
    adapt=lambda bundle, section: replace(section, features=learned_with(bundle, section.features)),
    start=lambda section: section.start,
)
