"""The corpora: made anew where that is possible, and those that are committed everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine.commands.reading import Choice, read_connection_tables
from engine.config import Config
from probing.corpus.check import Settings, check
from probing.corpus.corpus import read_corpus
from probing.corpus.join import join
from probing.corpus.labelled import of_corpus
from probing.lab import assemble, catalog
from probing.lab.check import programs
from tests.integration.kafka.site import ROOT
from tests.support.lab import needs, needs_default_link

COMMITTED = ROOT / "corpora"
MADE = ("normal", "small", "probe", "sqli", "factorial", "tables", "ends")
ALL_ENDS = ("normal", "small", "probe", "factorial", "ends")  # corpora with every way a connection can end
LINK = ("delay_ms", "loss_pct", "jitter_ms")
LOSSY = ["loss_pct", "burst_loss_pct", "outage_every_ms", "queue_discipline"]  # what can drop the last FIN
STATES = {
    "fin": {"SF"}, "timeout": {"SF"}, "rst": {"RSTO", "RSTR"}, "sudden": {"S1", "S2"}, "refused": {"REJ", "S0"},
    "none": {"SF", "S0", "SHR", "OTH"},
}  # fmt: skip


def wiresonde(*words: str | Path) -> dict[str, Any]:
    """The summary that a command prints as JSON; {} from a command that prints text."""
    line = [sys.executable, "-m", "engine.cli", *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) if "--json" in words else {}


def check_corpus(path: Path) -> None:
    """Every connection of the capture has one row, every row one connection, and ends as its row says."""
    corpus = read_corpus(path)
    tables = read_connection_tables([corpus.capture], Config(), choice=Choice(link_layer=True))
    connections = pa.concat_tables(list(tables))
    rows = join(corpus.labels, connections)
    assert Counter(rows.tolist()) == Counter(range(corpus.labels.num_rows))
    endings = corpus.labels.column("termination").to_pylist()
    lossy = [
        row["loss_pct"] > 0 or row["burst_loss_pct"] > 0 or row["outage_every_ms"] > 0
        or row["queue_discipline"] == "codel"
        for row in corpus.labels.select(LOSSY).to_pylist()
    ]  # fmt: skip
    states = connections.column("conn_state").to_pylist()
    wrong = [
        (
            corpus.labels.slice(k, 1)
            .select(["scenario", "activity", "client_impl", "termination"])
            .to_pylist(),
            state,
        )
        for k, state in zip(rows.tolist(), states)
        if state not in STATES[endings[k]]
        and not (lossy[k] and state in ("S2", "S3"))  # the last FIN was lost
    ]
    assert wrong == []
    assert set(endings) >= {"fin", "rst", "sudden", "timeout"} or path.name not in ALL_ENDS


@pytest.mark.lab
@pytest.mark.compiled
def test_small_is_made_in_minutes_and_holds_every_scenario(tmp_path: Path) -> None:
    needs(*programs(["small"]))
    needs_default_link()
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "lab", "run", "small", "--out", str(tmp_path), "--headers"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_corpus(tmp_path / "small")
    corpus = read_corpus(tmp_path / "small")
    assert corpus.labels.num_rows > 1200
    assert set(corpus.labels.column("scenario").to_pylist()) == set(catalog.scenarios())
    assert sum(run["failed_samples"] for run in corpus.manifest["runs"]) <= 2


@pytest.mark.compiled
@pytest.mark.parametrize("name", MADE)
def test_committed_corpora_are_whole(name: str) -> None:
    check_corpus(COMMITTED / name)


def test_the_corpus_to_learn_from_has_no_attack_and_enough_to_calibrate_on() -> None:
    """By default the last fifth of the packets calibrates."""
    corpus = read_corpus(COMMITTED / "normal")
    assert set(corpus.labels.column("attack").to_pylist()) == {0}
    assert set(corpus.labels.column("problem").to_pylist()) == {None}
    packets = pc.add(corpus.labels.column("packets_up"), corpus.labels.column("packets_down")).to_numpy()
    seen = np.cumsum(packets[corpus.labels.column("start").cast(pa.int64()).to_numpy().argsort()])
    assert seen[-1] >= 30_000
    assert np.count_nonzero(seen > 0.8 * seen[-1]) >= 200


def test_the_corpus_to_learn_from_has_the_benign_settings_of_small() -> None:
    """Scenario, activity, server, client, link, load and parameters of every run without an attack."""

    def settings(name: str) -> set[str]:
        runs = catalog.expand(catalog.find(name))
        return {
            run.model_dump_json(
                include={"scenario", "activity", "server", "client", "link", "load", "parameters"}
            )
            for run in runs
            if not catalog.scenario(run.scenario).activities[run.activity].attack
        }

    assert settings("normal") == settings("small")
    assert not {r.seed for r in catalog.expand(catalog.find("normal"))} & {
        r.seed for r in catalog.expand(catalog.find("small"))
    }


def test_committed_corpora_are_small_and_of_headers_only() -> None:
    files = [path for path in COMMITTED.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_500_000
    for name in MADE:
        assert read_corpus(COMMITTED / name).manifest["snap"] == "headers"


@pytest.mark.compiled
def test_a_bundle_of_the_corpus_to_learn_from_gives_scores_for_all_others(tmp_path: Path) -> None:
    bundle = tmp_path / "normal.safetensors"
    wiresonde("train", "kitsune", COMMITTED / "normal.pcap.zst", "-o", bundle)
    for name in MADE[1:]:
        capture, labels = (COMMITTED / f"{name}.{kind}" for kind in ("pcap.zst", "labels.parquet"))
        done = wiresonde("score", capture, "--labels", labels, "--model", bundle, "--json")
        assert done["scored"] > 0.5 * done["connections"], name


def test_thinned_sqli_has_enough_of_each_part() -> None:
    """At least 1,500 connections to train on, and 200 attacks and 400 benign ones for each link to test with."""
    labels = read_corpus(COMMITTED / "sqli").labels.select(["part", "attack", *LINK, "run"]).to_pylist()
    parts = Counter(row["part"] for row in labels)
    assert set(parts) == {"train", "calibrate", "test"}
    assert parts["train"] >= 1500
    tested = Counter((row["attack"], *(row[k] for k in LINK)) for row in labels if row["part"] == "test")
    links = {key[1:] for key in tested}
    assert len(links) == 4
    for link in links:
        assert tested[(1, *link)] >= 200
        assert tested[(0, *link)] >= 400
    seeds = {part: {row["run"][:12] for row in labels if row["part"] == part} for part in parts}
    assert (
        not seeds["train"] & seeds["test"]
        | seeds["train"] & seeds["calibrate"]
        | seeds["test"] & seeds["calibrate"]
    )


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["sqli", "factorial", "tables", "ends"])
def test_committed_corpora_to_study_have_no_giveaway(name: str) -> None:
    report = check(of_corpus(read_corpus(COMMITTED / name)), Settings())
    assert report.outcome == "passed", report.faults()


def test_committed_corpora_have_the_settings_of_their_files() -> None:
    """Of some a share of the samples, or one vantage, but every run."""
    for name in MADE:
        made = {run["run"]["id"]: run["run"] for run in read_corpus(COMMITTED / name).manifest["runs"]}
        wanted = {run.id: assemble.settings_of(run) for run in catalog.expand(catalog.find(name))}
        assert made.keys() == wanted.keys()
        for key, run in made.items():
            less = {name: wanted[key][name] for name in ("samples", "users", "vantage")}
            assert run | less == wanted[key]
