"""Snapshots on disk: intact or skipped, two kept, refused when they belong to something else."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.consumer.snapshot import Snapshot, SnapshotStore, Stamp
from engine.errors import ConfigError, OutputError, StateError
from engine.scoring.building import digest_of
from tests.support.disks import listing, small_disk

STAMP = Stamp("id-1", 4, "digest-1")


def snapshot(offset: int, partition: int = 0, size: int = 10) -> Snapshot:
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(size) + offset,
        "b": np.zeros((3, 0), np.uint8),
        "c": np.ones((2, 2), np.uint64),
    }
    return Snapshot(partition, offset, (arrays, {"n": offset}))


def files(place: Path, partition: int = 0) -> list[str]:
    return listing(place / "packets" / str(partition))


def test_the_newest_of_some_comes_back_whole(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    for offset in (5, 900, 30):
        size = store.save(snapshot(offset), STAMP)
        assert size > 100
    found = store.newest(0, STAMP)
    assert found is not None
    assert (found.partition, found.offset, found.state[1]) == (0, 900, {"n": 900})
    for name, array in snapshot(900).state[0].items():
        assert found.state[0][name].dtype == array.dtype
        assert np.array_equal(found.state[0][name], array)


def test_two_are_kept_and_no_temporary_file(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    for offset in range(5):
        store.save(snapshot(offset), STAMP)
    assert files(tmp_path) == [f"{k:020d}.safetensors" for k in (3, 4)]


def test_partitions_have_their_own(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(7, partition=3), STAMP)
    assert store.newest(2, STAMP) is None
    found = store.newest(3, STAMP)
    assert found is not None
    assert found.offset == 7


@pytest.mark.parametrize("cut", [0, 1, 8, 100, -1])
def test_a_file_cut_anywhere_is_passed_over_and_counted(tmp_path: Path, cut: int) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(1), STAMP)
    store.save(snapshot(2), STAMP)
    newest = tmp_path / "packets" / "0" / f"{2:020d}.safetensors"
    newest.write_bytes(newest.read_bytes()[:cut])
    found = store.newest(0, STAMP)
    assert found is not None
    assert (found.offset, store.unreadable) == (1, 1)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(2), STAMP)
    path = tmp_path / "packets" / "0" / f"{2:020d}.safetensors"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x20
        path.write_bytes(damaged)
        assert store.newest(0, STAMP) is None, at
    assert store.unreadable == len(range(0, len(whole), 7))


def test_a_file_under_another_name_is_not_taken_for_that_offset(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(2), STAMP)
    folder = tmp_path / "packets" / "0"
    (folder / f"{2:020d}.safetensors").rename(folder / f"{9:020d}.safetensors")
    assert store.newest(0, STAMP) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topic_id": "id-2"}, "a snapshot of topic id id-1, but the topic was created again and has id-2"),
        ({"partitions": 6}, "a snapshot of a topic with 4 partitions, which now has 6"),
        ({"config": "digest-2"}, "a snapshot of another configuration"),
        ({"schema": 99}, "a snapshot of schema 2, this version reads 99"),
    ],
)
def test_one_of_something_else_stops_and_says_what(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(2), STAMP)
    with pytest.raises(StateError, match=said) as caught:
        store.newest(0, dataclasses.replace(STAMP, **changes))  # type: ignore[arg-type]
    assert f"move {tmp_path}/packets away" in str(caught.value)


def test_what_a_crash_left_is_cleared_away_but_not_what_another_process_writes(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(1), STAMP)
    folder = tmp_path / "packets" / "0"
    dead, alive = (f".{5:020d}.safetensors.{k:032x}.tmp" for k in (1, 2))
    for name in (dead, alive):
        (folder / name).write_bytes(b"half")
    os.utime(folder / dead, (0, 0))
    store.save(snapshot(2), STAMP)
    assert dead not in files(tmp_path)
    assert alive in files(tmp_path)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 << 10) as disk:
        store = SnapshotStore(str(disk), "packets")
        store.save(snapshot(1), STAMP)
        with pytest.raises(OutputError, match="No space left on device"):
            store.save(snapshot(2, size=100_000), STAMP)
        assert files(disk) == [f"{1:020d}.safetensors"]
        found = store.newest(0, STAMP)
        assert found is not None
        assert found.offset == 1


def test_a_place_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigError, match="state nonsense://x"):
        SnapshotStore("nonsense://x", "packets")


def test_the_digest_changes_with_configuration_and_rows() -> None:
    row, other = np.dtype([("a", "i8")]), np.dtype([("a", "i4")])
    assert digest_of({"x": 1}, {"row": row}) == digest_of({"x": 1}, {"row": row})
    assert len({digest_of({"x": x}, {"row": kind}) for x in (1, 2) for kind in (row, other)}) == 4


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "packets").write_text("a file")
    with pytest.raises(OutputError, match=os.strerror(20)):
        SnapshotStore(str(tmp_path), "packets").save(snapshot(1), STAMP)


def test_a_place_that_cannot_be_read_is_not_taken_for_one_without_snapshots(tmp_path: Path) -> None:
    store = SnapshotStore(str(tmp_path), "packets")
    store.save(snapshot(2), STAMP)
    path = tmp_path / "packets" / "0" / f"{2:020d}.safetensors"
    path.unlink()
    path.mkdir()  # reading it fails, and not for want of a file
    with pytest.raises(StateError, match="cannot be read"):
        store.newest(0, STAMP)
