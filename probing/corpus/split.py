"""Parts of a corpus: runs shared out, or a share of them kept.

Whole runs are drawn: connections of one run resemble each other, and the twins of a pair are equal but for the link, so
either would leak from one part into another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import ConfigError
from probing.corpus.columns import Ints, dictionary, ports


class Units(NamedTuple):
    """The units of a split: single runs, and groups of runs that share a pair."""

    of_row: Ints  # (rows,) index of each row's unit
    names: tuple[str, ...]  # name of each unit: the least of its pairs, or its run
    runs: tuple[tuple[str, ...], ...]  # runs of each unit


def units(labels: pa.Table) -> Units:
    """The units of a label table."""
    run, runs = dictionary(labels.column("run"))
    pair, pairs = dictionary(labels.column("pair"))
    paired = np.array([bool(name) for name in pairs], bool)[pair]
    links = np.unique(np.stack((pair, run), axis=1)[paired], axis=0).tolist()
    root = list(range(len(runs)))

    def find(k: int) -> int:
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    first: dict[int, int] = {}  # run of each pair
    for p, r in links:
        root[find(r)] = find(first.setdefault(p, r))
    members: dict[int, list[str]] = {}
    for k, name in enumerate(runs):
        members.setdefault(find(k), []).append(name)
    names = {k: min(of) for k, of in members.items()}
    by_pair: dict[int, str] = {}
    for p, r in links:
        by_pair[find(r)] = min(by_pair.get(find(r), pairs[p]), pairs[p])
    names |= by_pair
    order = sorted(members, key=lambda k: names[k])
    number = {k: i for i, k in enumerate(order)}
    of_run = np.array([number[find(k)] for k in range(len(runs))], np.int64)
    return Units(of_run[run], tuple(names[k] for k in order), tuple(tuple(sorted(members[k])) for k in order))


def split(labels: pa.Table, shares: Mapping[str, float], seed: int) -> dict[str, NDArray[np.bool_]]:
    """The rows of each part: {name: (rows,)}. Every row is in one part; runs and twins stay together.

    Units of the same group, scenario and activity are distributed as evenly as possible. Raises ConfigError
    when shares are not positive or do not add up to 1.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ConfigError(f"shares {dict(shares)} must be positive and add up to 1")
    found = units(labels)
    bounds = np.cumsum(list(shares.values()))[:-1]
    part = np.searchsorted(bounds, _places(labels, found, seed)[0], side="right")[found.of_row]
    return {name: part == k for k, name in enumerate(shares)}


def thin(
    labels: pa.Table, share: float, seed: int, by: Literal["packets", "connections"] = "packets"
) -> list[str]:
    """The runs, with their twins, that together have at least a share of the packets (or connections).

    Every combination of group, scenario and activity stays, even if that makes the share larger. Raises
    ConfigError when the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share {share} must be more than 0 and at most 1")
    found = units(labels)
    place, stratum = _places(labels, found, seed)
    weight = np.bincount(found.of_row, _weights(labels, by), minlength=len(found.names))
    order = np.argsort(place, kind="stable").tolist()
    kept = list({int(stratum[k]): k for k in reversed(order)}.values())  # the first of each stratum
    first, total, goal = set(kept), weight[kept].sum(), share * weight.sum()
    for k in order:
        if total >= goal:
            break
        if k in first:
            continue
        kept.append(k)
        total += weight[k]
    return sorted(run for k in kept for run in found.runs[k])


def _weights(labels: pa.Table, by: str) -> NDArray[np.float64]:
    if by == "connections":
        return np.ones(labels.num_rows)
    up, down = (ports(labels.column(name)) for name in ("packets_up", "packets_down"))
    return (up + down).astype(np.float64)


def _places(labels: pa.Table, found: Units, seed: int) -> tuple[NDArray[np.float64], Ints]:
    """A place in [0, 1) for each unit, spread evenly over its stratum, and the stratum of each.

    A stratum is all units with the same combinations of group, scenario and activity, background included.
    """
    named = [dictionary(labels.column(name)) for name in ("group", "scenario", "activity")]
    rows = np.unique(np.stack((found.of_row, *(codes for codes, _ in named)), axis=1), axis=0)
    does: list[list[str]] = [[] for _ in found.names]
    for unit, *codes in rows.tolist():
        does[unit].append("/".join(texts[code] for code, (_, texts) in zip(codes, named)))
    strata: dict[str, list[int]] = {}
    for unit, what in enumerate(does):
        strata.setdefault("\n".join(sorted(what)), []).append(unit)
    place, stratum = np.zeros(len(found.names)), np.zeros(len(found.names), np.int64)
    for k, (name, members) in enumerate(sorted(strata.items())):
        offset = _drawn(seed, f"stratum {name}")
        for i, unit in enumerate(sorted(members, key=lambda u: _drawn(seed, found.names[u]))):
            place[unit], stratum[unit] = (i + offset) / len(members), k
    return place, stratum


def _drawn(seed: int, name: str) -> float:
    """A number in [0, 1) that depends only on seed and name."""
    return (int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 11) / (1 << 53)
