"""From the folders of runs to one corpus."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from engine.labels.file import read_labels
from probing.lab import assemble, catalog, labels
from probing.lab.assemble import SILENCE_NS, Made
from probing.lab.run import How
from probing.lab.settings import Corpus, Entry, Run
from probing.lab.vantage import PCAP_HEADER

S = 1_000_000_000
BASE = 1_700_000_000 * S


def make(
    tmp_path: Path, starts: list[int], lengths: list[int] | None = None
) -> tuple[Corpus, list[Run], Path]:
    """Runs with three packets each, over a second or their lengths in ns."""
    entry = {
        "scenario": "http",
        "server": "nginx",
        "client": "asyncio",
        "activity": "get",
        "copies": len(starts),
    }
    corpus = Corpus(name="c", about="", runs=(Entry.model_validate(entry),))
    runs = catalog.expand(corpus)
    for run, start, length in zip(runs, starts, lengths or [S] * len(starts)):
        folder = tmp_path / "c.runs" / run.id
        folder.mkdir(parents=True)
        times = [BASE + start, BASE + start + length // 2, BASE + start + length]
        packets = b"".join(
            struct.pack("<4I", t // S, t % S, 4, 60) + struct.pack("<I", run.number * 10 + k)
            for k, t in enumerate(times)
        )
        (folder / "client.pcap").write_bytes(PCAP_HEADER + packets)
        account = {
            "run": run.model_dump(mode="json"), "how": How()._asdict(), "first_ns": times[0], "last_ns": times[-1],
            "versions": {"nginx": "1"}, "connections": 1,
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(account))
        (folder / "rows.json").write_text(json.dumps([row(run, times[0], times[-1])]))
    return corpus, runs, tmp_path / "c.runs"


def row(run: Run, start: int, end: int) -> dict[str, Any]:
    """A label row."""
    result: dict[str, Any] = {
        c.name: None
        if c.kind == "measured"
        else 0
        if pa.types.is_integer(c.type) or pa.types.is_floating(c.type)
        else "x"
        for c in labels.COLUMNS
    }
    block = f"10.{run.number >> 8}.{run.number & 255}"
    return result | {
        "src": f"{block}.10", "sport": 40_000, "dst": f"{block}.1", "dport": 80, "proto": "tcp",
        "start": start, "end": end, "run": run.id, "sample_start": start, "phases": json.dumps([["request", start]]),
        "scenario": "http", "activity": "get", "attack": 0, "packets_up": 2, "packets_down": 1,
    }  # fmt: skip


def packets(path: Path) -> list[tuple[int, int]]:
    """Times and marks of a written capture."""
    with path.open("rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    assert data[:24] == PCAP_HEADER
    return [(s * S + ns, mark) for s, ns, _, _, mark in struct.iter_unpack("<5I", data[24:])]


def test_packets_of_runs_at_the_same_time_are_merged_in_order(tmp_path: Path) -> None:
    corpus, runs, folder = make(tmp_path, [0, S // 4, S // 8])
    manifest = assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    found = packets(tmp_path / "c.pcap.zst")
    assert len(found) == 9
    assert [t for t, _ in found] == sorted(t for t, _ in found)
    assert {mark for _, mark in found} == {r.number * 10 + k for r in runs for k in range(3)}
    assert manifest["captures"]["client"]["packets"] == 9
    assert manifest["families"] == [
        {"scenario": "http", "activity": "get", "attack": 0, "connections": 3, "packets": 9}
    ]


def test_long_silences_between_runs_are_shortened_and_labels_follow(tmp_path: Path) -> None:
    day = 86_400 * S
    corpus, runs, folder = make(tmp_path, [0, day, day + 1])
    manifest = assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    times = [t for t, _ in packets(tmp_path / "c.pcap.zst")]
    assert max(b - a for a, b in pairwise(times)) == SILENCE_NS
    table = pa.parquet.read_table(tmp_path / "c.labels.parquet")
    starts = table.column("start").cast(pa.int64()).to_pylist()
    assert starts == [times[0], times[3], times[4]]
    assert [json.loads(p)[0][1] for p in table.column("phases").to_pylist()] == starts
    assert table.column("sample_start").cast(pa.int64()).to_pylist() == starts
    assert [run["shift_ns"] for run in manifest["runs"]] == [0, times[3] - BASE - day, times[3] - BASE - day]


def test_a_long_run_does_not_hide_the_silence_behind_it(tmp_path: Path) -> None:
    _, runs, folder = make(tmp_path, [0, S, 12 * S], [10 * S, S, S])
    assert [part.shift for part in assemble.parts(runs, folder)] == [0, 0, 0]


def test_the_label_file_is_read_by_the_engine_without_what_is_measured(tmp_path: Path) -> None:
    corpus, runs, folder = make(tmp_path, [0, 2 * S])
    assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    known = read_labels(tmp_path / "c.labels.parquet")
    (probe,) = [p for p in known.probes if p]  # equal labels: one probe, though runs and times differ
    assert set(known.probes[probe]) <= set(labels.LABELS)
    assert "run" not in known.probes[probe]
    assert sorted(known.rules["start"].tolist()) == [BASE, BASE + 2 * S]


def test_a_corpus_is_made_when_all_its_files_are_there_and_nothing_else_is_wanted(tmp_path: Path) -> None:
    corpus, runs, folder = make(tmp_path, [0])
    assert not assemble.is_made(tmp_path, corpus.name, runs, How())
    assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    assert assemble.is_made(tmp_path, corpus.name, runs, How())
    assert not assemble.is_made(tmp_path, "c", catalog.expand(corpus.model_copy(update={"seed": 2})), How())
    assert not assemble.is_made(tmp_path, "c", runs, How(snap=0))
    assert not assemble.is_made(tmp_path, "c", runs, How(link="netem"))
    (tmp_path / "c.pcap.zst").unlink()
    assert not assemble.is_made(tmp_path, corpus.name, runs, How())


def test_nothing_half_written_stays_when_a_run_is_damaged(tmp_path: Path) -> None:
    corpus, runs, folder = make(tmp_path, [0, S])
    path = folder / runs[1].id / "client.pcap"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(struct.error):
        assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["c.runs"]


def test_a_corpus_that_is_made_anew_is_not_taken_for_the_old_one_while_it_is_half_there(
    tmp_path: Path,
) -> None:
    corpus, runs, folder = make(tmp_path, [0, S])
    assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    path = folder / runs[1].id / "client.pcap"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(struct.error):
        assemble.assemble(corpus, runs, folder, tmp_path, Made("cmd", 1.0, 2))
    assert not assemble.is_made(tmp_path, "c", runs, How())
