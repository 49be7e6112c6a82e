"""Alarms by pairs of hosts, against a count row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from connectors.files.alerts import WITH_PORTS
from engine.connections.layout import FLAG_FLIPPED, FLAG_MIDSTREAM
from engine.consumer import top
from engine.consumer.top import Top
from engine.scoring.batch import ScoreBatch
from tests.support.batches import batch

Counted = dict[tuple[int, int, int, int], tuple[int, int, set[tuple[int, int]]]]


def alarms(n: int, hosts: int, seed: int) -> ScoreBatch:
    """n alarms among a few hosts, with few ports, some of them with a guessed or flipped originator."""
    rng = np.random.default_rng(seed)
    out = batch(n, seed)
    rows = out.records.rows
    rows["a_hi"], rows["b_hi"] = rng.integers(0, 2, (2, n))
    rows["a_lo"], rows["b_lo"] = rng.integers(0, hosts, (2, n))
    rows["a_port"], rows["b_port"] = rng.integers(0, 7, (2, n))
    rows["proto"] = rng.choice([1, 6, 17, 58], n)
    rows["flags"] = rng.choice([0, FLAG_FLIPPED, FLAG_MIDSTREAM, FLAG_FLIPPED | FLAG_MIDSTREAM], n)
    out.scores["alarm"] = rng.random(n) < 0.9
    return out


def naive(batches: list[ScoreBatch], most: int) -> tuple[Counted, int]:
    """The same counts, one row after the other."""
    pairs: Counted = {}
    others = 0
    for one in batches:
        for row, said in zip(one.rows, one.scores):
            if not said["alarm"]:
                continue
            ends: list[Any] = [(row["a_hi"], row["a_lo"]), (row["b_hi"], row["b_lo"])]
            flipped = bool(row["flags"] & FLAG_FLIPPED)
            (hi, lo), (peer_hi, peer_lo) = reversed(ends) if flipped else ends
            key = int(hi), int(lo), int(peer_hi), int(peer_lo)
            if key not in pairs and len(pairs) == most:
                others += 1
                continue
            count, unsure, ports = pairs.get(key, (0, 0, set()))
            if len(ports) < 4:
                port = int(row["a_port" if flipped else "b_port"])
                ports.add((int(row["proto"]), port if row["proto"] in WITH_PORTS else 0))
            pairs[key] = count + 1, unsure + bool(row["flags"] & (FLAG_FLIPPED | FLAG_MIDSTREAM)), ports
    return pairs, others


@pytest.mark.parametrize(("hosts", "most"), [(2, 100), (5, 1000), (5, 7), (40, 60)])
def test_alarms_by_pair_are_those_of_a_count_row_by_row(
    hosts: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "MOST_PAIRS", most)
    batches = [alarms(n, hosts, n) for n in (1, 60, 300, 7)]
    sink = Top()
    for one in batches:
        sink.write(one)
    pairs, others = naive(batches, most)
    assert list(sink.pairs) == list(pairs)
    assert {k: (p.alarms, p.uncertain, p.ports) for k, p in sink.pairs.items()} == pairs
    assert sink.other_pairs == others
    assert (others > 0) == (len(pairs) == most)
