"""Kinds of model that only tests have: one that holds packets back, one that scores nothing but ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.tracker import Tracked
from engine.metrics import DEFAULT_BOUNDS
from engine.scoring.kind import Kind, Moved, moved
from engine.scoring.scorer import NO_EVENTS, Ended, Events, ScorerConfig, State
from engine.types import Floats, Packets
from models.bundle import Bundle
from models.threshold import ThresholdConfig

SECOND = 10**9


@dataclass(frozen=True)
class PlainSection:
    """A model without values of its own."""

    threshold: ThresholdConfig = field(default_factory=lambda: ThresholdConfig(false_positive_rate=0.2))
    scorer: ScorerConfig = field(default_factory=lambda: ScorerConfig(calibrate_packets=60))


class Delaying:
    """Scores a packet by its size when the next one of its connection comes, or a second of event time later."""

    phase = "score"
    identity: Sequence[Any] = ["delaying"]
    delays, scores_packets = True, True

    def __init__(self) -> None:
        self.now = -(2**62)
        self.held: dict[int, tuple[int, int, float]] = {}  # slot -> time, number, score; in order of time

    def step(self, p: Packets, t: Tracked, x: Any) -> Events:
        assert x is None
        gone: list[tuple[int, int, int, float, int]] = []
        for i in range(p.ts.size):
            self.now = max(self.now, int(p.ts[i]))
            self._expire(self.now, i, gone)
            slot = int(t.slot[i])
            if slot in self.held:
                gone.append((slot, *self.held.pop(slot), i))
            if slot >= 0:
                self.held[slot] = int(p.ts[i]), t.number + i, float(p.size[i])
        return _events(gone)

    def _expire(self, now: int, at: int, gone: list[tuple[int, int, int, float, int]]) -> None:
        for slot in [s for s, (ts, _, _) in self.held.items() if ts <= now - SECOND]:
            gone.append((slot, *self.held.pop(slot), at))

    def tick(self, now: int, x: Any) -> Events:  # noqa: ARG002
        gone: list[tuple[int, int, int, float, int]] = []
        self.now = max(self.now, now)
        self._expire(self.now, 0, gone)
        return _events(gone)

    def close(self, ended: Ended, x: Any) -> tuple[Events, None]:  # noqa: ARG002
        return _events([(s, *self.held.pop(s), 0) for s in ended.slot.tolist() if s in self.held]), None

    def state(self) -> State:
        slots = np.array(list(self.held), np.int64)
        held = np.array([[ts, n] for ts, n, _ in self.held.values()], np.int64).reshape(-1, 2)
        return {"slots": slots, "held": held, "scores": np.array([s for *_, s in self.held.values()])}, {
            "now": self.now
        }

    def restore(self, state: State) -> None:
        arrays, values = state
        self.now = values["now"]
        rows = zip(*(arrays[name].tolist() for name in ("slots", "held", "scores")))
        self.held = {slot: (ts, n, score) for slot, (ts, n), score in rows}

    def counters(self) -> Mapping[str, int]:
        return {}


def _events(gone: list[tuple[int, int, int, float, int]]) -> Events:
    if not gone:
        return NO_EVENTS
    slot, ts, number, score, at = zip(*gone)
    return Events(
        np.array(slot, np.int32), np.array(ts, np.int64), np.array(number, np.int64), np.array(score, float),
        np.array(at, np.int64),
    )  # fmt: skip


class Ends:
    """Scores connections by their packets, when they end; no packet has a score."""

    phase = "score"
    identity: Sequence[Any] = ["ends"]
    delays, scores_packets = False, False

    def step(self, p: Packets, t: Tracked, x: Any) -> Events:  # noqa: ARG002
        return NO_EVENTS

    def tick(self, now: int, x: Any) -> Events:  # noqa: ARG002
        return NO_EVENTS

    def close(self, ended: Ended, x: Any) -> tuple[Events, Floats]:  # noqa: ARG002
        return NO_EVENTS, ended.sides["packets"].sum(axis=1).astype(float)

    def state(self) -> State:
        return {}, {}

    def restore(self, state: State) -> None:
        assert state == ({}, {})

    def counters(self) -> Mapping[str, int]:
        return {}


def _kind(name: str, model: type[Any]) -> Kind:
    def load(bundle: Bundle, section: Any, slots: int) -> Any:  # noqa: ARG001
        if bundle.config["name"] != name:
            raise ValueError(f"name {bundle.config['name']!r} is not {name}")
        return model()

    def pack(_: Any) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
        return {}, {"name": name}

    def explain(_: Any, x: Floats) -> list[Moved]:
        return moved(lambda rows: rows.sum(axis=1), x, np.zeros_like(x), [f"x{i}" for i in range(x.size)])

    return Kind(
        name=name,
        section=PlainSection,
        fresh=lambda section, slots: model(),  # noqa: ARG005
        load=load,
        pack=pack,
        features=lambda section: None,  # noqa: ARG005
        small=lambda section: section,
        learning=lambda section, n: replace(section, scorer=replace(section.scorer, calibrate_packets=n)),
        learns=lambda section: 0,  # noqa: ARG005
        layouts={},
        bounds=DEFAULT_BOUNDS,
        explain=explain,
    )


DELAYING, ENDS = _kind("delaying", Delaying), _kind("ends", Ends)
