"""Scorers that learn nothing and whose results are known, to hold others against.

``chance`` draws a number for each packet. By packet its area is .5; by connection it shows what the number of packets
does alone, since a connection has the greatest score of its packets. ``merged`` gives 1 to packets with code 1 and 0 to
others: it finds whatever was merged in, attack or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.connections.tracker import Tracked
from engine.metrics import DEFAULT_BOUNDS
from engine.scoring.kind import Kind
from engine.scoring.kinds import KINDS
from engine.scoring.scorer import Events, PromptModel, ScorerConfig, State, prompt
from engine.types import Packets
from models.threshold import ThresholdConfig


@dataclass(frozen=True)
class PlainSection:
    """A model without values of its own."""

    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)


class Known(PromptModel):
    """A scorer that needs to learn nothing."""

    phase = "score"

    def __init__(self, name: str) -> None:
        self.identity: Sequence[Any] = [name]

    def step(self, p: Packets, t: Tracked, x: Any) -> Events:  # noqa: ARG002
        """A score for each packet."""
        if self.identity == ["merged"]:
            return prompt(p, t, (p.probe == 1).astype(float))
        number = (t.number + np.arange(p.ts.size)).astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)
        return prompt(p, t, ((number ^ (number >> np.uint64(29))) >> np.uint64(11)) / 2.0**53)

    def state(self) -> State:
        """Nothing."""
        return {}, {}

    def restore(self, state: State) -> None:
        """Continue from nothing."""

    def counters(self) -> Mapping[str, int]:
        """No counts."""
        return {}


def _kind(name: str) -> Kind:
    def learning(section: PlainSection, n: int) -> PlainSection:
        return replace(section, scorer=replace(section.scorer, calibrate_packets=n))

    return KINDS["baseline"]._replace(
        name=name,
        section=PlainSection,
        fresh=lambda section, slots: Known(name),  # noqa: ARG005
        features=lambda section: None,  # noqa: ARG005
        learning=learning,
        learns=lambda section: 0,  # noqa: ARG005
        start=lambda section: None,  # noqa: ARG005
        layouts={},
        bounds=DEFAULT_BOUNDS,
    )


ALL: Mapping[str, Kind] = {**KINDS, "merged": _kind("merged"), "chance": _kind("chance")}
