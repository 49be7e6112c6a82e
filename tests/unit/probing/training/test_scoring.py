"""Scores of sequences as the detector gives them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from engine.features.tokens import POLICIES
from models.lstm import LSTM, LSTMConfig, fold
from probing.training.cli import train_sequence
from probing.training.scoring import Aggregate, connection_scores, packet_scores
from probing.training.sequences import Sequences

LABELS = pa.table({"attack": pa.array([0, 1], pa.int8())})


def made(inputs: int, entries: int) -> Sequences:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, inputs, (5, entries)).astype(np.int16)
    return Sequences(rows, np.ones(rows.shape, np.float32), np.array([0, 2, 5]), LABELS)


@pytest.mark.parametrize(
    ("aggregate", "wanted"), [("last", [0.4, 0.3]), ("max", [0.4, 0.9]), ("mean", [0.3, 0.6])]
)
def test_a_connection_has_the_statistic_of_its_packets(aggregate: Aggregate, wanted: list[float]) -> None:
    packets = np.array([0.2, 0.4, 0.6, 0.9, 0.3])
    assert connection_scores(made(3, 2), packets, aggregate) == pytest.approx(wanted)


def test_connections_side_by_side_have_the_scores_that_each_has_alone() -> None:
    data, lstm = made(7, 3), LSTM.random(LSTMConfig(7, 16), 2)
    found = packet_scores(lstm.arrays(), data)
    for k, part in enumerate((slice(0, 2), slice(2, 5))):
        alone = packet_scores(lstm.arrays(), data.chosen(np.arange(2) == k))
        assert np.array_equal(found[part], alone)
    assert np.unique(found).size == 5


def test_header_bytes_are_embedded_as_in_the_engine() -> None:
    rng = np.random.default_rng(3)
    embedding, weights = (rng.normal(size=s).astype(np.float32) for s in ((256, 4), (8, 64)))
    arrays = LSTM.random(LSTMConfig(512, 16), 0).arrays()
    table = arrays | {"input.0": fold(embedding, weights)}
    data = made(512, 2)
    assert np.array_equal(
        packet_scores(arrays | {"embedding": embedding, "input.0": weights}, data), packet_scores(table, data)
    )


def test_the_command_offers_the_policies_that_there_are() -> None:
    (option,) = (p for p in train_sequence.params if p.name == "policy")
    assert tuple(option.type.choices) == POLICIES  # type: ignore[attr-defined]
