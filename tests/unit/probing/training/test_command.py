"""`wiresonde train sequence`: what it refuses, and what it writes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.features.tokens import INPUTS, POLICIES, VERSION, TokenConfig
from engine.scoring.building import HOSTS, BundleFile, digest_of_file
from engine.scoring.hosts import Hosts
from engine.scoring.scorer import ScorerConfig
from engine.scoring.sequence import lstm_of, tokens_of
from models.bundle import load
from models.threshold import Threshold
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import of_corpus
from probing.training import cli
from probing.training.job import bundle_places
from probing.training.network import Network, last_scores, shape_of
from probing.training.recipe import Recipe
from probing.training.sequences import read_sequences
from tests.support.calls import called, refused
from tests.support.small_corpus import Entry, clean, write

QUICK = ("--steps", 40, "--hidden", 6)


@pytest.fixture(autouse=True)
def _threads() -> Any:
    """Leave torch's number of threads as it was."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch:
        torch.set_num_threads(before)


def with_ttl(made: list[Entry], ttl: int) -> list[Entry]:
    for exchange, row in made:
        if row.get("attack"):
            exchange.ttl = ttl
    return made


def corpus(folder: Path, name: str = "made") -> Path:
    return write(folder, clean(runs=16), name)


def test_without_torch_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = called("train", "sequence", tmp_path / "none", "-o", tmp_path / "m")
    refused(result, 2, "training a sequence model needs PyTorch: pip install 'wiresonde[train]'")


@pytest.mark.parametrize(("words", "said"), [
    (("--background", "x.pcap"), "--background and --labels belong together"),
    (("--labels", "x.csv"), "--background and --labels belong together"),
    (("--hidden", "0"), "hidden 0 must be from 1 to 512"),
    (("--rate", "0"), "rate 0.0 must be greater than 0"),
    (("--false-positive-rate", "1"), "false_positive_rate 1.0 must lie in (0, 1)"),
])  # fmt: skip
def test_wrong_options_end_with_one_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused(called("train", "sequence", tmp_path / "c", "-o", tmp_path / "m", *words), 2, said)


def test_a_bundle_cannot_go_to_stdout(tmp_path: Path) -> None:
    refused(called("train", "sequence", tmp_path / "c", "-o", "-"), 2, "a bundle cannot go to stdout")


def test_other_kinds_are_trained_as_before(tmp_path: Path) -> None:
    assert "sequence" in called("train", "--help").stdout
    refused(called("train", "oracle", tmp_path / "x", "-o", tmp_path / "m"), 2, "no such kind of model")


def test_the_commands_policies_are_those_of_the_tokens() -> None:
    assert cli.POLICIES == POLICIES


def test_defaults_are_the_recipes() -> None:
    given = {p.name: p.default for p in cli.train_sequence.params}
    assert {name: value for name, value in asdict(Recipe()).items() if name in given} == {
        name: given[name] for name in ("hidden", "layers", "steps", "rate", "patience", "seed")
    }


def test_several_seeds_have_bundles_with_numbers() -> None:
    assert bundle_places(Path("a/m.safetensors"), 5, 1) == {5: Path("a/m.safetensors")}
    assert bundle_places(Path("a/m.safetensors"), 5, 2) == {
        5: Path("a/m-1.safetensors"), 6: Path("a/m-2.safetensors")}  # fmt: skip


def test_a_corpus_with_a_fault_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = write(tmp_path / "c", with_ttl(clean(runs=16), 63)), tmp_path / "m.safetensors"
    result = called("train", "sequence", path, "-o", out, *QUICK)
    refused(result, 1, "made: giveaway of injection/union: TTL of the first packet up: AUC 1.000")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    forced = called("train", "sequence", path, "-o", out, *QUICK, "--force")
    assert forced.exit_code == 0, forced.output
    assert "warning: made: giveaway of injection/union" in forced.stderr


def test_a_bundle_holds_what_the_engine_needs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = corpus(tmp_path), tmp_path / "m.safetensors"
    result = called("train", "sequence", path, "-o", out, *QUICK, "--policy", "keep")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    bundle = load(out, kind="sequence")
    assert {name: a.shape for name, a in bundle.arrays.items()} == {
        "input.0": (INPUTS, 24), "hidden.0": (6, 24), "bias.0": (24,), "output": (6,), "output_bias": (1,), HOSTS: (0,),
    }  # fmt: skip
    config = bundle.config
    assert config["lstm"] == {"inputs": INPUTS, "hidden": 6, "layers": 1}
    assert config["tokens"] == {"policy": "keep", "encoder": "sizes", "identity": False, "version": VERSION}
    assert ScorerConfig(**config["scorer"]).aggregate == "last"
    threshold = Threshold(**config["threshold"])
    assert threshold.n == bundle.provenance["parts"]["calibrate"]["benign"] == 15
    assert (threshold.false_positive_rate, threshold.sufficient) == (0.01, False)
    assert len(Hosts.from_state(bundle.arrays[HOSTS], config[HOSTS])) == 0
    assert "warning: too few to calibrate with: 1,000 are needed for a rate of 0.01" in result.stderr


