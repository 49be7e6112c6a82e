"""Scored packets or connections of one class, and the rows of the table that two of them make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection.scoring import Scored
from engine.types import KIND_MASK, Floats, Kind, Packets, Rows
from probing.analysis.roc import Bootstrap, Estimate, Sample, above, measures

Ints = NDArray[np.int64]
Level = Literal["packets", "connections"]
LEVELS: tuple[Level, ...] = ("packets", "connections")

RATES = (1e-2, 1e-3, 1e-4)  # rates of false positives in the table
MANY = 10  # fewest host pairs or runs to resample; with fewer, connections are
SHORTEST = 1 / 60  # hours of traffic that false alarms an hour need
DASH = "–"


@dataclass(frozen=True)
class Part:
    """Scores of n packets or connections by m models of one variant.

    unit: (n,) host pair or run. own: (n,) connection, so far as there is one. hours: of event time that they span.
    """

    scores: Floats  # (m, n)
    thresholds: Floats  # (m,)
    unit: Ints
    own: Ints
    hours: float
    units: str = "host pairs"

    @property
    def size(self) -> int:
        """Number of packets or connections."""
        return int(self.unit.size)


@dataclass(frozen=True)
class Cut:
    """Packets and connections of a scored stream by their codes: those of one class."""

    packets: frozenset[int]
    connections: frozenset[int] | None = None  # codes of connections; None: the same

    def of(self, level: Level) -> frozenset[int]:
        """Codes at a level."""
        return self.packets if level == "packets" or self.connections is None else self.connections


def cut(*codes: int) -> Cut:
    """Packets and connections with any of these codes."""
    return Cut(frozenset(codes))


def part_of(scored: Scored, name: str, level: Level, chosen: Cut, runs: Ints | None = None) -> Part:
    """Packets or connections of some codes, as a variant scored them. runs: run of each code; None: host pairs."""
    scores, p = scored.scores[name], scored.packets
    probe = p.probe if level == "packets" else scored.rows["probe"]
    mask = np.isin(probe, list(chosen.of(level)))
    at = np.flatnonzero(mask)
    own = np.where(scored.of >= 0, scored.of, -1 - np.arange(scored.of.size))
    if level == "packets":
        pair, own, values = pairs_of_packets(p)[at], own[at], scores.packet[:, at]
    else:
        pair, own, values = pairs_of_rows(scored.rows)[at], at, scores.connection[:, at]
    times = p.ts[np.isin(p.probe, list(chosen.packets))]
    span = float(times.max() - times.min()) / 3.6e12 if times.size else 0.0
    unit = pair if runs is None else runs[probe[at]]
    return Part(values, scores.thresholds, unit, own, span, "host pairs" if runs is None else "runs")


def joined(parts: Sequence[Part]) -> Part:
    """Parts of several streams as one; units and connections of different streams stay apart."""
    unit, own, first = [], [], 0
    for part in parts:
        unit.append(_dense(part.unit) + first)
        own.append(_dense(part.own) + first)
        first += part.size
    return Part(
        np.concatenate([p.scores for p in parts], axis=1),
        parts[0].thresholds,
        np.concatenate(unit),
        np.concatenate(own),
        sum(p.hours for p in parts),
        parts[0].units,
    )


def _dense(values: Ints) -> Ints:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def pairs_of_packets(p: Packets) -> Ints:
    """A number for each packet's pair of hosts, the same in both directions. MACs stand in for missing addresses."""
    link = (p.kind & KIND_MASK) < Kind.ARP
    ends = [
        np.stack([np.where(link, 0, hi), np.where(link, mac, lo)], axis=1)
        for hi, lo, mac in ((p.src_hi, p.src_lo, p.src_mac), (p.dst_hi, p.dst_lo, p.dst_mac))
    ]
    return _pairs(*ends)


def pairs_of_rows(rows: Rows) -> Ints:
    """A number for each connection's pair of hosts."""
    return _pairs(*(np.stack([rows[f"{s}_hi"], rows[f"{s}_lo"]], axis=1) for s in "ab"))


def _pairs(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Ints:
    if not len(one):
        return np.zeros(0, np.int64)
    number = np.unique(np.concatenate([one, other]), axis=0, return_inverse=True)[1].reshape(-1)
    a, b = number[: len(one)], number[len(one) :]
    return np.minimum(a, b) << 32 | np.maximum(a, b)


def _resampled(part: Part) -> tuple[Ints, str]:
    """The units of a class, and what they are."""
    if np.unique(part.unit).size >= MANY:
        return _dense(part.unit), part.units
    return _dense(part.own), "connections"


def row(positive: Part, negative: Part, how: Bootstrap, level: Level = "connections") -> dict[str, Any]:
    """The measures of a row. Samples without a score (of packets that could not be read) are left out and counted.

    Only connections alarm, so only they have false alarms an hour.
    """
    kept = [np.isfinite(part.scores).all(axis=0) for part in (positive, negative)]
    parts = [
        Part(p.scores[:, k], p.thresholds, p.unit[k], p.own[k], p.hours, p.units)
        for p, k in zip((positive, negative), kept)
    ]
    sizes = [part.size for part in parts]
    out: dict[str, Any] = {
        "positives": sizes[0], "negatives": sizes[1],
        "unscored": int(sum(np.count_nonzero(~k) for k in kept)), "hours": negative.hours,
    }  # fmt: skip
    if not all(sizes):
        return out
    (a, what_a), (b, what_b) = (_resampled(part) for part in parts)
    sample = Sample(
        np.concatenate([p.scores for p in parts], axis=1),
        np.arange(sum(sizes)) < sizes[0],
        np.concatenate([a, b]),
        positive.thresholds,
    )
    found = measures(sample, RATES, how)
    long = negative.hours >= SHORTEST and level == "connections"
    return out | {
        "units": [[found.units[0], what_a], [found.units[1], what_b]],
        "area": found.area,
        "areas": found.areas,
        **{f"at_{rate:g}": one for rate, one in zip(RATES, found.at)},
        "found": found.found,
        "false": found.false,
        "hourly": [x * sizes[1] / negative.hours for x in found.false or ()] if long else None,
    }


def alarmed(part: Part, how: Bootstrap) -> dict[str, Any]:
    """Share and number of connections above the threshold."""
    unit, what = _resampled(part)
    share: Estimate = above(part.scores, part.thresholds, unit, how)
    return {
        "connections": part.size, "units": [int(np.unique(unit).size), what], "hours": part.hours, "share": share,
        "alarmed": (part.scores > part.thresholds[:, None]).sum(axis=1).tolist(),
        "hourly": [x * part.size / part.hours for x in share] if part.hours >= SHORTEST else None,
    }  # fmt: skip


def shown(estimate: Sequence[float] | None, digits: int = 3) -> str:
    """A value between 0 and 1 with its interval."""
    if estimate is None:
        return DASH
    value, low, high = (short(x, digits) for x in estimate)
    return f"{value} [{low}, {high}]"


def short(x: float, digits: int) -> str:
    """A number from 0 to 1, without the 0 before the point."""
    return f"{x:.{digits}f}".removeprefix("0")
