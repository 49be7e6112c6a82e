"""The corpora: made anew where that is possible, and those that are committed everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine.commands.reading import Choice, read_connection_tables
from engine.config import Config
from probing.corpus.corpus import read_corpus
from probing.corpus.join import join
from probing.lab import assemble, catalog
from probing.lab.check import programs
from tests.integration.kafka.site import ROOT
from tests.support.lab import needs, needs_default_link

COMMITTED = ROOT / "corpora"
MADE = ("normal", "small", "probe")
LOSSY = ["loss_pct", "burst_loss_pct", "outage_every_ms", "queue_discipline"]  # what can drop the last FIN
STATES = {
    "fin": {"SF"}, "timeout": {"SF"}, "rst": {"RSTO", "RSTR"}, "sudden": {"S1", "S2"}, "refused": {"REJ", "S0"},
    "none": {"SF", "S0", "SHR", "OTH"},
}  # fmt: skip


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
    assert set(endings) >= {"fin", "rst", "sudden", "timeout"}


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
    assert sum(path.stat().st_size for path in files) <= 9_000_000
    for name in MADE:
        assert read_corpus(COMMITTED / name).manifest["snap"] == "headers"


def test_committed_corpora_have_the_settings_of_their_files() -> None:
    """Of probe a share of the samples, but every run."""
    for name in MADE:
        made = {run["run"]["id"]: run["run"] for run in read_corpus(COMMITTED / name).manifest["runs"]}
        wanted = {run.id: assemble.settings_of(run) for run in catalog.expand(catalog.find(name))}
        assert made.keys() == wanted.keys()
        for key, run in made.items():
            less = {"samples": wanted[key]["samples"], "users": wanted[key]["users"]}
            assert run | less == wanted[key]
