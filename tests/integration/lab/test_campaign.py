"""Corpora from the command line: whole, resumed, cleaned up after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from click.testing import CliRunner

from engine.cli import main
from tests.support.lab import connections_of, needs

pytestmark = pytest.mark.lab

RUNS = 12


def write_corpus(path: Path, **entry: Any) -> Path:
    given = {
        "scenario": "http", "server": "nginx", "client": "asyncio", "activity": "get", "samples": 5, "copies": RUNS,
        "link": {"delay_ms": 20}, **entry,
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"name": "c", "about": "A test.", "runs": [given]}))
    return path


def command(*words: object) -> list[str]:
    """`wiresonde lab run`, on a machine without real-time priority too."""
    return [sys.executable, "-m", "engine.cli", "lab", "run", *map(str, words), "--link", "user"]


def run(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=300, check=False, **more)


def check_whole(out: Path, runs: int = RUNS, samples: int = 5) -> None:
    """Every connection has one row and one place in the capture, whole; every run is there once."""
    manifest = json.loads((out / "c.manifest.json").read_text())
    rows = (
        pyarrow.parquet.read_table(out / "c.labels.parquet")
        .drop(["start", "end", "sample_start"])
        .to_pylist()
    )
    assert len(manifest["runs"]) == runs
    assert Counter(Counter(row["run"] for row in rows).values()) == {samples: runs}
    found = connections_of(out / "c.pcap.zst")
    assert len(found) == len(rows) == runs * samples
    keys = Counter((c["id.orig_h"], c["id.orig_p"], c["id.resp_h"], c["id.resp_p"]) for c in found)
    assert keys == Counter((row["src"], row["sport"], row["dst"], row["dport"]) for row in rows)
    assert {c["conn_state"] for c in found} == {"SF"}


def processes(mark: str) -> set[str]:
    """Processes with a mark in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.add(f"{entry.name} {(entry / 'cmdline').read_bytes().decode(errors='replace')}")
        except OSError:
            continue
    return found


def orphaned_groups() -> set[str]:
    """Control groups of workers that are gone."""
    found = [p for root in ("cpu", ".") for p in Path("/sys/fs/cgroup", root).glob("wiresonde-lab-*")]
    return {str(p) for p in found if not Path("/proc", p.name.split("-")[2]).exists()}


def test_a_corpus_is_made_whole_and_not_made_twice(tmp_path: Path) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml")
    done = run(corpus, "--out", tmp_path, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert f"c: {RUNS * 5} connections" in done.stderr
    assert done.stdout == ""
    check_whole(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "c.frames.parquet", "c.labels.parquet", "c.manifest.json", "c.pcap.zst", "c.yaml",
    ]  # fmt: skip
    before = (tmp_path / "c.manifest.json").read_bytes()
    again = run(corpus, "--out", tmp_path)
    assert again.returncode == 0
    assert "exists already" in again.stderr
    assert (tmp_path / "c.manifest.json").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_campaign_stopped_halfway_goes_on_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml", load={"quota_pct": 50})
    mark = f"LAB_TEST={tmp_path}"
    process = subprocess.Popen(
        command(corpus, "--out", tmp_path, "--jobs", 2),
        stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "LAB_TEST": str(tmp_path)},
    )  # fmt: skip
    folder = tmp_path / "c.runs"

    def finished() -> int:
        return len([p for p in folder.glob("*/run.json") if p.parent.suffix != ".part"])

    end = time.monotonic() + 60
    while finished() < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert any("worker" in name for name in processes(mark))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    done = {
        p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/run.json") if p.parent.suffix != ".part"
    }
    assert 3 <= len(done) < RUNS
    if number != signal.SIGKILL:
        assert f"{len(done)} of {RUNS} runs are done; the same command continues" in said
    end = time.monotonic() + 5  # the kernel takes private machines down when their first process is gone
    while processes(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes(mark) == set()

    again = run(corpus, "--out", tmp_path, "--keep")
    assert again.returncode == 0, again.stderr
    check_whole(tmp_path)
    for name, at in done.items():  # what was done was not done again
        assert (folder / name / "run.json").stat().st_mtime_ns == at
    assert orphaned_groups() == set()


def test_a_run_that_was_made_for_another_setting_is_made_again(tmp_path: Path) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml", copies=2)
    assert run(corpus, "--out", tmp_path, "--keep").returncode == 0
    write_corpus(tmp_path / "c.yaml", copies=2, link={"delay_ms": 30})
    done = run(corpus, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pyarrow.parquet.read_table(tmp_path / "c.labels.parquet").column("delay_ms").to_pylist()
    assert rows == [30.0] * 10


def test_two_campaigns_in_one_place_are_refused(tmp_path: Path) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml")
    first = subprocess.Popen(
        command(corpus, "--out", tmp_path),
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(tmp_path.glob("c.runs/*/run.json")) and time.monotonic() < end:
        time.sleep(0.02)
    second = run(corpus, "--out", tmp_path)
    assert second.returncode == 1
    assert "another process is making this corpus" in second.stderr
    assert first.wait(120) == 0
    check_whole(tmp_path)


def test_failed_runs_are_told_and_the_others_kept(tmp_path: Path) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml", copies=1)
    given = yaml.safe_load(corpus.read_text())
    given["runs"].append({**given["runs"][0], "limit_s": 0.01})
    corpus.write_text(yaml.safe_dump(given))
    done = run(corpus, "--out", tmp_path)
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    assert "not finished after 0.01 s (limit_s)" in done.stderr
    assert not (tmp_path / "c.pcap.zst").exists()
    assert len([p for p in tmp_path.glob("c.runs/*/run.json") if p.parent.suffix != ".part"]) == 1


def test_both_vantages_and_headers_only(tmp_path: Path) -> None:
    needs("nginx")
    corpus = write_corpus(tmp_path / "c.yaml", copies=2)
    done = run(corpus, "--out", tmp_path, "--vantage", "both", "--headers")
    assert done.returncode == 0, done.stderr
    client, server = (connections_of(tmp_path / name) for name in ("c.pcap.zst", "c.server.pcap.zst"))
    assert [c["community_id"] for c in client] == [c["community_id"] for c in server]
    assert sum(c["resp_bytes"] for c in client) == sum(c["resp_bytes"] for c in server) > 2000
    manifest = json.loads((tmp_path / "c.manifest.json").read_text())
    assert manifest["snap"] == "headers"
    assert set(manifest["captures"]) == {"client", "server"}


def test_a_dry_run_does_nothing_and_says_what_would_be_done(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.yaml")
    done = run(corpus, "--out", tmp_path / "out", "--dry-run")
    assert done.returncode == 0
    assert "c: 12 runs, 60 samples" in done.stdout
    assert not (tmp_path / "out").exists()


def test_without_root_the_error_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(main, ["lab", "run", "http", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "root: run as root" in done.output
    assert list(tmp_path.iterdir()) == []
