"""score and train: what they write and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.types import PacketBlock
from models import bundle
from tests.support.calls import N, called, refused, summary
from tests.support.demo import piece
from tests.support.disks import listing

pytestmark = pytest.mark.compiled


def test_a_capture_is_scored_and_summed_up(capture: Path, tmp_path: Path) -> None:
    got = summary(capture, "--learn", 1000, "--out", tmp_path)
    assert (got["packets"], got["phase"], got["losses"], got["problem"]) == (N, "score", {}, None)
    table = pq.read_table(tmp_path / "scores.parquet")
    final = np.array(table.column("final").to_pylist())
    assert got["connections"] == int(final.sum())
    assert got["alarms"] == int((final & np.array(table.column("alarm").to_pylist())).sum())
    assert got["alerts"] == len((tmp_path / "alerts.jsonl").read_text().splitlines())
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]


def test_the_table_for_people_is_whole_also_without_a_terminal(capture: Path) -> None:
    result = called("score", capture, "--learn", 1000)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"packets      {N:,} in" in result.stdout
    assert "…" not in result.stdout
    top = summary(capture, "--learn", 1000)["top"]
    assert isinstance(top, list)
    assert [row["community_id"] for row in top] == [w for w in result.stdout.split() if w.startswith("1:")]


def test_a_run_too_short_to_learn_says_so_in_its_summary(capture: Path) -> None:
    got = summary(capture)
    assert got["phase"] == "map"
    assert got["notes"]
    assert got["scored"] == 0


def test_what_came_before_the_damage_is_scored(damaged: Path, tmp_path: Path) -> None:
    whole = piece(tmp_path / "whole.pcap", N - 1)
    assert summary(whole, "--learn", 1000, "--out", tmp_path / "expected")["packets"] == N - 1
    result = called("score", damaged, "--learn", 1000, "--out", tmp_path / "got")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "damaged.pcap: " in result.stderr
    for name in ("scores.parquet", "alerts.jsonl"):
        assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    got = summary(damaged, "--learn", 1000, code=1)
    assert got["packets"] == N - 1
    assert "damaged.pcap" in str(got["problem"])


def test_two_runs_give_equal_bytes(capture: Path, tmp_path: Path) -> None:
    for k in range(3):
        summary(capture, "--learn", 1000, "--out", tmp_path / str(k))
    for name in ("scores.parquet", "alerts.jsonl", "metrics.prom"):
        assert len({(tmp_path / str(k) / name).read_bytes() for k in range(3)}) == 1, name


def test_a_capture_of_nothing_but_arp_is_one_connection_by_macs(tmp_path: Path) -> None:
    arp = (
        b"\xff" * 6
        + b"\x02" * 6
        + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"
        + b"\x02" * 6
        + b"\x0a\0\0\x01"
        + b"\0" * 10
    )
    head = piece(tmp_path / "arp.pcap", 0).read_bytes()
    size = len(arp).to_bytes(4, "little")
    records = ((1_700_000_000 + k).to_bytes(4, "little") + bytes(4) + size + size + arp for k in range(100))
    (tmp_path / "arp.pcap").write_bytes(head + b"".join(records))
    got = summary(tmp_path / "arp.pcap", "--learn", 50)
    assert (got["packets"], got["connections"]) == (100, 1)
    assert [row["proto"] for row in got["top"]] == ["arp"]  # type: ignore[attr-defined]


def at_once(folder: Path) -> Path:
    """A configuration without a warm-up."""
    path = folder / "at-once.yaml"
    path.write_text("kitsune: {start: {warmup_packets: 0}}")
    return path


def test_a_bundle_scores_as_the_model_it_was_made_of(capture: Path, trained: Path, tmp_path: Path) -> None:
    assert listing(trained.parent) == [trained.name]
    config = at_once(tmp_path)
    got = summary(capture, "--model", trained, "-c", config, "--out", tmp_path / "a")
    assert got["phase"] == "score"
    assert got["scored"] == got["connections"]
    summary(capture, "--model", trained, "-c", config, "--out", tmp_path / "b")
    assert (tmp_path / "a/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()


def test_a_bundle_scores_what_comes_after_as_the_process_that_learned_it(tmp_path: Path) -> None:
    """Learned and scored in one process, against learned, saved and scored in another: from the first packet on
    whose features owe nothing to what was learned from, scores are equal to the bit."""
    from engine.commands.models import chosen_models
    from engine.commands.reading import frames
    from engine.config import load
    from engine.headers.decode import decode
    from engine.scoring.building import build_detector

    capture = piece(tmp_path / "c.pcap", 1000)
    trained = tmp_path / "m.bundle"
    assert called("train", "kitsune", capture, "-o", trained, "--force").exit_code == 0
    config = load(at_once(tmp_path))
    later = [decode(f, config.decode) for f in frames([piece(tmp_path / "l.pcap", 500, 1000)], 4096)]
    models = chosen_models(config, [str(trained)])
    frozen = []
    for _ in range(2):
        detector, seq, said = build_detector(0, config.connections, models), 0, []
        for p in later:
            said += detector.process(PacketBlock("s", 0, seq, p, int(p.ts[-1])))
            seq += p.ts.size
        said += detector.flush()
        assert detector.counters(detector.scorers[0])["flows"] > 0
        frozen.append(np.concatenate([b.scores["score"][b.scores["final"]] for b in said]))
    assert np.array_equal(frozen[0], frozen[1], equal_nan=True)
    words = "-c", at_once(tmp_path), "--out", tmp_path
    summary_scores = summary(tmp_path / "l.pcap", "--model", trained, *words)["top"]
    assert isinstance(summary_scores, list)
    assert summary_scores[0]["score"] == np.nanmax(frozen[0])


def test_training_twice_gives_equal_bundles(capture: Path, trained: Path, tmp_path: Path) -> None:
    assert called("train", "kitsune", capture, "-o", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again").read_bytes() == trained.read_bytes()


def test_training_writes_nothing_but_the_bundle_whatever_is_configured(capture: Path, tmp_path: Path) -> None:
    config = tmp_path / "w.yaml"
    config.write_text(
        f"output: {{directory: {tmp_path}/out}}\nbus: {{partitions: 3}}\nmetrics: {{port: 0}}\n"
    )
    assert called("train", "kitsune", capture, "-c", config, "-o", tmp_path / "b").exit_code == 0
    assert listing(tmp_path) == ["b", "w.yaml"]


def test_a_bundle_scores_nothing_before_its_streams_are_warm_and_says_so(
    capture: Path, trained: Path, tmp_path: Path
) -> None:
    got: Any = summary(capture, "--model", trained, "--out", tmp_path / "a")
    assert (got["phase"], got["scored"], got["alarms"]) == ("warm", 0, 0)
    assert set(pq.read_table(tmp_path / "a" / "scores.parquet")["phase"].to_pylist()) == {"warm"}
    assert (
        "the packets are older than the streams that the bundle carries: they were left out" in got["notes"]
    )
    (note,) = (note for note in got["notes"] if note.startswith("warm-up: "))
    assert "scored nothing" in note
    assert "kitsune.start.warmup_packets: 0" in note
    config = tmp_path / "w.yaml"
    config.write_text("kitsune: {start: {warmup_packets: 1000}}")
    got = summary(capture, "--model", trained, "-c", config)
    assert got["phase"] == "score"
    assert 0 < got["scored"] < got["connections"]
    assert "warm-up: the first 1,000 packets filled the streams and have no score" in got["notes"]


def test_a_bundle_continues_with_the_streams_of_its_training(tmp_path: Path) -> None:
    before, after = piece(tmp_path / "b.pcap", 4000), piece(tmp_path / "a.pcap", 2000, 4000)
    trained = called("train", "kitsune", before, "-o", tmp_path / "m")
    assert trained.exit_code == 0
    flows = len(bundle.load(tmp_path / "m").arrays["streams.flows"])
    assert f"the bundle carries the streams of {flows:,} flows (0." in trained.stdout
    got: Any = summary(after, "--model", tmp_path / "m")
    assert got["phase"] == "score"
    assert got["scored"] > 0
    assert not [note for note in got["notes"] if "warm-up" in note or "left out" in note]
    config = tmp_path / "w.yaml"
    config.write_text("kitsune: {start: {carry_flows: 0}}")
    assert called("train", "kitsune", before, "-c", config, "-o", tmp_path / "bare").exit_code == 0
    assert summary(after, "--model", tmp_path / "bare")["phase"] == "warm"
    names = bundle.load(tmp_path / "m").arrays.keys() - bundle.load(tmp_path / "bare").arrays.keys()
    assert {name.partition(".")[0] for name in names} == {"streams"}


@pytest.mark.parametrize("kind", ["kitsune", "baseline"])
def test_training_on_little_is_refused_unless_forced_and_damage_is_told_first(
    kind: str, damaged: Path, tmp_path: Path
) -> None:
    few, fewer = piece(tmp_path / "few.pcap", 700), piece(tmp_path / "fewer.pcap", 600)
    out = tmp_path / "b"
    refused(called("train", kind, fewer, "-o", out), 1, "480 packets to learn from, at least 500 are needed")
    refused(called("train", kind, few, "-o", out), 1, "connections to calibrate with, at least 20 are needed")
    refused(called("train", kind, damaged, "-o", out, "--learn", 100), 1, "damaged.pcap: byte ")
    refused(called("train", kind, tmp_path / "no.pcap", "-o", out), 1, "no.pcap: No such file")
    assert not out.exists()
    for path in (few, fewer):
        assert called("train", kind, path, "-o", out, "--force").exit_code == 0
    assert bundle.load(out).kind == kind


def test_scoring_with_little_to_learn_from_goes_on_with_a_loud_note(capture: Path) -> None:
    loud = "DO NOT RELY ON THESE ALARMS: the model had"
    few: Any = summary(capture, "--learn", 50)["notes"]
    assert f"{loud} 40 packets to learn from, at least 500 are needed" in few
    calibrated: Any = summary(capture, "--learn", 700)["notes"]
    assert [n for n in calibrated if n.startswith(loud) and "connections to calibrate with" in n]
    enough: Any = summary(capture, "--learn", 2000)["notes"]
    assert not [n for n in enough if n.startswith(loud)]


def test_the_rate_that_a_calibration_can_promise_is_shown(capture: Path) -> None:
    got: Any = summary(capture, "--learn", 1000)
    assert got["promised_rate"] == got["models"]["kitsune"]["promised_rate"] > 0.001
    percent = f"{100 * got['promised_rate']:.2g} % false alarms promised"
    assert percent in called("score", capture, "--learn", 1000).stdout


def test_training_from_too_little_or_from_damage_is_refused(damaged: Path, tmp_path: Path) -> None:
    few = piece(tmp_path / "few.pcap", 9)
    refused(called("train", "kitsune", few, "-o", tmp_path / "b"), 1, "few.pcap: only 9 packets; at least 10")
    refused(called("train", "kitsune", few, "-o", tmp_path / "b", "--learn", 100), 1, "no bundle was written")
    refused(called("train", "kitsune", few, "-o", tmp_path / "b", "--learn", 0), 2, "--learn 0: at least 10")
    refused(
        called("train", "kitsune", damaged, "-o", tmp_path / "b", "--learn", 100), 1, "no bundle was written"
    )
    refused(called("train", "kitsune", "-", "-o", tmp_path / "b"), 2, "stdin can be read only once")
    assert listing(tmp_path) == ["few.pcap"]


def test_bundles_that_do_not_fit_are_named(capture: Path, trained: Path, tmp_path: Path) -> None:
    data = trained.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "garbage").write_bytes(b"garbage" * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "w.yaml").write_text("kitsune: {features: {lambdas: [4, 3, 2, 1, 0.5]}}")
    (tmp_path / "other").write_bytes(bundle.pack({}, {}, {}, kind="kitnet"))
    for name, said in (
        ("cut", "cut: not a readable bundle"), ("garbage", "garbage: not a readable bundle"), ("empty", "empty: "),
        ("missing", "missing: "), (".", "not a regular file"), ("other", "holds a 'kitnet'; this version knows "),
    ):  # fmt: skip
        refused(called("score", capture, "--model", tmp_path / name, "--out", tmp_path / "out"), 1, said)
    result = called("score", capture, "--model", trained, "-c", tmp_path / "w.yaml")
    refused(result, 1, "learned with lambdas [5.0, 3.0, 1.0, 0.1, 0.01], the configuration has [4.0, 3.0")
    assert "out" not in listing(tmp_path)


def test_a_bundle_with_any_byte_of_its_header_changed_is_refused_or_used(trained: Path) -> None:
    from engine.commands.models import chosen_models
    from engine.config import Config
    from engine.connections.bounds import TrackerConfig
    from engine.errors import ConfigError, InputError
    from engine.scoring.building import build_detector

    data = trained.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(7)
    changed = trained.with_name("changed")
    used = 0
    for at in rng.integers(0, end, 300).tolist():
        changed.write_bytes(data[:at] + bytes([int(rng.integers(32, 127))]) + data[at + 1 :])
        try:
            build_detector(0, TrackerConfig(capacity=10), chosen_models(Config(), [str(changed)]))
            used += 1
        except (ConfigError, InputError):
            pass
    changed.unlink()
    assert used < 150
