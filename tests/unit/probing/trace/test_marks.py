"""Verdicts and phases go to the packets they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from probing.lab.frames import SCHEMA
from probing.trace.connection import Mark
from probing.trace.marks import Frames, beside, in_force, marks_of

NS = np.array([10, 20, 30, 40], np.int64)


def frames_file(path: Path, **columns: Any) -> Path:
    """A frames file of four frames."""
    given = {
        "frame": [1, 2, 3, 4], "ts": NS.tolist(), "run": ["r"] * 4, "verdict": ["sent", "lost", "sent", "sent"],
        "delayed_by_ms": [1.0, None, 1.0, 1.0], "overtaken": [False, False, True, False], "duplicated": [False] * 4,
        "corrupted": [False, False, True, False], "phase": [None, "request", "request", "transfer"],
    } | columns  # fmt: skip
    plain = pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMA])
    pq.write_table(pa.table(given, schema=plain).cast(SCHEMA), path)
    return path


def test_packets_get_the_verdicts_of_their_frames_and_phases_begin_where_the_word_changes(
    tmp_path: Path,
) -> None:
    frames = Frames(frames_file(tmp_path / "x.frames.parquet"), np.array([2, 3, 4]))
    verdicts, marks = frames.of(np.array([2, 3, 4]), NS[1:])
    assert verdicts == ["lost", "sent overtaken corrupted", "sent"]
    assert marks == [Mark(20, "request"), Mark(40, "transfer")]


def test_only_the_frames_asked_for_are_kept(tmp_path: Path) -> None:
    frames = Frames(frames_file(tmp_path / "x.frames.parquet"), np.array([2]))
    with pytest.raises(InputError, match="no frame 3"):
        frames.of(np.array([3]), NS[2:3])


def test_the_frames_of_another_capture_are_refused(tmp_path: Path) -> None:
    frames = Frames(frames_file(tmp_path / "x.frames.parquet"), np.array([1, 9]))
    with pytest.raises(InputError, match="frame 1 is not of the capture's time"):
        frames.of(np.array([1]), NS[:1] + 1)
    with pytest.raises(InputError, match="no frame 9"):
        frames.of(np.array([9]), NS[:1])


def test_a_file_that_is_no_frames_file_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"frame": [1]}), tmp_path / "y.parquet")
    with pytest.raises(InputError, match=r"y\.parquet: not a frames file of the lab: no column ts"):
        Frames(tmp_path / "y.parquet", np.array([1]))
    (tmp_path / "z.parquet").write_text("no")
    with pytest.raises(InputError, match=r"z\.parquet: not a frames file"):
        Frames(tmp_path / "z.parquet", np.array([1]))
    with pytest.raises(InputError, match="No such file"):
        Frames(tmp_path / "none.parquet", np.array([1]))


@pytest.mark.parametrize("name", ["c.pcap.zst", "c.pcap", "c.pcapng.gz"])
def test_files_beside_a_capture_are_found(tmp_path: Path, name: str) -> None:
    assert beside(tmp_path / name, "frames.parquet") is None
    (tmp_path / "c.frames.parquet").touch()
    assert beside(tmp_path / name, "frames.parquet") == tmp_path / "c.frames.parquet"


def test_the_other_vantage_has_frames_of_its_own_and_the_labels_of_the_corpus(tmp_path: Path) -> None:
    for name in ("c.frames.parquet", "c.labels.parquet"):
        (tmp_path / name).touch()
    assert beside(tmp_path / "c.server.pcap.zst", "frames.parquet") is None
    assert beside(tmp_path / "c.server.pcap.zst", "labels.parquet") == tmp_path / "c.labels.parquet"


def test_the_phase_in_force_at_the_first_packet_is_kept_and_others_outside_are_not() -> None:
    marks = marks_of(
        {"phases": '[["late", 99], ["connect", 1], ["login", 5], ["request", 20], ["transfer", 40]]'}
    )
    assert in_force(marks, NS) == [Mark(5, "login"), Mark(20, "request"), Mark(40, "transfer")]


@pytest.mark.parametrize("text", ["{}", '[["a", "b"]]', "[[1, 2]]", "no", '[["a"]]'])
def test_phases_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        marks_of({"phases": text})
