"""The contract of every sink of scores. To add a sink, add its factory to SINKS."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.consumer.file_sinks import AlertFile, ScoreFile
from engine.consumer.top import Top
from engine.errors import OutputError
from engine.labels.rules import Probes
from engine.scoring.batch import ScoreBatch, choose
from tests.support.batches import batch
from tests.support.disks import listing, open_folder, small_disk, unprivileged

PROBES: Probes = {0: {}, 1: {"task": "http"}, 2: {"task": "dns", "attack": "1"}}

NewSink = Callable[[Path], ScoreFile | AlertFile]
SINKS = [
    pytest.param(lambda path: ScoreFile(path, PROBES), id="parquet"),
    pytest.param(lambda path: AlertFile(path, PROBES, "sensor-1"), id="alerts"),
]
every_sink = pytest.mark.parametrize("new", SINKS)


def written(sink: ScoreFile | AlertFile, *batches: ScoreBatch) -> None:
    for one in batches:
        sink.write(one)
    sink.flush({})
    sink.sync(0)
    sink.close()


def uids(path: Path) -> list[str]:
    """Connections in a file that a sink wrote, in order."""
    if path.read_bytes()[:4] == b"PAR1":
        return list(pq.read_table(path).column("uid").to_pylist())
    return [json.loads(line)["wiresonde"]["uid"] for line in path.read_text().splitlines()]


def whole_lines(path: Path) -> int:
    """Lines of JSON in a file; fails if one is incomplete."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return len([json.loads(line) for line in text.splitlines()])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@every_sink
def test_rows_are_in_the_file_in_order_after_close(new: NewSink, tmp_path: Path) -> None:
    first, second = batch(40, 1, probes=3), batch(30, 2, probes=3)
    written(new(tmp_path / "out"), first, second)
    got = uids(tmp_path / "out")
    assert listing(tmp_path) == ["out"]
    whole = tmp_path / "whole"
    written(new(whole), first)
    assert got[: len(uids(whole))] == uids(whole)
    assert len(set(got)) == len(got) > len(uids(whole)) > 0


