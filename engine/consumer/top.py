"""Totals of a run: counts by model, the most anomalous connections, and alarms by hosts and by probe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.files.alerts import WITH_PORTS
from engine.connections.layout import FLAG_FLIPPED, FLAG_MIDSTREAM
from engine.consumer.outlet import Spans
from engine.labels.rules import Probes
from engine.notation import address_text
from engine.scoring.batch import ScoreBatch, choose, of_new_hosts
from engine.scoring.columns import as_dicts, score_table
from engine.types import rows_at

SECOND = 10**9  # ns
MOST_PAIRS = 1 << 16  # most pairs of hosts with their own count of alarms
PORTS = 4  # most ports that a pair's counts name
MOST_PROBES = 1 << 16  # most probe ids with their own count of alarms


@dataclass
class Tally:
    """Counts of one model."""

    shadow: bool = False
    scored: int = 0  # connections with a score
    alarms: int = 0  # connections that ended with an alarm
    of_new: int = 0  # alarms with a host that learning never saw


@dataclass
class Pair:
    """Alarms of one originator against one responder."""

    alarms: int = 0
    uncertain: int = 0  # alarms with a guessed originator: the connection's beginning was not captured
    ports: set[tuple[int, int]] = field(
        default_factory=set
    )  # protocols and ports of the responder, a few of them


@dataclass
class ByProbe:
    """Counts of one probe id."""

    connections: int = 0
    scored: int = 0
    alarms: int = 0


PairKey = tuple[int, int, int, int]  # originator and responder, two words each


class Top:
    """Sink: counts by model; for the first, the most anomalous connections, and alarms by hosts and by probe."""

    def __init__(self, first: str = "kitsune", most: int = 10) -> None:
        """``first``: name of the first model that is not a shadow. ``most``: number of connections to keep."""
        self._first, self._most = first, most
        self._best: list[ScoreBatch] = []  # batches of one connection each
        self._recent: dict[int, list[ScoreBatch]] = {}  # the greatest of each second of the last minute
        self.connections = 0
        self.models: dict[str, Tally] = {}
        self.pairs: dict[PairKey, Pair] = {}
        self.other_pairs = 0  # alarms of pairs beyond MOST_PAIRS
        self.probes: dict[int, ByProbe] = {}
        self.other_probes = 0  # connections of probes beyond MOST_PROBES

    @property
    def scored(self) -> int:
        """Connections with a score of the first model."""
        return self.models.get(self._first, Tally()).scored

    @property
    def alarms(self) -> int:
        """Connections that ended with an alarm of the first model."""
        return self.models.get(self._first, Tally()).alarms

    def write(self, batch: ScoreBatch) -> None:
        """Count ended connections and keep those with the greatest scores."""
        final = batch.scores["final"]
        has = ~np.isnan(batch.scores["score"])
        tally = self.models.setdefault(batch.model, Tally(batch.shadow))
        tally.scored += int((final & has).sum())
        tally.alarms += int((batch.scores["alarm"] & final).sum())
        tally.of_new += int((batch.scores["alarm"] & final & of_new_hosts(batch.scores)).sum())
        if batch.model != self._first:
            return
        self.connections += int(final.sum())
        rows = batch.rows
        self._keep(batch, rows, np.flatnonzero(final & has))
        self._count_probes(batch, rows["probe"], final)
        alarmed = np.flatnonzero(batch.scores["alarm"] & final)
        if alarmed.size:
            self._count_pairs(rows_at(rows, alarmed))

    def _keep(self, batch: ScoreBatch, rows: Any, ended: NDArray[np.int64]) -> None:
        if not ended.size:
            return
        order = np.lexsort((rows["start"][ended], -batch.scores["score"][ended]))
        most = [choose(batch, ended[k : k + 1]) for k in order[: self._most].tolist()]
        self._best = self._greatest(self._best + most)
        now = int(np.median(rows["last"][ended]))  # of most of them: one wrong time stamp moves it little
        second = now // SECOND
        self._recent[second] = self._greatest(self._recent.get(second, []) + most)
        for old in [k for k in self._recent if not second - 60 < k <= second]:
            del self._recent[old]

    def _greatest(self, batches: list[ScoreBatch]) -> list[ScoreBatch]:
        return sorted(batches, key=_place)[: self._most]

    def _count_probes(self, batch: ScoreBatch, probe: NDArray[np.uint32], final: NDArray[np.bool_]) -> None:
        """Count ended connections by probe id."""
        met, which = np.unique(probe[final], return_inverse=True)
        has, alarm = ~np.isnan(batch.scores["score"][final]), batch.scores["alarm"][final]
        counts = [
            np.bincount(which[mask], minlength=met.size) for mask in (np.ones(which.size, bool), has, alarm)
        ]
        for k, connections, scored, alarms in zip(met.tolist(), *(column.tolist() for column in counts)):
            own = self.probes.get(k)
            if own is None:
                if len(self.probes) >= MOST_PROBES:
                    self.other_probes += connections
                    continue
                own = self.probes[k] = ByProbe()
            own.connections += connections
            own.scored += scored
            own.alarms += alarms

    def _count_pairs(self, rows: Any) -> None:
        flipped = (rows["flags"] & FLAG_FLIPPED) != 0
        guessed = (rows["flags"] & (FLAG_MIDSTREAM | FLAG_FLIPPED)) != 0
        a, b = (np.stack((rows[f"{side}_hi"], rows[f"{side}_lo"]), axis=1) for side in "ab")
        ends = np.where(flipped[:, None], np.hstack((b, a)), np.hstack((a, b)))
        proto, port = rows["proto"], np.where(flipped, rows["a_port"], rows["b_port"]).astype(np.int64)
        service = np.where(np.isin(proto, list(WITH_PORTS)), port, 0) << 8 | proto
        first, which = _groups(ends.T)
        counts, unsure = np.bincount(which), np.bincount(which[guessed], minlength=first.size)
        met: list[Pair | None] = []
        for key, alarms, uncertain in zip(ends[first].tolist(), counts.tolist(), unsure.tolist()):
            met.append(pair := self._pair(tuple(key), alarms))
            if pair is not None:
                pair.alarms += alarms
                pair.uncertain += uncertain
        for k in _first_few(which, service, PORTS):
            own = met[which[k]]
            if own is not None and len(own.ports) < PORTS:
                own.ports.add((int(proto[k]), int(service[k]) >> 8))

    def _pair(self, key: PairKey, alarms: int) -> Pair | None:
        """The counts of a pair, None where there is no room for it; its alarms are then counted with others."""
        pair = self.pairs.get(key)
        if pair is None:
            if len(self.pairs) >= MOST_PAIRS:
                self.other_pairs += alarms
                return None
            pair = self.pairs[key] = Pair()
        return pair

    def flush(self, spans: Spans) -> None:
        """Do nothing: rows are counted at once."""

    def sync(self, partition: int) -> None:
        """Do nothing: counts stay in memory."""

    def close(self) -> None:
        """Do nothing: counts stay in memory."""

    def abort(self) -> None:
        """Do nothing: counts stay in memory."""

    def rows(self, probes: Probes) -> list[dict[str, Any]]:
        """The kept connections, greatest score first."""
        return _dicts(self._best, probes)

    def recent(self, probes: Probes) -> list[dict[str, Any]]:
        """The connections with the greatest scores in the last minute of event time."""
        return _dicts(self._greatest([b for batches in self._recent.values() for b in batches]), probes)

    def alarm_pairs(self, most: int = 10) -> list[dict[str, Any]]:
        """Pairs of hosts with the most alarms: originator, responder, alarms, uncertain, ports."""
        ranked = sorted(self.pairs.items(), key=lambda item: (-item[1].alarms, item[0]))[:most]
        words = np.array([key for key, _ in ranked], np.uint64).reshape(-1, 2, 2)
        texts = [address_text(words[:, k, 0], words[:, k, 1]) for k in range(2)]
        return [
            {
                "originator": originator, "responder": responder, "alarms": pair.alarms,
                "uncertain": pair.uncertain, "ports": sorted(pair.ports),
            }
            for originator, responder, (_, pair) in zip(*texts, ranked)
        ]  # fmt: skip


def _groups(columns: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each group of equal rows, in order, and each row's group. columns: (k, n), n > 0."""
    order = np.lexsort(columns)
    ordered = columns[:, order]
    begins = np.concatenate(([True], (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)))
    first = order[begins]  # lexsort is stable
    number = np.empty(first.size, np.int64)
    number[np.argsort(first)] = np.arange(first.size)
    which = np.empty(order.size, np.int64)
    which[order] = number[np.cumsum(begins) - 1]
    return np.sort(first), which


def _first_few(which: NDArray[np.int64], value: NDArray[np.int64], most: int) -> list[int]:
    """Rows where a group meets a value for the first time, in order; at most so many of each group."""
    rows = _groups(np.stack((which, value)))[0]
    order = np.argsort(which[rows], kind="stable")
    group = which[rows][order]
    place = np.arange(group.size) - np.searchsorted(group, group)
    few: list[int] = np.sort(rows[order[place < most]]).tolist()
    return few


def _place(batch: ScoreBatch) -> tuple[float, int]:
    return -float(batch.scores["score"][0]), int(batch.rows["start"][0])


def _dicts(batches: Iterable[ScoreBatch], probes: Probes) -> list[dict[str, Any]]:
    return [row for batch in batches for row in as_dicts(score_table(batch, probes))]
