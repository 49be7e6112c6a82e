"""The committed sequence bundles score their corpus as when they were made, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.commands.models import chosen_models
from engine.commands.score import Job, Scoring
from engine.config import Config
from engine.labels.file import read_labels
from engine.scoring.columns import read_scores
from models import bundle
from probing.analysis.roc import area
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import of_corpus
from probing.training.sequences import ATTACK, UNSURE, truth

pytestmark = pytest.mark.compiled

ROOT = Path(__file__).parents[2]
BUNDLES = ROOT / "bundles"
CAPTURE = ROOT / "corpora" / "sqli.pcap.zst"
KNOWN = json.loads((BUNDLES / "scores.json").read_text())
LARGEST = 300_000  # bytes of a committed bundle


def auc_of_test_part(said: dict[str, float]) -> float:
    """AUC over the part that no bundle was trained on, attacks that failed left out. said: score by uid."""
    known = of_corpus(read_corpus(CAPTURE))
    ours = np.flatnonzero(known.row >= 0)
    labels = known.labels.take(pa.array(known.row[ours]))
    chosen = (np.array(labels.column("part").to_pylist()) == "test") & (truth(labels) != UNSURE)
    uids = np.array(known.traffic.connections["uid"].to_pylist())[ours]
    score = np.array([said[uid] for uid in uids[chosen].tolist()])
    return area(score, truth(labels)[chosen] == ATTACK)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_committed_bundle_scores_as_when_it_was_made(name: str, tmp_path: Path) -> None:
    path = BUNDLES / f"{name}.safetensors"
    assert path.stat().st_size <= LARGEST
    config = Config.model_validate({"output": {"directory": str(tmp_path)}})
    known = read_labels(ROOT / "corpora" / "sqli.labels.parquet", config.labels.max_probes)
    Scoring(Job([CAPTURE], config, known, chosen_models(config, [str(path)]))).run()
    rows = read_scores([tmp_path / "scores.parquet"])
    rows = rows.filter(rows["final"])
    said = {row["uid"]: row["score"] for row in rows.select(["uid", "score"]).to_pylist()}
    for uid, score in KNOWN[name]["scores"].items():
        assert said[uid] == pytest.approx(score, abs=1e-5), uid
    assert auc_of_test_part(said) == pytest.approx(KNOWN[name]["auc"], abs=1e-3)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_committed_bundle_says_what_it_was_made_of(name: str) -> None:
    made = bundle.load(BUNDLES / f"{name}.safetensors")
    assert made.config["tokens"]["policy"] == name.removeprefix("sqli-")
    text = json.dumps(made.provenance)
    for word in ("sqli", "sha256", "wiresonde", "seed"):
        assert word in text, word


def test_scoring_with_them_needs_no_torch() -> None:
    code = "import sys, engine.cli, engine.commands.score, engine.scoring.kinds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
