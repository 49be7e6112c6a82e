"""The best single feature: which of AfterImage's columns, and which end of it, tells attacks apart by itself.

It is chosen with labels, which no detector has, on traffic and attacks that are not those of the test: a detector that
does worse than one well-chosen number is not worth its cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.parts import LEVELS, Level
from benchmarks.detection.scoring import (
    TRACKER,
    Scored,
    Scores,
    Trained,
    Watcher,
    blocks,
    columns,
    greatest,
    quantile_of,
)
from benchmarks.detection.variants import Variant
from engine.features.afterimage import FEATURES, AfterImage, AfterImageConfig
from engine.scoring.building import build_detector
from engine.types import Floats, Packets, Rows, concatenate, join_rows
from probing.analysis.roc import area

NAME = "best single feature"
CALIBRATING = 0.2  # share of the learned packets, the last, whose connections give the threshold

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A feature and the sign that makes attacks the greater ones."""

    column: int
    sign: float
    area: float  # on what it was chosen on

    @property
    def text(self) -> str:
        """Its name, and whether attacks have little or much of it."""
        return f"{FEATURES[self.column]} {'high' if self.sign > 0 else 'low'}"


Choices = Mapping[Level, Choice]


def connections_of(p: Packets) -> tuple[Ints, Rows]:
    """(n,) index of each packet's connection, -1 for none; and the connections' rows."""
    watcher = Watcher([], p.ts.size, 0)
    # copies too: a man in the middle forwards packets, which then look like copies of a mirror
    detector = build_detector(0, replace(TRACKER, copies="keep"), [], watcher)
    for block in blocks(p):
        detector.process(block)
    detector.flush()
    order = np.concatenate([index for index, _ in watcher.ended])
    rows = join_rows([rows for _, rows in watcher.ended])
    out = np.empty_like(rows)
    out[order] = rows
    return watcher.connection, out


def values(config: AfterImageConfig, before: Packets, p: Packets) -> Floats:
    """(n, 100) features of p after other packets."""
    features = AfterImage(config)
    features.update(before)
    return features.update(p)


def choose(trained: Trained, before: Packets, parts: Sequence[Packets]) -> Choices:
    """The best feature for packets and for connections, with the settings of the first model that has features.

    parts: each follows ``before``; code 1 positive, 0 negative, others are left out.
    """
    config = _features_of(trained)[1]
    scores: dict[Level, list[Floats]] = {level: [] for level in LEVELS}
    codes: dict[Level, list[NDArray[np.uint32]]] = {level: [] for level in LEVELS}
    for p in parts:
        x = values(config, before, p).T
        of, rows = connections_of(p)
        high, low = (greatest(s * x, of, rows.size) for s in (1.0, -1.0))
        scores["packets"].append(np.concatenate([x, -x]))
        scores["connections"].append(np.concatenate([high, low]))
        codes["packets"].append(p.probe)
        codes["connections"].append(rows["probe"])
    return {
        level: _best(np.concatenate(scores[level], axis=1), np.concatenate(codes[level])) for level in LEVELS
    }


def _best(scores: Floats, codes: NDArray[np.uint32]) -> Choice:
    """scores: (200, n) columns, then columns with the other sign."""
    kept = (codes <= 1) & np.isfinite(scores).all(axis=0)
    scores, positive = scores[:, kept], codes[kept] == 1
    areas = [area(row, positive) for row in scores]
    best = int(np.argmax(areas))
    return Choice(best % len(FEATURES), 1.0 if best < len(FEATURES) else -1.0, areas[best])


def _features_of(trained: Trained) -> tuple[Variant, AfterImageConfig]:
    """The first variant that has features, and their settings."""
    for variant in trained.variants:
        spec = trained.specs[variant.name][0]
        features = spec.kind.features(spec.section)
        if features is not None:
            return variant, features.config
    raise ValueError("no variant has features")


def with_feature(trained: Trained, scored: Scored, choices: Choices) -> Scored:
    """A scored stream, with the chosen features as one more variant."""
    return replace(scored, scores={**scored.scores, NAME: scores_of(trained, scored, choices)})


def scores_of(trained: Trained, scored: Scored, choices: Choices) -> Scores:
    """A scored stream's packets and connections by the chosen features, after what the models learned from."""
    variant, config = _features_of(trained)
    x = columns(trained, variant, scored.packets).T
    by_packet, by_connection = choices["packets"], choices["connections"]
    one = by_connection.sign * x[by_connection.column : by_connection.column + 1]
    return Scores(
        by_packet.sign * x[by_packet.column : by_packet.column + 1],
        greatest(one, scored.of, scored.rows.size),
        np.array([_threshold(config, trained.packets, by_connection)]),
    )


def _threshold(config: AfterImageConfig, learned: Packets, choice: Choice) -> float:
    """The threshold for connections of the last of the learned packets, as a detector calibrates."""
    first = round((1 - CALIBRATING) * learned.ts.size)
    x = choice.sign * values(config, concatenate([]), learned)[:, choice.column]
    x[:first] = np.nan
    of, rows = connections_of(learned)
    return quantile_of(greatest(x[None], of, rows.size)[0])
