"""Parts of a corpus: runs shared out, or a share of them kept.

Whole runs are drawn: connections of one run resemble each other, and the twins of a pair are equal but for the link, so
either would leak from one part into another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import ConfigError
from probing.corpus.columns import Ints, dictionary, ports

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly from any one to any later one


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

    Units of the same scenario, activity and termination are distributed as evenly as possible, and so are those of each
    group among them. Raises ConfigError when shares are not positive or do not add up to 1.
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

    Every combination of group, scenario, activity and termination stays, even if that makes the share larger. Raises
    ConfigError when the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share {share} must be more than 0 and at most 1")
    found = units(labels)
    place, kind = _places(labels, found, seed)
    weight = np.bincount(found.of_row, _weights(labels, by), minlength=len(found.names))
    order = np.argsort(place, kind="stable").tolist()
    kept = list({int(kind[k]): k for k in reversed(order)}.values())  # the first of each kind
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
    """A place in [0, 1) for each unit, and the kind of each.

    A kind is all units with the same termination and the same combinations of group, scenario and activity, background
    included. Places are spread evenly over all units of the same scenario, activity and termination, and nearly so over
    each kind among them: units of a kind follow each other in a sequence of which every stretch is spread out.
    """
    kind = _texts(labels, found, ("group", "scenario", "activity"), None)
    does = _texts(labels, found, ("scenario", "activity"), _own_rows(labels, found))
    ends = _terminations(labels, found)
    strata: dict[tuple[str, str], list[int]] = {}
    for unit in range(len(found.names)):
        strata.setdefault((does[unit], ends[unit]), []).append(unit)
    place = np.zeros(len(found.names))
    for name, members in sorted(strata.items()):
        members.sort(key=lambda u: (_drawn(seed, f"kind {kind[u]}"), kind[u], _drawn(seed, found.names[u])))
        spread = np.arange(len(members)) * GOLDEN % 1.0
        rank = np.argsort(np.argsort(spread, kind="stable"))
        place[members] = (rank + _drawn(seed, f"stratum {name}")) / len(members)
    numbers = {name: k for k, name in enumerate(sorted(set(zip(kind, ends))))}
    return place, np.array([numbers[name] for name in zip(kind, ends)], np.int64)


def _own_rows(labels: pa.Table, found: Units) -> NDArray[np.bool_]:
    """The rows that say what a unit does: those of its own users; all, where it has background alone."""
    own = ports(labels.column("background")) == 0
    lonely = np.bincount(found.of_row, own, minlength=len(found.names)) == 0
    rows: NDArray[np.bool_] = own | lonely[found.of_row]
    return rows


def _texts(
    labels: pa.Table, found: Units, columns: Sequence[str], rows: NDArray[np.bool_] | None
) -> list[str]:
    """The different combinations of values of each unit, over some of its rows, as a text."""
    named = [dictionary(labels.column(name)) for name in columns]
    codes = np.stack((found.of_row, *(code for code, _ in named)), axis=1)
    result: list[list[str]] = [[] for _ in found.names]
    for unit, *row in np.unique(codes if rows is None else codes[rows], axis=0).tolist():
        result[unit].append("/".join(texts[code] for code, (_, texts) in zip(row, named)))
    return ["\n".join(sorted(texts)) for texts in result]


def _terminations(labels: pa.Table, found: Units) -> list[str]:
    """The way in which most connections of each unit end."""
    code, names = dictionary(labels.column("termination"))
    rows = _own_rows(labels, found)
    counts = np.zeros((len(found.names), max(len(names), 1)), np.int64)
    np.add.at(counts, (found.of_row[rows], code[rows]), 1)
    order = np.argsort(names, kind="stable")  # a tie must not depend on the order of rows
    return [names[order[k]] if names else "" for k in np.argmax(counts[:, order], axis=1).tolist()]


def _drawn(seed: int, name: str) -> float:
    """A number in [0, 1) that depends only on seed and name."""
    return (int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 11) / (1 << 53)
