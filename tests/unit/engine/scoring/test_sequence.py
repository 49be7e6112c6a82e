"""The sequence model in a detector: which connections have scores, what shares work, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from engine.commands.models import chosen_models
from engine.config import parse
from engine.errors import ConfigError, InputError
from engine.features.tokens import VERSION, TokenConfig
from engine.scoring.building import BundleFile, ModelSpec, build_detector
from engine.scoring.kinds import KINDS
from engine.scoring.sequence import KIND, SequenceModel
from engine.types import TCP, Packets
from models import bundle
from models.lstm import LSTM, LSTMConfig
from tests.property.test_laws import ROOMY, blocks
from tests.support.conversation import Conversation
from tests.support.rows import bundled, said, scores_of, small
from tests.support.streams import stream

pytestmark = pytest.mark.compiled


def of_policy(policy: str, name: str, *, shadow: bool = False) -> ModelSpec:
    spec = small(KIND, name, shadow=shadow)
    tokens = replace(spec.section.tokens, policy=policy)
    return replace(spec, section=replace(spec.section, tokens=tokens))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sequence") / "m.safetensors"
    bundled(small(KIND), blocks(stream(5, 900), []), file)
    return file


def test_models_with_one_policy_share_a_pass_and_none_changes_a_row_of_another() -> None:
    specs = [
        small(KINDS["kitsune"]), of_policy("stream", "stream"), of_policy("keep", "keep", shadow=True),
        of_policy("stream", "again", shadow=True),
    ]  # fmt: skip
    parts = blocks(stream(8, 900), [300, 600])
    detector = build_detector(0, ROOMY, specs)
    together = said(detector, parts, ROOMY)
    assert len(detector._passes) == 3  # AfterImage, and tokens by two policies
    for spec in specs:
        alone = said([replace(spec, shadow=False)], parts, ROOMY).rows(spec.name)
        assert together.rows(spec.name).equals(alone), spec.name
    stream_said, keep_said = (scores_of(together.rows(name)) for name in ("stream", "keep"))
    assert not np.array_equal(stream_said, keep_said, equal_nan=True)


def test_only_tcp_has_scores_and_the_rest_is_counted() -> None:
    p = stream(9, 900)
    detector = build_detector(0, ROOMY, [of_policy("keep", "keep")])
    rows = said(detector, blocks(p, []), ROOMY).rows("keep")
    rows = rows.filter(rows["final"])
    tcp = pc.equal(rows["proto"], "tcp")
    others = rows.filter(pc.invert(tcp))
    assert len(others) > 10
    assert others["score"].null_count == len(others)
    assert pc.sum(others["scored_pkts"]).as_py() == 0
    assert rows.filter(tcp)["score"].null_count == 0
    counters = detector.counters(detector.scorers[0])
    transport = (p.proto == TCP) & ((p.kind & 0x0F) >= 3)
    assert counters["not_tcp"] == detector._given - transport.sum() > 50


def test_a_connection_of_which_one_side_was_captured_is_scored_and_flagged() -> None:
    whole = Conversation().open()
    for k in range(4):
        whole.send("a", "PA", 1 + 100 * k, 1 + 900 * k, 100).send("b", "PA", 1 + 900 * k, 101 + 100 * k, 900)
    p = whole.close(401, 3601).packets()
    upwards = Packets._make(column[p.dport == 80] for column in p)
    for packets, flagged in ((p, False), (upwards, True)):
        rows = said([of_policy("stream", "m")], blocks(packets, []), ROOMY).rows("m")
        (row,) = rows.filter(rows["final"]).to_pylist()
        assert row["score"] is not None
        assert row["one_sided"] is flagged


def test_an_unanswered_syn_is_not_one_sided() -> None:
    rows = said([of_policy("keep", "m")], blocks(Conversation().send("a", "S", 0).packets(), []), ROOMY).rows(
        "m"
    )
    assert rows["one_sided"].to_pylist() == [False]


def test_a_model_without_a_bundle_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as error:
        chosen_models(parse({"models": {"odd": {"kind": "sequence"}}}, "test"))
    assert str(error.value) == (
        "model odd: a sequence does not learn from the stream: give a trained one, --model odd=FILE "
        "(made by `wiresonde train sequence`)"
    )


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "untrained": (lambda c: c.update(trained=0), "its model was never trained"),
    "version": (
        lambda c: c["tokens"].update(version=VERSION + 1),
        f"trained on tokens of version {VERSION + 1}, this version makes {VERSION}: train again",
    ),
    "policy": (lambda c: c["tokens"].update(policy="all"), "tokens: policy 'all' must be one of keep"),
    "encoder": (lambda c: c["tokens"].update(encoder="header"), "inputs, but its tokens have 1536"),
    "tokens": (lambda c: c.update(tokens=3), "trained on tokens of version None"),
    "lstm": (lambda c: c["lstm"].update(hidden=8), "array input.0 is float32"),
    "gone": (lambda c: c.pop("lstm"), "its config lacks lstm"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bundle_that_does_not_fit_is_refused_in_one_line(name: str, path: Path, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    good = bundle.load(path)
    change(good.config)
    other = tmp_path / "other.safetensors"
    other.write_bytes(bundle.pack(good.arrays, good.config, good.provenance, kind="sequence"))
    with pytest.raises(InputError) as error:
        build_detector(0, ROOMY, [replace(small(KIND), bundle=BundleFile(other))])
    assert message in str(error.value)
    assert str(error.value).startswith(str(other))
    assert "\n" not in str(error.value)


def test_the_policy_of_a_bundle_counts_and_the_bounds_of_the_configuration(path: Path) -> None:
    section = replace(KIND.section(), tokens=TokenConfig(policy="keep", patience=7.0))
    fitted = ModelSpec("m", KIND, section, bundle=BundleFile(path)).fitted
    assert (fitted.tokens.policy, fitted.tokens.patience) == ("stream", 7.0)


def test_a_state_that_does_not_fit_is_refused() -> None:
    model = SequenceModel(TokenConfig(), LSTM.random(LSTMConfig(TokenConfig().inputs, 16), 0), 10)
    good = {"slots": np.array([3]), "state": np.zeros((1, 32), np.float32)}
    model.restore((good, {"tokens": 1}))
    for name, array in (
        ("slots", np.array([10])), ("slots", np.array([-1])), ("state", np.full((1, 32), np.nan, np.float32)),
        ("state", np.zeros((1, 31), np.float32)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be finite|outside 0 to 9"):
            model.restore(({**good, name: array}, {"tokens": 1}))


def test_a_header_bundle_is_folded_and_scores_like_its_table(tmp_path: Path) -> None:
    spec = small(KIND)
    tokens = replace(spec.section.tokens, encoder="header")
    lstm = LSTM.random(LSTMConfig(tokens.inputs, 16), 0)
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(256, 4)).astype(np.float32)
    weights = rng.normal(size=(tokens.words * 4, 64)).astype(np.float32)
    learned = bundled(spec, blocks(stream(5, 900), []), tmp_path / "base").bundle
    assert learned is not None
    config = learned.bundle.config | {
        "lstm": {"inputs": tokens.inputs, "hidden": 16, "layers": 1},
        "tokens": {"policy": "keep", "encoder": "header", "identity": False, "version": VERSION},
    }
    arrays = lstm.arrays() | {
        "input.0": weights, "embedding": embedding, "hosts": learned.bundle.arrays["hosts"],
    }  # fmt: skip
    file = tmp_path / "header"
    file.write_bytes(bundle.pack(arrays, config, {}, kind="sequence"))
    rows = said([replace(spec, bundle=BundleFile(file))], blocks(stream(5, 900), []), ROOMY).rows("sequence")
    assert np.isfinite(scores_of(rows)).any()
    wrong = {**arrays, "embedding": embedding[:, :3]}
    file.write_bytes(bundle.pack(wrong, config, {}, kind="sequence"))
    with pytest.raises(InputError, match=r"do not fit|input\.0"):
        build_detector(0, ROOMY, [replace(spec, bundle=BundleFile(file))])