@every_sink
def test_batches_cut_elsewhere_give_equal_bytes(new: NewSink, tmp_path: Path) -> None:
    whole = batch(500, 3, probes=3)
    written(new(tmp_path / "one"), whole)
    written(new(tmp_path / "many"), *(choose(whole, np.arange(k, min(k + 7, 500))) for k in range(0, 500, 7)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


@every_sink
def test_a_sink_without_batches_leaves_a_file_without_rows(new: NewSink, tmp_path: Path) -> None:
    written(new(tmp_path / "out"))
    assert uids(tmp_path / "out") == []


@every_sink
def test_an_existing_file_is_replaced_at_close(new: NewSink, tmp_path: Path) -> None:
    written(new(tmp_path / "out"), batch(200, 1))
    before = uids(tmp_path / "out")
    written(new(tmp_path / "out"), batch(50, 2))
    assert not set(before) & set(uids(tmp_path / "out"))
    assert listing(tmp_path) == ["out"]


@every_sink
def test_a_sink_aborted_before_its_first_batch_leaves_the_existing_file(new: NewSink, tmp_path: Path) -> None:
    new(tmp_path / "none").abort()
    assert listing(tmp_path) == []
    written(new(tmp_path / "out"), batch(50))
    before = (tmp_path / "out").read_bytes()
    new(tmp_path / "out").abort()
    assert (tmp_path / "out").read_bytes() == before
    assert listing(tmp_path) == ["out"]


def test_aborted_scores_leave_no_file(tmp_path: Path) -> None:
    sink = ScoreFile(tmp_path / "out", PROBES)
    sink.write(batch(200))
    assert not (tmp_path / "out").exists()
    sink.abort()
    assert listing(tmp_path) == []


def test_alerts_can_be_read_while_they_are_written_and_stay_after_an_abort(tmp_path: Path) -> None:
    sink = AlertFile(tmp_path / "out", PROBES, "sensor-1")
    sink.write(batch(200))
    lines = whole_lines(tmp_path / "out")
    assert lines == sink.alerts > 0
    sink.abort()
    assert whole_lines(tmp_path / "out") == lines


@every_sink
def test_a_missing_directory_is_named(new: NewSink, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing/out: No such file or directory"):
        new(tmp_path / "missing" / "out")
    assert listing(tmp_path) == []


@every_sink
def test_a_directory_in_the_place_of_the_file_is_named(new: NewSink, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match=r"out: Is a directory"):
        new(tmp_path / "out")
    assert listing(tmp_path) == ["out"]


@every_sink
def test_an_unwritable_directory_is_named(new: NewSink) -> None:
    with open_folder() as folder:
        with unprivileged():
            new(folder / "allowed").abort()
            before = listing(folder)
            folder.chmod(0o500)
            with pytest.raises(OutputError, match=r"out: Permission denied"):
                new(folder / "out")
        assert listing(folder) == before


@every_sink
def test_a_disk_that_fills_leaves_nothing_half_written(new: NewSink, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024) as disk:
        sink = new(disk / "out")
        with pytest.raises(OutputError, match="out: No space left on device"):
            written(sink, *repeat(batch(20_000), 4))
        sink.abort()
        if isinstance(sink, ScoreFile):
            assert listing(disk) == []
        else:
            assert (whole_lines(disk / "out") if (disk / "out").exists() else 0) == sink.alerts


@every_sink
def test_a_file_that_may_not_grow_leaves_nothing_half_written(new: NewSink, tmp_path: Path) -> None:
    with file_size_limit(40_000):
        sink = new(tmp_path / "out")
        with pytest.raises(OutputError, match="out: File too large"):
            written(sink, *repeat(batch(20_000), 4))
        sink.abort()
    if isinstance(sink, ScoreFile):
        assert listing(tmp_path) == []
    else:
        assert (whole_lines(tmp_path / "out") if (tmp_path / "out").exists() else 0) == sink.alerts


def test_alerts_continue_after_the_disk_was_full(tmp_path: Path) -> None:
    sink = AlertFile(tmp_path / "out", PROBES, "sensor-1")
    with file_size_limit(2_000), pytest.raises(OutputError):
        sink.write(batch(2000, 1))
    sink.write(batch(100, 2))
    sink.close()
    assert whole_lines(tmp_path / "out") == sink.alerts > 0


def test_a_connection_is_alerted_once_even_if_its_alarm_begins_at_its_end(tmp_path: Path) -> None:
    whole = batch(100)
    alarming = choose(whole, whole.scores["alarm"])
    begun, rest = choose(alarming, np.arange(3)), choose(alarming, np.arange(len(alarming)))
    begun.scores["final"] = False
    rest.scores["begins"][:3] = False  # their alarms began earlier
    written(AlertFile(tmp_path / "out", PROBES, "sensor-1"), begun, rest)
    assert len(uids(tmp_path / "out")) == len(set(uids(tmp_path / "out"))) == len(alarming)


def test_row_groups_have_a_bounded_size(tmp_path: Path) -> None:
    written(ScoreFile(tmp_path / "out", PROBES), *repeat(batch(14_000), 5))
    groups = pq.ParquetFile(tmp_path / "out").metadata
    assert [groups.row_group(k).num_rows for k in range(groups.num_row_groups)] == [65536, 4464]


def test_labels_are_columns_of_the_scores(tmp_path: Path) -> None:
    one = batch(60, probes=3)
    written(ScoreFile(tmp_path / "out", PROBES), one)
    table = pq.read_table(tmp_path / "out")
    probe = table.column("probe").to_pylist()
    assert table.column("label.task").to_pylist() == [PROBES[k].get("task") for k in probe]
    assert table.column("label.attack").to_pylist() == [PROBES[k].get("attack") for k in probe]


def test_the_top_keeps_the_greatest_scores_of_all_batches() -> None:
    batches = [batch(200, seed, version=f"v{seed}") for seed in range(5)]
    top = Top(most=10)
    for one in batches:
        top.write(one)
    best = sorted((-score, one.version) for one in batches for score in one.scores["score"].tolist())[:10]
    assert [(-row["score"], row["version"]) for row in top.rows(PROBES)] == best
    assert (top.connections, top.scored) == (1000, 1000)
    assert top.alarms == sum(int(one.scores["alarm"].sum()) for one in batches)


def test_connections_without_a_score_are_counted_but_never_on_top() -> None:
    one = batch(20)
    one.scores["scored"][:15] = 0
    one.scores["score"][:15] = float("nan")
    top = Top(most=10)
    top.write(one)
    assert (top.connections, top.scored, len(top.rows(PROBES))) == (20, 5, 5)


def test_a_place_that_is_not_a_regular_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    written(AlertFile(pipe, PROBES, "sensor-1"), batch(100))
    out, _ = reader.communicate(timeout=20)
    assert pipe.is_fifo()
    assert out.count(b"\n") > 0


def test_a_sink_has_the_columns_of_the_labels_known_when_it_began(tmp_path: Path) -> None:
    probes: dict[int, dict[str, str]] = {0: {}}
    for k in range(1, 4):  # they may grow from one sink to the next
        probes[k] = {f"label{k}": "x"}
        written(ScoreFile(tmp_path / "out", probes), batch(5))
        names = [name for name in pq.read_schema(tmp_path / "out").names if name.startswith("label.")]
        assert names == [f"label.label{n}" for n in range(1, k + 1)]


def test_the_recent_top_is_that_of_the_last_minute_whatever_came_before_or_has_a_wrong_time() -> None:
    top, start = Top(most=3), 1_700_000_000 * 10**9
    for second, score in [*((k, 5.0 if k else 9.0) for k in range(61)), (61, 1.0)]:
        one = batch(5, second)
        one.records.rows["last"] = start + second * 10**9
        one.records.rows["last"][0] += 10**15 * (second == 30)  # one far ahead
        one.scores["score"] = score
        top.write(one)
    assert [row["score"] for row in top.recent(PROBES)] == [5.0, 5.0, 5.0]
    assert [row["score"] for row in top.rows(PROBES)] == [9.0, 9.0, 9.0]


def test_connections_are_counted_by_probe_and_those_beyond_the_bound_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.consumer.top.MOST_PROBES", 10)
    top, one = Top(), batch(500, 1, probes=40)
    top.write(one)
    for k, own in top.probes.items():
        mine = one.rows["probe"] == k
        assert (own.connections, own.alarms) == (int(mine.sum()), int(one.scores["alarm"][mine].sum()))
    assert len(top.probes) == 10
    assert top.other_probes == 500 - sum(own.connections for own in top.probes.values()) > 0
