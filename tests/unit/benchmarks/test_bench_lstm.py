"""The peers of the LSTM are given the same tokens, and say the same of them; what is not installed is said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_lstm import (
    SIZES,
    Stream,
    bundle,
    micro_batches,
    openings,
    ratios,
    score_rate,
    scores,
    state_bytes,
    tokens_of,
    tracked,
    train_rate,
)
from benchmarks.lstm_peers import PEERS, Batch, Ours, dense, plan
from benchmarks.tables import filled, lstm
from engine.commands.models import chosen_models
from engine.config import Config
from engine.connections.bounds import TrackerConfig
from engine.features.tokens import TokenConfig
from engine.scoring.building import build_detector
from models.lstm import LSTM, LSTMConfig

pytestmark = pytest.mark.compiled
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stream() -> Stream:
    return tokens_of(tracked(ROOT / "demo" / "demo.pcap.zst"), "stream")


@pytest.fixture(scope="module")
def network() -> LSTM:
    return LSTM.random(LSTMConfig(TokenConfig().inputs), seed=0)


@pytest.fixture(scope="module")
def expected(network: LSTM, stream: Stream) -> np.ndarray[Any, np.dtype[np.float64]]:
    return scores(Ours(network), stream, 1_024)[0]


@pytest.mark.parametrize("size", SIZES)
def test_micro_batches_hold_the_tokens_that_so_many_packets_let_through(stream: Stream, size: int) -> None:
    batches = list(micro_batches(stream, size))
    assert batches[0][0] == 0
    assert batches[-1][1] == len(stream.at)
    assert all(before[1] == after[0] for before, after in pairwise(batches))
    assert all(stream.at[a] // size == stream.at[b - 1] // size for a, b in batches)
    assert len({stream.at[a] // size for a, _ in batches}) == len(batches)


def test_a_slot_that_is_used_again_is_another_connection() -> None:
    steps = list(openings(3))
    ends = replace(steps[1][1], closed=np.array([1], np.int32), closed_at=np.array([3]))
    found = tokens_of([steps[0], (steps[1][0], ends), *steps], "keep")
    assert found.tokens.slot.tolist() == [0, 1, 2, 0, 1, 2, 0, 3, 2, 0, 3, 2]
    assert found.at.tolist() == list(range(12))
    assert (found.connections, found.packets) == (4, 12)


def test_a_plan_has_the_kth_token_of_each_connection_in_wave_k_those_with_most_tokens_first() -> None:
    found = plan(np.array([7, 3, 3, 9, 3, 9], np.int32))
    assert found.connections.tolist() == [3, 9, 7]
    assert found.many.tolist() == [3, 2, 1]
    assert found.order.tolist() == [1, 3, 0, 2, 5, 4]
    assert found.sizes == [3, 2, 1]


def test_dense_inputs_leave_out_what_follows_the_end_of_a_list() -> None:
    batch = Batch(
        np.array([[2, -1, 0], [1, 1, -1]], np.int32),
        np.array([[0.5, 9, 9], [1, 2, 9]], np.float32),
        np.zeros(2, np.int32),
    )
    assert dense(batch, 3).tolist() == [[0, 0, 0.5], [0, 3, 0]]


@pytest.mark.parametrize("size", [256, 16_384])
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gives_our_scores_in_micro_batches_of_any_size(
    name: str, size: int, network: LSTM, stream: Stream, expected: Any
) -> None:
    make, packages = PEERS[name]
    for package in packages:
        pytest.importorskip(package)
    found = scores(make(network), stream, size)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_scores_that_differ_are_an_error(network: LSTM, stream: Stream, expected: Any) -> None:
    assert score_rate(Ours(network), stream, 4_096, expected) > 0
    wrong = expected.copy()
    wrong[17] += 2e-4
    with pytest.raises(ValueError, match=r"Ours in micro-batches of 4096 are off by 0\.0002"):
        score_rate(Ours(network), stream, 4_096, wrong)


def test_the_bundle_is_one_that_wiresonde_scores_with(
    network: LSTM, stream: Stream, expected: Any, tmp_path: Path
) -> None:
    path = tmp_path / "sequence.bundle"
    path.write_bytes(bundle(network, stream, expected))
    detector = build_detector(0, TrackerConfig(capacity=16), chosen_models(Config(), [str(path)]))
    (scorer,) = detector.scorers
    assert scorer.phase == "score"
    above = np.unique(stream.tokens.slot[expected > scorer.threshold_value])
    assert 0 < above.size <= 0.01 * stream.connections + 1


def test_training_is_measured_and_ends_at_its_last_step(stream: Stream) -> None:
    pytest.importorskip("torch")
    assert train_rate(stream, "cpu") > 0


def test_memory_is_measured_with_every_connection_in_use() -> None:
    assert state_bytes(5_000)[1] == 5_000


def test_ratios_are_medians_of_the_rounds() -> None:
    found = ratios(
        {
            "scores_ours_256": [8.0, 6.0, 10.0], "scores_torch_cell_256": [1.0, 2.0], "tokens_keep": [1.0],
            "pipeline_kitsune": [4.0, 2.0, 1.0], "pipeline_both": [1.0, 1.0, 1.0],
        }
    )  # fmt: skip
    assert found == {
        "scores_ours_256": 1.0, "scores_torch_cell_256": 5.5, "pipeline_kitsune": 1.0, "pipeline_both": 0.5,
    }  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ROOT / "docs" / "figures" / "bench_lstm.json").read_text())
    return figures


def test_the_page_is_what_the_figures_give(document: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert filled(page, "lstm", lstm(document)) == page, "run python -m benchmarks.tables"


def test_a_peer_that_was_not_installed_has_no_column_and_is_named(document: dict[str, Any]) -> None:
    without = copy.deepcopy(document)
    for name in [n for n in without["figures"] if "onnxruntime" in n or n.startswith("train")]:
        del without["figures"][name]
    shown: Callable[[str], int] = lambda text: text.count("onnxruntime: tokens/s")  # noqa: E731
    assert shown(lstm(document)) == 1
    assert shown(lstm(without)) == 0
    assert "Not installed and left out: onnxruntime." in lstm(without)
    assert "Training takes" in lstm(document)
    assert "Training needs torch and is left out." in lstm(without)


def test_packets_of_the_trace_follow_from_tokens(document: dict[str, Any]) -> None:
    document["figures"]["scores_ours_256"]["value"] = 1_000_000.0
    document["streams"]["stream"] |= {"tokens": 100, "packets": 250}
    assert "| 256 | 1,000,000 | 2,500,000 |" in lstm(document)
