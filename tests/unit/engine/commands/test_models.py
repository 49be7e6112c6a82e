"""Several models in one command: which there are, what the summary and the metrics say, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from engine.scoring.columns import as_dicts
from models import bundle
from tests.support.calls import called, refused, summary
from tests.support.demo import LABELS, piece
from tests.support.disks import listing

pytestmark = pytest.mark.compiled

BOTH = "models: {kitsune: {kind: kitsune}, watcher: {kind: baseline, shadow: true}}\n"


@pytest.fixture(scope="module")
def baseline(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "baseline.bundle"
    assert called("train", "baseline", capture, "-o", out).exit_code == 0
    return out


def configured(folder: Path, text: str = BOTH) -> Path:
    path = folder / "w.yaml"
    path.write_text(text)
    return path


def of(path: Path, model: str) -> Any:
    table = pq.read_table(path / "scores.parquet")
    return table.filter(pc.equal(table["model"], model))


def test_a_shadow_beside_kitsune_changes_no_row_alert_or_figure_of_it(capture: Path, tmp_path: Path) -> None:
    alone: Any = summary(capture, "--learn", 1000, "--out", tmp_path / "alone")
    config = configured(tmp_path)
    both: Any = summary(capture, "--learn", 1000, "--out", tmp_path / "both", "-c", config)
    assert of(tmp_path / "both", "kitsune").equals(of(tmp_path / "alone", "kitsune"))
    assert (tmp_path / "both/alerts.jsonl").read_bytes() == (tmp_path / "alone/alerts.jsonl").read_bytes()
    assert of(tmp_path / "both", "watcher").num_rows >= alone["connections"]
    for name in ("connections", "scored", "alarms", "alerts", "phase", "threshold", "top", "alarm_pairs"):
        assert both[name] == alone[name], name
    assert list(both["models"]) == ["kitsune", "watcher"]
    assert both["models"]["kitsune"] == alone["models"]["kitsune"]


def test_the_figures_of_each_model_are_those_of_its_rows(capture: Path, tmp_path: Path) -> None:
    got: Any = summary(capture, "--learn", 1000, "--out", tmp_path, "-c", configured(tmp_path))
    for name, figures in got["models"].items():
        rows = of(tmp_path, name).filter(of(tmp_path, name)["final"])
        assert figures["scored"] == rows.num_rows - rows["score"].null_count > 0
        assert figures["alarms"] == pc.sum(rows["alarm"]).as_py()
        assert rows["version"][-1].as_py() in figures["versions"]
        assert figures["threshold"] == max(t for t in rows["threshold"].to_pylist() if t is not None)
    assert [m["shadow"] for m in got["models"].values()] == [False, True]
    assert [m["kind"] for m in got["models"].values()] == ["kitsune", "baseline"]


def test_metrics_count_connections_once_and_scores_by_model_and_version(
    capture: Path, tmp_path: Path
) -> None:
    config = configured(tmp_path, BOTH + "connections: {closing_delay: 0.01, udp_timeout: 0.01}\n")
    got: Any = summary(capture, "--learn", 1000, "--out", tmp_path, "-c", config)
    samples = [s for f in parse((tmp_path / "metrics.prom").read_text()) for s in f.samples]
    (connections,) = [s.value for s in samples if s.name == "wiresonde_connections_total"]
    assert connections == got["connections"]
    counts = {
        (s.labels["model"], s.labels["version"]): s.value
        for s in samples
        if s.name == "wiresonde_score_count"
    }
    for name, figures in got["models"].items():
        (version,) = figures["versions"]
        assert counts[name, "learning"] + counts[name, version] == figures["scored"]
        assert counts[name, "learning"] > 0
    assert len(counts) == 4
    alarmed = {s.labels["model"]: s.value for s in samples if s.name == "wiresonde_alarms_total"}
    assert set(alarmed) == {"kitsune"}  # a shadow has none
    buckets = [s.labels for s in samples if s.name == "wiresonde_score_bucket"]
    edges = {labels["model"]: labels["le"] for labels in buckets if labels["le"] != "+Inf"}
    assert edges == {"kitsune": "100.0", "watcher": "10000.0"}  # each kind's own


def test_people_see_a_line_for_each_model(capture: Path, tmp_path: Path) -> None:
    text = called("score", capture, "--learn", 1000, "-c", configured(tmp_path)).stdout
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert " scored, " in lines["kitsune"]
    assert "inputs of kitsune" in text
    assert "inputs of watcher" in text
    assert lines["watcher"].startswith("watcher      shadow: ")


def test_bundles_are_given_to_models_by_name_and_a_bare_one_to_that_of_its_kind(
    trained: Path, baseline: Path, tmp_path: Path
) -> None:
    capture = piece(tmp_path / "long.pcap", 21_000)  # longer than the warm-up, in each of two partitions
    got: Any = summary(capture, "--model", trained, "--model", f"b-2={baseline}", "--out", tmp_path)
    assert {n: (m["kind"], m["phase"], m["shadow"]) for n, m in got["models"].items()} == {
        "kitsune": ("kitsune", "score", False), "b-2": ("baseline", "score", False),
    }  # fmt: skip
    assert got["models"]["b-2"]["versions"] == [bundle.load(baseline).provenance["version"]]
    samples = [s for f in parse((tmp_path / "metrics.prom").read_text()) for s in f.samples]
    versions = {s.labels["version"] for s in samples if s.name == "wiresonde_score_count"}
    assert versions == {v for m in got["models"].values() for v in m["versions"]}  # none is learning
    named: Any = summary(
        capture, "--model", f"watcher={baseline}", "-c", configured(tmp_path), "--partitions", 2
    )
    assert named["models"]["watcher"]["phase"] == "score"
    assert named["models"]["kitsune"]["phase"] != "score"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("{k}", "kitsune={k}"), "model kitsune is given twice"),
        (("x={k}", "x={b}"), "model x is given twice"),
        (("X={k}",), "'X' is not a valid name (1 to 32 of a-z, 0-9 and -)"),
        ((f"{'x' * 33}={{k}}",), "is not a valid name"),
        (("={k}",), "'' is not a valid name"),
        (("x=",), "the path is empty"),
        (("dir/a=b",), "'dir/a' is not a valid name (1 to 32 of a-z, 0-9 and -); for a path that contains ="),
        (("watcher={k}",), "the bundle is of kind kitsune, but models.watcher.kind is baseline"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_are_refused_in_a_line(
    options: tuple[str, ...], said: str, capture: Path, trained: Path, baseline: Path, tmp_path: Path
) -> None:
    words = [w for o in options for w in ("--model", o.format(k=trained, b=baseline))]
    result = called("score", capture, *words, "-c", configured(tmp_path), "--out", tmp_path / "out")
    refused(result, 2, said)
    assert listing(tmp_path) == ["w.yaml"]


def test_a_path_with_an_equals_sign_is_taken_behind_a_name(
    capture: Path, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a=b.bundle"
    path.write_bytes(trained.read_bytes())
    got: Any = summary(capture, "--model", f"kitsune={path}")
    assert list(got["models"]) == ["kitsune"]


def test_only_shadows_are_refused(capture: Path, tmp_path: Path) -> None:
    text = "models: {a: {kind: kitsune, shadow: true}, b: {kind: baseline, shadow: true}}\n"
    refused(called("score", capture, "-c", configured(tmp_path, text)), 2, "models: a, b: only shadows")


def test_a_kind_that_there_is_not_is_refused(capture: Path, tmp_path: Path) -> None:
    refused(
        called("train", "oracle", capture, "-o", tmp_path / "m"), 2, "train oracle: no such kind of model"
    )
    (tmp_path / "m").write_bytes(bundle.pack({}, {}, {}, kind="oracle"))
    refused(called("score", capture, "--model", tmp_path / "m"), 1, "holds a 'oracle'; this version knows")
    result = called("score", capture, "-c", configured(tmp_path, "models: {x: {kind: oracle}}\n"))
    refused(result, 2, "models.x")


def test_scores_of_a_file_are_shown_by_label_as_in_the_summary(capture: Path, tmp_path: Path) -> None:
    got: Any = summary(
        capture, "--learn", 1000, "--labels", LABELS, "-c", configured(tmp_path), "--out", tmp_path
    )
    names = [name.removeprefix("label.") for name in got["labels"][0] if name.startswith("label.")]
    assert "attack" in names
    result = called("scores", tmp_path / "scores.parquet", "--by", ",".join(names), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found) == ["kitsune", "watcher"]
    assert found["kitsune"] == got["labels"]
    assert sum(row["connections"] for row in found["watcher"]) == sum(r["connections"] for r in got["labels"])
    shown = called("scores", tmp_path / "scores.parquet", "--by", "attack").stdout
    assert "kitsune: " in shown
    assert " attack connections alarm, and " in shown
    rows = called("scores", tmp_path).stdout.splitlines()
    assert len(rows) == pq.read_table(tmp_path / "scores.parquet").num_rows
    assert json.loads(rows[0])["model"] == "kitsune"
    for by in ("attack,attack", "", "attack,"):
        refused(called("scores", tmp_path, "--by", by), 2, "give each label once, separated by commas")
    refused(called("scores", tmp_path / "none", "--by", "attack"), 1, "none: No such file or directory")
    refused(called("scores", tmp_path / "scores.parquet", "--by", "nope"), 2, "--by nope: ")
    refused(
        called("scores", tmp_path / "w.yaml", "--by", "attack"), 1, "w.yaml: not a Parquet file of scores"
    )


def test_a_trace_is_written_beside_the_scores_and_says_when_nothing_matches(
    capture: Path, tmp_path: Path
) -> None:
    config = configured(tmp_path)
    summary(capture, "--learn", 1000, "--out", tmp_path / "a", "-c", config)
    uid = of(tmp_path / "a", "kitsune")["uid"][-1].as_py()
    got: Any = summary(capture, "--learn", 1000, "--out", tmp_path / "b", "-c", config, "--trace", uid)
    trace = pq.read_table(tmp_path / "b/trace.parquet")
    assert set(trace["uid"].to_pylist()) == {uid}
    assert trace.column_names[-2:] == ["score.kitsune", "score.watcher"]
    rows = of(tmp_path / "b", "watcher")
    (row,) = as_dicts(rows.filter(pc.and_(pc.equal(rows["uid"], uid), rows["final"])))
    assert trace.num_rows == row["orig_pkts"] + row["resp_pkts"]
    assert pc.max(trace["score.watcher"]).as_py() == row["score"]
    assert not any("--trace" in note for note in got["notes"])
    community = row["community_id"]
    summary(capture, "--learn", 1000, "--out", tmp_path / "d", "-c", config, "--trace", community)
    assert uid in pq.read_table(tmp_path / "d/trace.parquet")["uid"].to_pylist()
    got = summary(capture, "--learn", 1000, "--out", tmp_path / "c", "--trace", "probe=7")
    assert "--trace: no connection matches the selectors" in got["notes"]
    assert pq.read_table(tmp_path / "c/trace.parquet").num_rows == 0


@pytest.mark.parametrize(
    "wrong", ["x", "probe=0", "probe=x", "probe=4294967296", "label.=x", "label.a=", "C123"]
)
def test_a_selector_that_is_none_is_refused(wrong: str, capture: Path, tmp_path: Path) -> None:
    result = called("score", capture, "--trace", wrong, "--out", tmp_path / "out")
    refused(result, 2, f"--trace {wrong}: give a uid")
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("label.activty=get", "no such label; there are task, activity"),
        ("label.activity=gets", "no such value; activity has "),
    ],
)
def test_a_label_that_no_probe_has_is_refused(
    selector: str, said: str, capture: Path, tmp_path: Path
) -> None:
    words = ("--trace", selector, "--out", tmp_path / "out")
    refused(called("score", capture, "--labels", LABELS, *words), 2, f"--trace {selector}: {said}")
    refused(called("score", capture, *words), 2, "no such label; there are none: give --labels FILE")


def test_a_configuration_with_only_shadows_or_an_unknown_kind_does_not_pass_its_check(tmp_path: Path) -> None:
    for text, said in (
        ("models: {a: {kind: kitsune, shadow: true}}", "only shadows"),
        ("models: {a: {shadow: true}}", "models.a.kind: no kind is given; there are baseline, kitsune"),
        ("models: {kitsune: {kind: baseline}}", "a model of kind baseline cannot be named kitsune"),
        ("labels: {slice: [version]}", "version is already a label of the metrics"),
        (
            "models: {b: {kind: baseline, baseline: {features: 50}}}",
            "models.b.baseline.features 50 must be 20",
        ),
        ("models: {a: {kind: basline}}", "models.a.kind: no kind 'basline'; there are baseline, kitsune"),
    ):
        refused(called("config", "check", configured(tmp_path, text)), 2, said)


def test_a_bundle_is_not_given_the_name_of_another_kind(capture: Path, trained: Path) -> None:
    result = called("score", capture, "--model", f"baseline={trained}")
    refused(result, 2, "a bundle of kind kitsune cannot be named baseline, which is another kind")


def test_a_trace_needs_a_place(capture: Path) -> None:
    refused(called("score", capture, "--trace", "probe=1"), 2, "--trace writes trace.parquet: give --out DIR")