@pytest.mark.parametrize("encoder", ["sizes", "header"])
def test_the_engine_scores_with_a_bundle_as_training_did(encoder: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = corpus(tmp_path), tmp_path / "m.safetensors"
    words = ("--policy", "keep", "--encoder", encoder, "--layers", 2)
    assert called("train", "sequence", path, "-o", out, *QUICK, *words).exit_code == 0
    bundle = BundleFile(out).learned
    lstm = lstm_of(bundle)
    tokens, read = tokens_of(bundle, TokenConfig()), read_corpus(path)
    data = read_sequences(of_corpus(read), [read.capture], tokens)
    network = Network(shape_of(tokens, 6, 2, Recipe().embedding))
    network.take(bundle.arrays)
    scores, state = np.empty(data.rows.shape[0]), lstm.new_state(len(data))
    slot = np.repeat(np.arange(len(data), dtype=np.int32), data.lengths)
    lstm.step(data.rows.astype(np.int32), data.values, slot, state, scores)
    assert scores[data.start[1:] - 1] == pytest.approx(last_scores(network, data), abs=1e-5)  # float32
    assert called("score", read.capture, "--model", out).exit_code == 0


def test_a_bundle_tells_its_origin(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = corpus(tmp_path), tmp_path / "m.safetensors"
    assert called("train", "sequence", path, "-o", out, *QUICK, "--seed", 3).exit_code == 0
    origin = load(out).provenance
    (given,) = origin["corpora"]
    assert given["name"] == "made"
    assert given["labels"] == {
        "name": "made.labels.parquet",
        "sha256": digest_of_file(tmp_path / "made.labels.parquet"),
    }
    assert given["captures"] == [
        {"name": "made.pcap.zst", "sha256": digest_of_file(tmp_path / "made.pcap.zst")}
    ]
    assert origin["recipe"] == asdict(Recipe(hidden=6, steps=40, seed=3))
    counts = origin["parts"]
    share = counts["fit"]["attacks"] / (counts["fit"]["attacks"] + counts["fit"]["benign"])
    assert origin["shares"] == pytest.approx(
        {"attack: injection": share, "probe: http/get": 1 - share}, abs=1e-6
    )
    assert counts["calibrate"]["attacks"] == 0
    assert counts["fit"]["runs"] + counts["held_out"]["runs"] == 19
    assert origin["steps"] == origin["best_step"] == 40


def test_the_learning_curve_is_written_beside_the_bundle(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = corpus(tmp_path / "c"), tmp_path / "m.safetensors"
    assert called("train", "sequence", path, "-o", out, *QUICK).exit_code == 0
    curve = json.loads((tmp_path / "m.curve.json").read_text())
    assert [row["step"] for row in curve["curve"]] == [40]
    written = {p.name for p in tmp_path.iterdir()} - {"c", "m.curve.png"}  # a picture only with matplotlib
    assert written == {"m.safetensors", "m.curve.json"}


def test_the_picture_of_a_curve_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from probing.training.curve import write_curve
    from probing.training.train import Learned

    row = {"step": 1, "rate": 1.0, "loss": 0.7, "validation_loss": 0.6, "validation_auc": 0.8}
    paths = write_curve(tmp_path / "m.x", Learned({}, 2, 0.5, [row, row | {"step": 2}]))
    assert [p.name for p in paths] == ["m.curve.json", "m.curve.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_general_traffic_is_one_more_type_of_traffic(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = corpus(tmp_path)
    other = write(tmp_path / "general", clean(runs=8, seed=9, server_impl="x"), "general")
    labels = tmp_path / "general.csv"
    rows = [f"10.0.0.{10 + k},,,,,1600000000,1800000000,{int(k < 8)},r{k}" for k in range(16)]
    labels.write_text("\n".join(["src,sport,dst,dport,proto,start,end,attack,run", *rows]) + "\n")
    words = ("--background", other.with_name("general.pcap.zst"), "--labels", labels)
    out = tmp_path / "m.safetensors"
    result = called("train", "sequence", path, "-o", out, *QUICK, *words)
    assert result.exit_code == 0, result.output
    origin = load(out).provenance
    assert set(origin["shares"]) == {
        "general traffic",
        "attack: injection",
        "probe: http/get",
        "attack: attack",
    }
    assert sum(origin["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert [given["name"] for given in origin["corpora"]] == ["made", "general.pcap.zst"]


def test_several_seeds_give_several_networks(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, out = corpus(tmp_path / "c"), tmp_path / "m.safetensors"
    assert called("train", "sequence", path, "-o", out, *QUICK, "--seeds", 2).exit_code == 0
    one, other = (load(tmp_path / f"m-{k}.safetensors") for k in (1, 2))
    assert [b.provenance["recipe"]["seed"] for b in (one, other)] == [1, 2]
    assert one.provenance["parts"] == other.provenance["parts"]
    assert not np.array_equal(one.arrays["output"], other.arrays["output"])
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_same_corpus_twice_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = corpus(tmp_path)
    refused_with = "made: given twice"
    result = called("train", "sequence", path, path, "-o", tmp_path / "m", *QUICK)
    assert result.exit_code == 1
    assert refused_with in result.stderr.splitlines()[-1]
