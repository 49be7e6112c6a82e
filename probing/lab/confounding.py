"""What the runs of a corpus can tell apart: labels that always go together, rare levels, and the least visible effect.

Runs are the units: connections of one run share its seed, hosts and moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

from probing.lab import catalog, labels
from probing.lab.settings import Run

ALPHA, POWER = 0.05, 0.8  # chance of naming a label without an effect, over all tests; of naming one with it
LARGEST_EFFECT = 50.0  # standard deviations; a greater effect is not looked for


class Level(NamedTuple):
    """A level of a label, the number of its runs, and the least effect that they can show."""

    label: str
    value: str
    runs: int
    effect: float | None  # difference of means, in standard deviations of runs; None: one run shows none


class Found(NamedTuple):
    """What the runs of an activity, or of a whole corpus, can tell apart."""

    name: str
    runs: int
    varying: list[str]  # labels with more than one level
    aliases: list[list[str]]  # labels that always go together
    least: Level | None  # level with the fewest runs


def labels_of(run: Run) -> dict[str, Any]:
    """The settings of a run as labels, and its parameters."""
    given = catalog.scenario(run.scenario)
    does = given.activities[run.activity]
    return {
        "scenario": run.scenario, "task": given.task, "activity": run.activity,
        "client_impl": run.client, "server_impl": run.server,
        "attack": int(does.attack), "attack_kind": does.attack_kind if does.attack else "none",
        **labels.link_labels(run.link), "load": run.load.name, "users": run.users, "group": run.group,
        "pause_s": run.pause_s, **run.parameters.model_dump(),
    }  # fmt: skip


def examine(runs: Sequence[Run]) -> list[Found]:
    """The whole corpus, then each activity of a scenario that has more than one run."""
    rows = [labels_of(run) for run in runs]
    by: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by.setdefault(f"{row['scenario']} {row['activity']}", []).append(row)
    return [_found("all", rows)] + [_found(name, own) for name, own in sorted(by.items()) if len(own) > 1]


def _found(name: str, rows: Sequence[Mapping[str, Any]]) -> Found:
    columns = {label: [_word(row[label]) for row in rows] for label in rows[0]}
    varying = [label for label, values in columns.items() if len(set(values)) > 1]
    sets: dict[tuple[int, ...], list[str]] = {}
    for label in varying:
        order = {value: k for k, value in enumerate(dict.fromkeys(columns[label]))}
        sets.setdefault(tuple(order[value] for value in columns[label]), []).append(label)
    counts = [(n, label, value) for label in varying for value, n in sorted(Counter(columns[label]).items())]
    least = None
    if counts:
        n, label, value = min(counts)
        least = Level(label, value, n, least_effect(n, len(rows) - n, len(counts)))
    return Found(name, len(rows), varying, [names for names in sets.values() if len(names) > 1], least)


def _word(value: Any) -> str:
    """A level as text; 5 and 5.0 are one."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def least_effect(few: int, others: int, tests: int = 1) -> float | None:
    """Difference of means, in standard deviations of runs, that a two-sided t-test names with POWER.

    few, others: numbers of runs with a level and without it. tests: number of such tests; ALPHA is divided by it
    (Bonferroni). None when they name none up to LARGEST_EFFECT.
    """
    freedom = few + others - 2
    if freedom < 1 or min(few, others) < 1:
        return None
    scale = np.sqrt(few * others / (few + others))
    bound = t.isf(ALPHA / tests / 2, freedom)

    def lacks(effect: float) -> float:
        return float(nct.sf(bound, freedom, effect * scale)) - POWER

    most = 1.0
    while lacks(most) < 0:
        most *= 2
        if most > LARGEST_EFFECT:
            return None
    return float(brentq(lacks, 0.0, most))


def as_dict(found: Found) -> dict[str, Any]:
    """For JSON."""
    return {**found._asdict(), "least": None if found.least is None else found.least._asdict()}


def told(found: Sequence[Found]) -> list[str]:
    """Lines of text for people."""
    lines = []
    for one in found:
        lines.append(f"{one.name}: {one.runs:,} runs, {len(one.varying)} labels vary")
        lines += [f"  always together: {', '.join(names)}" for names in one.aliases]
        if one.least is not None:
            level = one.least
            shows = (
                "too few to show any effect"
                if level.effect is None
                else f"can show {level.effect:.1f} standard deviations or more"
            )
            lines.append(f"  fewest runs: {level.runs} with {level.label} {level.value}: {shows}")
    return lines
