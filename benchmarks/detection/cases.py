"""The evaluations. Each gives rows: dicts that say what was compared, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.features import NAME, Choices, choose, with_feature
from benchmarks.detection.parts import LEVELS, Cut, Part, alarmed, cut, joined, part_of, row
from benchmarks.detection.scoring import Scored, Trained, score, train
from benchmarks.detection.sources import Corpus, Source
from benchmarks.detection.streams import SECOND, after, coded, merged, part, paused
from benchmarks.detection.variants import Variant
from engine.types import Packets, concatenate, take
from probing.analysis.roc import Bootstrap

Row = dict[str, Any]
LEARNED = 0.7  # share of a benign capture that is learned from; the rest is scored
PAUSES = (0, 60, 300, 900, 3600, 86_400)  # seconds
VALIDATED = 0.25  # share of the attack phase that serves to choose the single feature


@dataclass(frozen=True)
class Bench:
    """What is compared, and how often."""

    variants: Sequence[Variant]
    seeds: Sequence[int]
    how: Bootstrap = field(default_factory=Bootstrap)
    feature: bool = True  # whether the best single feature is among the detectors

    def trained(self, p: Packets) -> Trained:
        """All variants, learned from p."""
        return train(p, self.variants, self.seeds)


@dataclass(frozen=True)
class Base:
    """A benign capture, cut into what is learned and what is scored, and the models of the first."""

    name: str
    trained: Trained
    rest: Packets

    @classmethod
    def of(cls, name: str, p: Packets, bench: Bench) -> Base:
        """Cut a capture and learn from its first part."""
        p = coded(p, 0)
        return cls(name, bench.trained(part(p, 0, LEARNED)), part(p, LEARNED, 1))

    @property
    def last_learned(self) -> tuple[Packets, Packets]:
        """The learned packets before those that give the threshold, and these: the place to choose a feature in."""
        return part(self.trained.packets, 0, 0.8), part(self.trained.packets, 0.8, 1)


# --- within the attack capture


def infected_codes(p: Packets, host: int) -> NDArray[np.uint32]:
    """1 for packets that a host sent, 2 for those sent to it, 3 for all others."""
    own = np.uint64(host)
    sent = (p.src_lo == own) & (p.src_hi == 0)
    got = (p.dst_lo == own) & (p.dst_hi == 0)
    return np.where(sent, 1, np.where(got, 2, 3)).astype(np.uint32)


WITHIN = {  # what is compared: positives, negatives. 0: benign phase; 1, 2, 3: the attack phase, see infected_codes
    "infected host against others at the time": (Cut(frozenset([1]), frozenset([1, 2])), cut(3)),
    "phase label: all in the attack phase against all before": (cut(1, 2, 3), cut(0)),
    "ordinary devices in the attack phase against all before": (cut(3), cut(0)),
}
EARLY = 9  # code of packets of the attack phase that serve to choose the feature


def within(bench: Bench, base: Base, attack: Packets, host: int) -> Iterator[Row]:
    """An infected host against other devices in the same time, beside what the phase label says."""
    codes = infected_codes(attack, host)
    first = round(VALIDATED * attack.ts.size)
    choices = None
    if bench.feature:
        before, last = base.last_learned
        early = coded(take(attack, slice(0, first)), np.array([2, 1, 2, 0])[codes[:first]])
        choices = choose(base.trained, before, [concatenate([last, coded(base.rest, 2), early])])
    codes[:first] = EARLY
    scored = _scored(base.trained, concatenate([base.rest, coded(attack, codes)]), choices)
    for name in scored.scores:
        for against, (positive, negative) in WITHIN.items():
            for level in LEVELS:
                those, others = (part_of(scored, name, level, chosen) for chosen in (positive, negative))
                said = {"base": base.name, "against": against, "level": level, "detector": name}
                yield said | _chosen(name, level, choices) | row(those, others, bench.how, level)


def _scored(trained: Trained, p: Packets, choices: Choices | None) -> Scored:
    scored = score(trained, p)
    return scored if choices is None else with_feature(trained, scored, choices)


def _chosen(name: str, level: Any, choices: Choices | None) -> Row:
    return {"feature": choices[level].text} if choices is not None and name == NAME else {}


# --- attacks and controls merged into a base

Merging = Mapping[Source, Packets]


def merging(bench: Bench, base: Base, sources: Merging, validation: Merging) -> Iterator[Row]:
    """Attacks and controls, merged in the same way, against the base's own traffic and against each other."""
    choices = _choice(base, validation) if bench.feature else None
    alone = _scored(base.trained, base.rest, choices)
    streams = {source: _scored(base.trained, _merged(base.rest, p), choices) for source, p in sources.items()}
    for name in alone.scores:
        for level in LEVELS:
            own = part_of(alone, name, level, cut(0))
            parts = {source: part_of(scored, name, level, cut(1)) for source, scored in streams.items()}
            said = {"base": base.name, "level": level, "detector": name} | _chosen(name, level, choices)
            for what, positive, negative in _compared(own, parts, each=level == "connections"):
                yield said | what | row(positive, negative, bench.how, level)


