"""The baseline: AfterImage features, and how far the oddest single feature lies in its learned tail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.features.afterimage import AfterImageConfig, feature_names
from engine.features.streams import FLOW, KEY
from engine.scoring.kind import Kind, Moved, moved
from engine.scoring.passes import afterimage, check_columns, check_lambdas, features_packed, learned_with
from engine.scoring.scorer import Events, PromptModel, ScorerConfig, State, prompt
from engine.scoring.start import StartConfig
from engine.types import KIND_MASK, Floats, Packets
from engine.types import Kind as Layer
from models.baseline import Baseline, BaselineConfig
from models.bundle import Bundle, BundleError, require
from models.threshold import ThresholdConfig


@dataclass(frozen=True)
class BaselineSection:
    """The trivial detector that others must beat: the oddest single feature of a packet."""

    features: AfterImageConfig = field(default_factory=AfterImageConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    start: StartConfig = field(default_factory=StartConfig)

    def __post_init__(self) -> None:
        check_columns("baseline.features", self.baseline.features, self.features)


class BaselineModel(PromptModel):
    """The baseline over the packets of one partition."""

    def __init__(self, features: AfterImageConfig, baseline: Baseline) -> None:
        self.features, self.baseline = features, baseline

    @property
    def phase(self) -> str:
        """learn or score."""
        return "learn" if self.baseline.learning else "score"

    @property
    def identity(self) -> Sequence[Any]:
        """Both configurations; what was learned shows in the threshold."""
        return ["baseline", asdict(self.features), asdict(self.baseline.config)]

    def step(self, p: Packets, t: Tracked, x: Floats) -> Events:
        """A score for each packet; NaN during learning, and for packets whose headers could not be read."""
        out, read = np.full(p.ts.size, np.nan), (p.kind & KIND_MASK) != Layer.UNREAD
        out[read] = self.baseline.process(x if read.all() else np.ascontiguousarray(x[read]))
        return prompt(p, t, out)

    def state(self) -> State:
        """A copy of the model."""
        return self.baseline.state(), {}

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``."""
        self.baseline = Baseline.from_state(self.baseline.config, state[0])

    def counters(self) -> Mapping[str, int]:
        """Numbers of samples taken, of inputs outside the learned range, and of inputs in scoring."""
        config = self.baseline.config
        known = self.baseline.high[0] < np.finfo(np.float64).max  # not in bundles of an earlier version
        scored = max(0, self.baseline.samples - config.learn_samples) if known else 0
        return {
            "samples": self.baseline.samples,
            "out_of_range": self.baseline.out_of_range,
            "inputs": scored * config.features,
        }


def _load(bundle: Bundle, section: BaselineSection, slots: int) -> BaselineModel:  # noqa: ARG001
    check_lambdas(bundle, section.features)
    bundle = _with_range(bundle)
    baseline = Baseline.from_state(BaselineConfig(**bundle.config["baseline"]), bundle.arrays)
    check_columns("baseline.features", baseline.config.features, section.features)
    if baseline.learning:
        raise BundleError(f"{bundle.path}: its model has not finished learning: train it again")
    require(bundle, {name: (array.shape, array.dtype.name) for name, array in baseline.state().items()})
    return BaselineModel(section.features, baseline)


def _with_range(bundle: Bundle) -> Bundle:
    """A bundle of an earlier version with a range that holds everything: it did not save the learned one."""
    arrays = bundle.arrays
    if "low" in arrays or "high" in arrays or "middle" not in arrays or arrays["counts"].size != 1:
        return bundle
    widest = np.full_like(arrays["middle"], np.finfo(np.float64).max)
    counts = np.append(arrays["counts"], 0)
    return replace(bundle, arrays={**arrays, "counts": counts, "low": -widest, "high": widest})


def _pack(model: BaselineModel) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    config = {
        "baseline": asdict(model.baseline.config), "features": features_packed(model.features),
    }  # fmt: skip
    return model.baseline.state(), config


def _learning(section: BaselineSection, n: int) -> BaselineSection:
    learned = n // 10 + n * 7 // 10  # as many as Kitsune maps and learns from
    return replace(
        section,
        baseline=replace(section.baseline, learn_samples=learned),
        scorer=replace(section.scorer, calibrate_packets=n - learned),
    )


def _small(section: BaselineSection) -> BaselineSection:
    small = replace(section, features=replace(section.features, flows=1024))
    return _learning(replace(small, start=section.start.brief()), 150)


def _explain(model: BaselineModel, x: Floats) -> list[Moved]:
    return moved(model.baseline.score, x, model.baseline.middle, feature_names(model.features.lambdas))


KIND = Kind(
    name="baseline",
    section=BaselineSection,
    fresh=lambda section, slots: BaselineModel(section.features, Baseline(section.baseline)),  # noqa: ARG005
    load=_load,
    pack=_pack,
    features=lambda section: afterimage(section.features),
    small=_small,
    learning=_learning,
    learns=lambda section: section.baseline.learn_samples,
    layouts={"flow": FLOW, "key": KEY},
    bounds=tuple(float(b) for b in np.round(np.geomspace(0.1, 10_000.0, 26), 6)),
    explain=_explain,
    adapt=lambda bundle, section: replace(section, features=learned_with(bundle, section.features)),
    start=lambda section: section.start,
)
