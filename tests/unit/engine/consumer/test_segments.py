"""Scores in files of a range of offsets, and their union."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.consumer.outlet import FLUSHED_ROW, Outlet
from engine.consumer.segments import ScoreSegments, merge
from engine.errors import InputError, OutputError
from engine.labels.rules import NO_PROBES
from engine.labels.slices import Slices
from engine.metrics import Metrics
from engine.scoring.batch import ScoreBatch
from tests.support.batches import batch
from tests.support.disks import listing, small_disk


def numbered(partition: int, offset: int, n: int, seed: int = 0, first: int = 0) -> ScoreBatch:
    """Rows of one message."""
    one = batch(n, seed)
    one.scores["partition"], one.scores["offset"] = partition, offset
    one.scores["row"] = range(first, first + n)
    return one


def write(folder: Path, partition: int, first: int, after: int, *batches: ScoreBatch) -> None:
    sink = ScoreSegments(folder, NO_PROBES)
    for one in batches:
        sink.write(one)
    sink.flush({partition: (first, after)})
    sink.sync(partition)


def test_a_segment_is_named_by_what_it_covers_also_without_rows(tmp_path: Path) -> None:
    write(tmp_path, 3, 5, 9)
    assert listing(tmp_path) == ["scores-00003-00000000000000000005-00000000000000000009.parquet"]
    merged = merge([tmp_path])
    assert (merged.table.num_rows, merged.spans, merged.gaps) == (0, {3: [(5, 9)]}, {})


def test_segments_of_several_folders_are_one_table_in_order(tmp_path: Path) -> None:
    write(tmp_path / "b", 0, 2, 4, numbered(0, 3, 5, 3), numbered(0, 2, 4, 2))
    write(tmp_path / "a", 0, 0, 2, numbered(0, 0, 3, 1))
    merged = merge([tmp_path / "a", tmp_path / "b"])
    assert merged.table["offset"].to_pylist() == [0] * 3 + [2] * 4 + [3] * 5
    assert merged.table["row"].to_pylist() == [*range(3), *range(4), *range(5)]
    assert (merged.repeated, merged.spans, merged.gaps) == (0, {0: [(0, 4)]}, {})


def test_rows_that_come_again_are_dropped_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 0, 3, numbered(1, 0, 3, 1), numbered(1, 2, 4, 2))
    write(tmp_path / "b", 1, 1, 5, numbered(1, 2, 4, 2), numbered(1, 4, 2, 3))
    merged = merge([tmp_path / "a", tmp_path / "b"])
    assert (merged.table.num_rows, merged.repeated, merged.gaps) == (9, 4, {})


def test_rows_of_one_identity_that_differ_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 0, 3, numbered(1, 2, 4, 2))
    write(tmp_path / "b", 1, 0, 3, numbered(1, 2, 4, 7))
    with pytest.raises(InputError, match="rows of partition 1, offset 2, model kitsune, row 0 differ in ts"):
        merge([tmp_path / "a", tmp_path / "b"])


def test_offsets_that_no_file_covers_are_gaps(tmp_path: Path) -> None:
    write(tmp_path, 0, 0, 3)
    write(tmp_path, 0, 5, 6)
    write(tmp_path, 1, 0, 9)
    assert merge([tmp_path]).gaps == {0: [(3, 5)]}


def test_ends_of_connections_before_the_end_of_the_log_are_superseded(tmp_path: Path) -> None:
    write(tmp_path / "a", 0, 0, 3, numbered(0, 2, 4, 1), numbered(0, 2, 5, 2, FLUSHED_ROW))
    write(tmp_path / "b", 0, 3, 6, numbered(0, 5, 3, 3, FLUSHED_ROW))
    merged = merge([tmp_path / "a", tmp_path / "b"])
    assert (merged.table.num_rows, merged.superseded) == (7, 5)


def test_a_span_that_does_not_go_on_begins_a_new_file(tmp_path: Path) -> None:
    sink = ScoreSegments(tmp_path, NO_PROBES)
    sink.write(numbered(0, 1, 2))
    sink.flush({0: (0, 2)})
    sink.write(numbered(0, 8, 2))
    sink.flush({0: (8, 9)})
    sink.sync(0)
    assert merge([tmp_path]).gaps == {0: [(2, 8)]}
    assert len(listing(tmp_path)) == 2


def test_many_rows_are_written_before_anybody_asks(tmp_path: Path) -> None:
    sink = ScoreSegments(tmp_path, NO_PROBES, most_rows=100)
    sink.write(numbered(0, 0, 150))
    sink.flush({0: (0, 1)})
    assert len(listing(tmp_path)) == 1


def test_a_full_disk_keeps_the_rows_for_another_try(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        sink = ScoreSegments(disk, NO_PROBES)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(60 << 10))
        sink.write(numbered(0, 0, 200))
        sink.flush({0: (0, 1)})
        with pytest.raises(OutputError, match="No space left on device"):
            sink.sync(0)
        assert listing(disk) == ["ballast"]
        ballast.unlink()
        sink.sync(0)
        assert merge([disk]).table.num_rows == 200


def test_a_folder_without_segments_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores-"):
        merge([tmp_path])
    write(tmp_path, 0, 0, 1, numbered(0, 0, 3))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=path.name):
        merge([tmp_path])


def test_rows_of_the_end_of_the_log_do_not_replace_those_of_its_last_message(tmp_path: Path) -> None:
    outlet = Outlet([ScoreSegments(tmp_path, NO_PROBES)], Metrics(), NO_PROBES, Slices())
    for offset in (312, 313):  # the last message has a segment of its own
        outlet.keep(1, offset, [batch(2, offset)])
        outlet.flush()
        outlet.sync(1)
    outlet.end(1, 314, [batch(5, 9)])
    outlet.flush()
    outlet.sync(1)
    merged = merge([tmp_path])
    assert merged.table["offset"].to_pylist() == [312] * 2 + [313] * 7
    assert merged.table["row"].to_pylist() == [0, 1, 0, 1, *(FLUSHED_ROW + k for k in range(5))]
    assert (merged.spans, merged.superseded) == ({1: [(312, 314)]}, 0)
