"""Parts of the study of sequence models on made-up data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import lstm_tables
from benchmarks.study_lstm.data import MIX, link_of, mix, unit_of
from benchmarks.study_lstm.judging import Test as Part
from benchmarks.study_lstm.labels import correlations
from models.lstm import LSTM, LSTMConfig
from probing.analysis.roc import Bootstrap
from probing.training.scoring import connection_scores, packet_scores
from probing.training.sequences import ATTACK, Sequences, join_sequences, truth

ROOT = Path(__file__).parents[3]


def made(n: int, name: str, **columns: Any) -> Sequences:
    """n connections of one to three tokens; every second an attack."""
    lengths = np.arange(n) % 3 + 1
    start = np.concatenate(([0], np.cumsum(lengths)))
    rng = np.random.default_rng(n)
    rows = rng.integers(0, 5, (start[-1], 2)).astype(np.int16)
    values = rng.normal(size=rows.shape).astype(np.float32)
    labels = pa.table({
        "attack": pa.array(np.arange(n) % 2, pa.int8()), "run": [f"{name}-{k // 4}" for k in range(n)],
        "pair": [""] * n, "activity": ["visit-blind" if k % 2 else "visit" for k in range(n)], "corpus": [name] * n,
        **columns,
    })  # fmt: skip
    return Sequences(rows, values, start, labels)


def test_a_mix_has_its_share_of_faults_in_both_kinds_and_as_many_connections() -> None:
    found = mix(made(200, "plain"), made(100, "faulty"))
    assert len(found) == 200
    attack = truth(found.labels) == ATTACK
    faulty = np.array(found.labels.column("corpus").to_pylist()) == "faulty"
    for kind in (attack, ~attack):
        assert (kind & faulty).sum() / kind.sum() == pytest.approx(MIX, abs=0.01)


def test_links_and_units_follow_the_labels() -> None:
    labels = pa.table({
        "jitter_ms": [0.0, 4.0, 0.0, 10.0], "loss_pct": [0.0, 0.0, 3.0, 2.0], "run": ["a", "b", "c", "d"],
        "pair": ["p", "p", "", ""],
    })  # fmt: skip
    assert link_of(labels).tolist() == ["none", "jitter", "loss", "both"]
    unit = unit_of(labels)
    assert unit[0] == unit[1]
    assert len(set(unit.tolist())) == 3


def test_settings_leave_out_failed_attacks_and_mirrored_visits_where_asked() -> None:
    yes, no = np.array([True, False]), np.array([False, False])
    part = Part(no, np.array([False, True]), np.array(["loss", "both"]), np.arange(2), yes)
    assert part.chosen("faults").tolist() == [True, False]
    assert part.chosen("none").tolist() == [False, False]
    assert part.chosen("faults", mirrored=False).tolist() == [False, False]


def test_scores_of_sequences_are_those_of_each_connection_alone() -> None:
    data = made(30, "x")
    lstm = LSTM.random(LSTMConfig(5, 16), 3)
    found = packet_scores(lstm.arrays(), data)
    for k in range(len(data)):
        part = slice(data.start[k], data.start[k + 1])
        alone = np.empty(data.lengths[k])
        rows = np.ascontiguousarray(data.rows[part].astype(np.int32))
        lstm.step(rows, data.values[part].copy(), np.zeros(alone.size, np.int32), lstm.new_state(1), alone)
        assert np.array_equal(found[part], alone)
        assert connection_scores(data, found)[k] == alone[-1]


def test_a_label_that_makes_errors_is_first_and_one_that_does_not_has_no_sure_correlation() -> None:
    n = 400
    rng = np.random.default_rng(0)
    jitter = np.repeat(rng.integers(0, 2, n // 4), 4).astype(float)
    delay = np.repeat(rng.permutation(jitter[::4]), 4)
    zeros = np.zeros(n)
    ways = {f"{name}_{way}": zeros for name in ("lost", "lost_data") for way in ("up", "down")}
    data = made(n, "x", jitter_ms=jitter, delay_ms=delay, **ways)
    attack = truth(data.labels) == ATTACK
    wrong = rng.random(n) < np.where(jitter > 0, 0.4, 0.05)
    said = np.where(wrong, ~attack, attack).astype(float)
    found = correlations(data, said[None], np.array([0.5]), attack, Bootstrap(rounds=300))
    first = found["all"][0]
    assert first["label"] == "jitter_ms"
    assert first["low"] > 0.2
    (other,) = (row for row in found["all"] if row["label"] == "delay_ms")
    assert other["low"] < 0 < other["high"]


def test_parts_join_in_order() -> None:
    both = join_sequences([made(4, "a"), made(6, "b")])
    assert both.labels.column("corpus").to_pylist() == ["a"] * 4 + ["b"] * 6


def test_the_tables_of_the_page_are_those_of_the_figures() -> None:
    page = (ROOT / "docs" / "study-lstm.md").read_text()
    document = json.loads((ROOT / "docs" / "figures" / "study_lstm.json").read_text())
    assert lstm_tables.cells(document, "client", "none") in page
    assert lstm_tables.differences(document) in page
