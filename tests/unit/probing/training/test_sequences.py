"""Connections of a corpus as sequences of tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from engine.features.tokens import TokenConfig
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import of_capture, of_corpus
from probing.training.sequences import (
    ATTACK,
    BENIGN,
    UNSURE,
    Sequences,
    batches_of,
    join_sequences,
    read_sequences,
    truth,
)
from tests.support.small_corpus import ATTACK as ATTACK_LABELS
from tests.support.small_corpus import SECOND, T0, Entry, Exchange, write

UP, FIN, SYN, PSH, ACK, LOG, GAP, BUCKET = 0, 1, 2, 4, 5, 9, 10, 11
TEN, TWENTY = (0.05 * math.log2(1 + ms * 1000) for ms in (10, 20))  # inter-arrivals of 10 and 20 ms


def payload(size: int) -> dict[int, float]:
    return {LOG: math.log2(size) / 16, BUCKET + 1 + math.floor(8 * (math.log2(size) - 4)): 1}


def of(path: Path, policy: Literal["keep", "stream"] = "keep") -> Sequences:
    corpus = read_corpus(path)
    return read_sequences(of_corpus(corpus), [corpus.capture], TokenConfig(policy=policy))


def tokens(data: Sequences, k: int) -> list[dict[int, float]]:
    rows, values = (column[data.start[k] : data.start[k + 1]].tolist() for column in (data.rows, data.values))
    return [{r: v for r, v in zip(*token) if r >= 0} for token in zip(rows, values)]


def two(folder: Path) -> Path:
    """Two connections at the same time, the second an attack."""
    one: Entry = Exchange(T0), {"run": "0", "pair": "p"}
    other: Entry = Exchange(T0 + 5_000_000, sport=40001, payloads=[20, -100]), {"run": "1", **ATTACK_LABELS}
    return write(folder, [one, other])


def test_tokens_are_what_a_hand_writes_down(tmp_path: Path) -> None:
    data = of(two(tmp_path))
    on, gap = 1.0, TEN
    expected = [
        {UP: on, SYN: on}, {SYN: on, ACK: on, GAP: gap}, {UP: on, ACK: on, GAP: gap},
        {UP: on, PSH: on, ACK: on, GAP: gap, **payload(300)}, {PSH: on, ACK: on, GAP: gap, **payload(900)},
        {UP: on, FIN: on, ACK: on, GAP: gap}, {FIN: on, ACK: on, GAP: gap}, {UP: on, ACK: on, GAP: gap},
    ]  # fmt: skip
    assert tokens(data, 0) == [pytest.approx(token) for token in expected]
    assert data.labels.column("sport").to_pylist() == [40000, 40001]


def test_the_policy_decides_which_packets_have_tokens(tmp_path: Path) -> None:
    data = of(two(tmp_path), "stream")
    assert data.lengths.tolist() == [6, 6]
    assert tokens(data, 1)[2] == pytest.approx({UP: 1, PSH: 1, ACK: 1, GAP: TWENTY, **payload(20)})


def test_nothing_lies_behind_a_tokens_end(tmp_path: Path) -> None:
    data = of(two(tmp_path))
    assert (np.diff((data.rows < 0).astype(int), axis=1) >= 0).all()
    assert (data.values[data.rows < 0] == 0).all()


def test_runs_and_pairs_of_corpora_stay_apart_when_they_are_joined(tmp_path: Path) -> None:
    one, other = of(two(tmp_path)), of(write(tmp_path, [(Exchange(T0), {"run": "0"})], "more"))
    joined = join_sequences([one, other])
    assert joined.labels.column("run").to_pylist() == ["made/0", "made/1", "more/0"]
    assert joined.labels.column("pair").to_pylist() == ["made/p", "", ""]
    assert [tokens(joined, k) for k in range(3)] == [tokens(one, 0), tokens(one, 1), tokens(other, 0)]


def test_chosen_connections_keep_their_tokens_and_labels(tmp_path: Path) -> None:
    data = of(two(tmp_path))
    second = data.chosen(np.array([False, True]))
    assert tokens(second, 0) == tokens(data, 1)
    assert second.labels.column("attack").to_pylist() == [1]


def test_two_connections_of_one_label_row_are_two_sequences(tmp_path: Path) -> None:
    made = write(tmp_path, [(Exchange(T0), {}), (Exchange(T0 + 900 * SECOND, sport=40001), {})])
    corpus = read_corpus(made)
    known = replace(of_corpus(corpus), row=np.array([0, 0]))
    data = read_sequences(known, [corpus.capture], TokenConfig(policy="keep"))
    assert data.lengths.tolist() == [8, 8]
    assert data.labels.column("sport").to_pylist() == [40000, 40000]


def test_connections_without_labels_are_left_out(tmp_path: Path) -> None:
    made = write(tmp_path, [(Exchange(T0), {}), (Exchange(T0, sport=40001), {})])
    labels = tmp_path / "x.csv"
    labels.write_text(
        f"src,sport,dst,dport,proto,start,end,attack\n10.0.0.10,40001,,,,{T0 // SECOND},{T0 // SECOND + 9},1\n"
    )
    capture = made.with_name("made.pcap.zst")
    data = read_sequences(of_capture(capture, labels), [capture], TokenConfig(policy="keep"))
    assert truth(data.labels).tolist() == [ATTACK]


def test_attacks_that_failed_or_hold_no_attack_are_unsure() -> None:
    labels = pa.table({
        "attack": [0, 1, 1, 1, 1, 0], "carries_attack": [False, True, False, True, None, False],
        "succeeded": [True, True, True, False, None, False],
    })  # fmt: skip
    assert truth(labels).tolist() == [BENIGN, ATTACK, UNSURE, UNSURE, ATTACK, BENIGN]


def test_batches_of_like_lengths_hold_every_connection_once_within_their_bound() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    lengths[7] = 5000
    batches = list(batches_of(lengths, 2000))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(b.size == 1 or b.size * lengths[b].max() <= 2000 for b in batches)
    assert len(batches) < 60