def _merged(base: Packets, p: Packets) -> Packets:
    """Traffic merged into a base from a tenth of its time on."""
    return merged(base, p, int(base.ts[0]) + int(base.ts.max() - base.ts[0]) // 10, 1)


def _choice(base: Base, validation: Merging) -> Choices | None:
    if not validation:
        return None
    before, last = base.last_learned
    return choose(base.trained, before, [_merged(last, p) for p in validation.values()])


def _compared(own: Part, parts: Mapping[Source, Part], *, each: bool) -> Iterator[tuple[Row, Part, Part]]:
    """Rows of each source if wanted, then of all attacks and all controls."""
    attacks = {source: given for source, given in parts.items() if not source.control and given.size}
    controls = {source: given for source, given in parts.items() if source.control and given.size}
    named = [(source.name, source.kind, given) for source, given in parts.items()] if each else []
    for name, group, kind in (("all attacks", attacks, "attack"), ("all controls", controls, "benign")):
        if group:
            named.append((name, kind, joined(list(group.values()))))
    others = joined(list(controls.values())) if controls else None
    for name, kind, given in named:
        yield {"source": name, "kind": kind, "against": "base"}, given, own
        if kind != "benign" and others is not None:
            yield {"source": name, "kind": kind, "against": "controls"}, given, others


# --- our corpora


def corpus(bench: Bench, trained: Trained, name: str, test: Corpus, other: Corpus) -> Iterator[Row]:
    """Attacks of a corpus against its benign connections. other: a corpus to choose the single feature on."""
    choices = None
    if bench.feature:
        attack = other.codes("attack", 1)
        codes = np.where(np.isin(other.packets.probe, list(attack)), 1, 0) + 2 * (other.packets.probe == 0)
        choices = choose(trained, trained.packets, [after(coded(other.packets, codes), trained.packets)])
    scored = _scored(trained, after(test.packets, trained.packets), choices)
    benign, runs = Cut(test.codes("attack", 0)), test.runs
    activities = sorted(set(zip(test.labels["attack_kind"].to_pylist(), test.labels["activity"].to_pylist())))
    for detector in scored.scores:
        for level in LEVELS:
            said = {"corpus": name, "level": level, "detector": detector} | _chosen(detector, level, choices)
            negative = part_of(scored, detector, level, benign, runs)
            positive = part_of(scored, detector, level, Cut(test.codes("attack", 1)), runs)
            yield said | {"kind": "attack", "activity": "all"} | row(positive, negative, bench.how, level)
            for kind, activity in activities if level == "connections" else ():
                chosen = test.codes("attack_kind", kind) & test.codes("activity", activity)
                if kind != "none":
                    positive = part_of(scored, detector, level, Cut(chosen), runs)
                    yield (
                        said
                        | {"kind": kind, "activity": activity}
                        | row(positive, negative, bench.how, level)
                    )


# --- benign traffic alone, and with a pause


def pauses(bench: Bench, base: Base, seconds: Sequence[int] = PAUSES) -> Iterator[Row]:
    """Alarms on benign traffic, with a pause halfway; 0 is none."""
    middle = base.rest.ts.size // 2
    for pause in seconds:
        scored = score(base.trained, paused(base.rest, middle, pause * SECOND))
        for name in scored.scores:
            given = part_of(scored, name, "connections", cut(0))
            given = replace(given, hours=given.hours - pause / 3600)  # of traffic
            asked = _asked(base.trained, name)
            said = {"base": base.name, "pause": pause, "detector": name, "asked": asked}
            yield said | {"enough": _enough(base.trained, name)} | alarmed(given, bench.how)


def _asked(trained: Trained, name: str) -> float:
    return float(trained.specs[name][0].section.threshold.false_positive_rate)


def _enough(trained: Trained, name: str) -> bool:
    """Whether the connections that gave the threshold were as many as the rate needs."""
    return bool(trained.sufficient[name])
