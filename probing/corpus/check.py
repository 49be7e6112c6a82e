"""Whether a corpus is hard enough to learn from, or something trivial gives its attacks away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.types import Floats
from probing.corpus.aliases import CIRCUMSTANCES, alias_sets, telling
from probing.corpus.columns import Ints, dictionary
from probing.corpus.divided import MOST_COPIES, constant, copied, parts_of, torn
from probing.corpus.findings import Finding, Report
from probing.corpus.giveaways import Judgement, Sample, judge, too_few
from probing.corpus.labelled import Labelled
from probing.corpus.measures import measure, table

NOT_CHECKED = (
    "two columns together, payload, times between connections, and the order of connections are not checked"
)


@dataclass(frozen=True)
class Settings:
    """How a corpus is checked."""

    seed: int = 1
    most_copies: float = MOST_COPIES  # share of an activity's connections that may have a near-duplicate
    parts: Path | None = None  # CSV file with the part of each run


class _Known(NamedTuple):
    """Labels as arrays, a value a connection."""

    attack: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    family: NDArray[np.str_]  # attack_kind/activity of an attack, scenario/activity of a benign connection
    run: Ints
    server: Ints
    port: Ints


def check(known: Labelled, settings: Settings) -> Report:
    """All findings about labelled connections."""
    k = _arrays(known)
    names, values = table(measure(known.traffic, known.row, known.labels.num_rows))
    part, parts, how = parts_of(known, settings.parts)
    findings: list[Finding] = []
    for family in np.unique(k.family[k.attack]).tolist():
        findings += _of_attack(known, k, family, (names, values), settings.seed)
    sets = alias_sets(known.labels, [n for n in known.known if n not in ("run", "pair", "part", "succeeded")])
    findings += _of_aliases(sets)
    stuck, notes = constant(known, part, parts)
    findings += torn(known.labels, part, parts) + stuck + copied(known, part, k.family, settings.most_copies)
    return Report(
        known.name, known.labels.num_rows, int(np.unique(k.run).size), known.runs_are, how, tuple(findings),
        tuple(sets), tuple(notes + _notes(known, len(names))),
    )  # fmt: skip


def _arrays(known: Labelled) -> _Known:
    column = known.labels.column
    attack = np.array(column("attack").to_pylist(), np.int64) == 1
    failed = np.array([value is False for value in column("succeeded").to_pylist()], bool)
    kinds, scenarios, does = (column(n).to_pylist() for n in ("attack_kind", "scenario", "activity"))
    family = [f"{kind if hit else scenario or 'benign'}/{activity or 'any'}"
              for hit, kind, scenario, activity in zip(attack.tolist(), kinds, scenarios, does)]  # fmt: skip
    run, _ = dictionary(column("run"))
    return _Known(
        attack, attack & failed, np.array(family, str), run, _numbers(known.server), _numbers(known.port)
    )


def _numbers(texts: list[str]) -> Ints:
    return np.unique(np.array(texts, str), return_inverse=True)[1].ravel().astype(np.int64)


def _notes(known: Labelled, columns: int) -> list[str]:
    """Notes on what was and was not looked at."""
    notes = [f"{columns} columns were looked at; {NOT_CHECKED}"]
    if known.unlabelled:
        notes.append(f"{known.unlabelled:,} connections without a label are left out")
    if known.silent:
        notes.append(f"{known.silent:,} label rows without a packet are left out")
    attacks = known.labels.filter(pc.equal(known.labels.column("attack"), 1))
    if not attacks.num_rows:
        notes.append("there is no attack: giveaways and circumstances are not checked")
    elif attacks.column("succeeded").null_count == attacks.num_rows:
        notes.append("the labels do not say which attacks succeeded: all are judged")
    return notes


def _of_attack(
    known: Labelled, k: _Known, family: str, columns: tuple[list[str], Floats], seed: int
) -> Iterator[Finding]:
    """The findings about one kind of attack."""
    all_of = k.attack & (k.family == family)
    attack = all_of & ~k.failed
    runs = np.unique(k.run[all_of]).size
    says = "all its connections are of one run" if runs == 1 else f"in {runs} runs"
    yield Finding("single run", family, "fault" if runs == 1 else "passed", says, {"runs": int(runs)})
    counts: dict[str, int | str] = {"attacks": int(attack.sum()), "failed": int((all_of & k.failed).sum())}
    met = _neighbours(k, attack)
    counts |= {"compared": int(met.attack.sum()), "neighbours": int(met.benign.sum()), "of": met.level}
    chosen = met.attack | met.benign
    if not met.benign.any():
        why = "no attack succeeded" if not attack.any() else "no benign connection to the same server or port"
        yield Finding("giveaway", family, "too few to tell", why, counts)
        return
    sample = Sample(columns[1][:, chosen], met.attack[chosen], k.run[chosen], met.place[chosen])
    yield _giveaway(family, judge(columns[0], sample, seed), counts)
    if too_few(sample.attack, sample.run):
        return
    labels = known.labels.filter(chosen)
    tells = telling(labels, sample.attack, known.known)
    says = (
        f"{', '.join(tells)} alone tells it from its neighbours"
        if tells
        else "no circumstance alone tells it"
    )
    yield Finding("circumstance", family, "fault" if tells else "passed", says, {"labels": tells})


class _Met(NamedTuple):
    """An attack and its neighbours."""

    level: str  # kind of place where they meet
    place: Ints  # (connections,) place of each
    attack: NDArray[np.bool_]  # connections of the attack that have neighbours
    benign: NDArray[np.bool_]  # neighbours


def _neighbours(k: _Known, attack: NDArray[np.bool_]) -> _Met:
    """The narrowest kind of neighbours that are enough; else the narrowest that there are."""
    levels = []
    for level, place in (("the same server", k.server), ("the same port", k.port)):
        benign = ~k.attack & np.isin(place, place[attack])
        levels.append(_Met(level, place, attack & np.isin(place, place[benign]), benign))
    enough = [m for m in levels if not too_few(m.attack[m.attack | m.benign], k.run[m.attack | m.benign])]
    some = [m for m in levels if m.benign.any()]
    return (enough or some or levels)[0]


def _giveaway(family: str, j: Judgement, counts: dict[str, int | str]) -> Finding:
    values = counts | {
        "column": j.column,
        "auc": j.auc,
        "low": j.low,
        "chance": j.chance,
        "also": list(j.also),
    }
    if j.outcome == "too few to tell":
        return Finding("giveaway", family, "too few to tell", j.why, values)
    says = f"{j.column}: AUC {j.auc:.3f}, at least {j.low:.3f} on held-out runs"
    if j.outcome == "passed":
        return Finding("giveaway", family, "passed", f"best column {says}", values)
    also = f"; also {', '.join(j.also[:4])}{' …' if len(j.also) > 4 else ''}" if j.also else ""
    return Finding("giveaway", family, "fault", says + also, values)


def _of_aliases(sets: list[tuple[str, ...]]) -> list[Finding]:
    """A finding for each set of labels in which a circumstance goes with the attack."""
    found = [
        Finding("alias", "corpus", "fault", f"{' = '.join(names)}: the attack is told by its circumstance",
                {"labels": list(names)})
        for names in sets
        if {"attack", "attack_kind"} & set(names) and set(CIRCUMSTANCES) & set(names)
    ]  # fmt: skip
    return found or [Finding("alias", "corpus", "passed", "no circumstance always goes with the attack")]
