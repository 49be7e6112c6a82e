"""Which connections are learned from, validate, and calibrate; and how much there is of each type of traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from probing.corpus.columns import dictionary
from probing.corpus.divided import parts_of
from probing.corpus.labelled import Labelled
from probing.corpus.split import split
from probing.training.sequences import ATTACK, BENIGN, UNSURE, Sequences, truth

ROLES = ("train", "calibrate")  # parts of a corpus that are used; the others are for tests
LEAST_SHARE = 0.1  # of a type of traffic in training, below which a model may not learn it
MOST_WARNINGS = 5  # types of little traffic that are each named
GENERAL = "general traffic"


@dataclass(frozen=True)
class Parts:
    """Connections by what they are for."""

    fit: Sequences  # to learn from
    held_out: Sequences  # to validate with
    calibrate: Sequences  # benign ones for the threshold


def with_parts(known: Labelled) -> tuple[Labelled, str]:
    """Labels whose column ``part`` says the part of each connection, and where it comes from.

    Labels without parts are split as `wiresonde corpus check` does.
    """
    code, names, how = parts_of(known, None)
    column = pa.array([names[k] for k in code.tolist()], pa.string())
    at = known.labels.column_names.index("part")
    return replace(known, labels=known.labels.set_column(at, "part", column)), how


def divide(data: Sequences, held_out: float, seed: int) -> Parts:
    """The parts of sequences. Runs, and the twins of a pair, stay together.

    held_out: share of the training runs that validate. Unsure connections are left out. Raises InputError when a part
    lacks attacks or benign connections.
    """
    part, kind = np.array(data.labels.column("part").to_pylist(), str), truth(data.labels)
    train = data.chosen((part == "train") & (kind != UNSURE) & (data.lengths > 0))
    calibrate = data.chosen((part == "calibrate") & (kind == BENIGN) & (data.lengths > 0))
    if not len(train):
        found = ", ".join(sorted(set(part.tolist()))) or "none"
        raise InputError(f"no connection to learn from: none has part train; parts: {found}")
    if not len(calibrate):
        raise InputError(
            "no benign connection to calibrate with: give a corpus that has some with part calibrate"
        )
    masks = split(train.labels, {"fit": 1 - held_out, "held out": held_out}, seed)
    return Parts(train.chosen(masks["fit"]), train.chosen(masks["held out"]), calibrate)


def types_of(labels: pa.Table) -> NDArray[np.str_]:
    """(n,) type of traffic of each connection: general traffic, benign probes by activity, attacks by kind."""
    column = {
        name: labels.column(name).to_pylist() for name in ("scenario", "activity", "attack_kind", "general")
    }
    names = []
    for scenario, activity, kind, general, hit in zip(*column.values(), truth(labels).tolist()):
        own = GENERAL if general else f"probe: {scenario or 'benign'}/{activity or 'any'}"
        names.append(own if hit == BENIGN else f"attack: {kind}")
    return np.array(names, str)


def shares(data: Sequences) -> dict[str, float]:
    """Share of each type of traffic among connections, the greatest first."""
    names, counts = np.unique(types_of(data.labels), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[k]): float(counts[k] / counts.sum()) for k in order}


def counted(parts: Parts) -> dict[str, dict[str, int]]:
    """Runs, attacks and benign connections of each part."""
    return {name: _counts(part) for name, part in vars(parts).items()}


def _counts(part: Sequences) -> dict[str, int]:
    attack = truth(part.labels) == ATTACK
    runs: Any = np.unique(dictionary(part.labels.column("run"))[0]).size
    return {"runs": int(runs), "attacks": int(attack.sum()), "benign": int((~attack).sum())}


def warnings(given: dict[str, float]) -> Sequence[str]:
    """A line for each type of traffic of which there is little, or one for all of them where they are many."""
    few = {name: share for name, share in given.items() if share < LEAST_SHARE}
    if len(few) <= MOST_WARNINGS:
        return [
            f"only {share:.1%} of the connections to learn from are {name}: below {LEAST_SHARE:.0%}, a model may not "
            "learn it"
            for name, share in few.items()
        ]
    least = ", ".join(
        f"{name} {share:.1%}" for name, share in sorted(few.items(), key=lambda item: item[1])[:3]
    )
    return [
        f"{len(few)} types of traffic have each below {LEAST_SHARE:.0%} of the connections to learn from (the least: "
        f"{least}): a model may not learn them"
    ]
