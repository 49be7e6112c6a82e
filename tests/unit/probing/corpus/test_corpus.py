"""Labelled corpora: read and checked, joined with connection records, parted by whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from probing.corpus.corpus import read_corpus
from probing.lab import labels
from tests.support.corpora import SECOND, T0, table


def corpus(folder: Path, rows: pa.Table, **changes: Any) -> Path:
    """The files of a corpus called made, with captures in which nothing is."""
    (folder / "made.pcap.zst").touch()
    pq.write_table(rows, folder / "made.labels.parquet")
    manifest = {
        "format": 1, "name": "made", "connections": rows.num_rows, "labels": "made.labels.parquet",
        "captures": {"client": {"file": "made.pcap.zst", "packets": 0}},
    }  # fmt: skip
    (folder / "made.manifest.json").write_text(json.dumps(manifest | changes))
    return folder / "made.manifest.json"


@pytest.mark.parametrize("name", ["", "made", "made.manifest.json", "made.labels.parquet", "made.pcap.zst"])
def test_a_corpus_is_read_by_its_folder_by_any_of_its_files_and_by_its_name(
    tmp_path: Path, name: str
) -> None:
    corpus(tmp_path, table({}, {"sport": 40001}))
    found = read_corpus(tmp_path / name)
    assert found.name == "made"
    assert found.capture == tmp_path / "made.pcap.zst"
    assert found.labels_file == tmp_path / "made.labels.parquet"
    assert found.labels.column("sport").to_pylist() == [40000, 40001]
    assert found.labels.schema == labels.schema()
    assert found.manifest["connections"] == 2


def test_the_second_vantage_is_found(tmp_path: Path) -> None:
    captures = {"client": {"file": "made.pcap.zst"}, "server": {"file": "made.server.pcap.zst"}}
    manifest = corpus(tmp_path, table({}), captures=captures)
    (tmp_path / "made.server.pcap.zst").touch()
    found = read_corpus(tmp_path / "made.server.pcap.zst")
    assert found.captures == {
        "client": tmp_path / "made.pcap.zst",
        "server": tmp_path / "made.server.pcap.zst",
    }
    assert found.capture == read_corpus(manifest).capture == tmp_path / "made.pcap.zst"


@pytest.mark.parametrize("name", ["made.pcap.zst", "made.labels.parquet", "made.manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    corpus(tmp_path, table({}))
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: [Nn]o such file"):
        read_corpus(tmp_path / "made")


def test_a_folder_of_several_corpora_does_not_say_which(tmp_path: Path) -> None:
    corpus(tmp_path, table({}))
    (tmp_path / "other.manifest.json").touch()
    with pytest.raises(InputError, match=r"made.manifest.json, other.manifest.json"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2 is none of 1"),
        ({"captures": {}}, "captures: there are none"),
        ({"captures": {"client": {"file": "../made.pcap.zst"}}}, "names no file beside the manifest"),
        ({"connections": 7}, "1 rows, but 7 connections in the manifest"),
        ({"connections": None}, "connections: None is no number"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_corpus(corpus(tmp_path, table({}), **changes))


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    corpus(tmp_path, table({})).write_text("{")
    with pytest.raises(InputError, match=r"made.manifest.json: not JSON"):
        read_corpus(tmp_path)


def test_labels_that_are_no_parquet_are_refused(tmp_path: Path) -> None:
    corpus(tmp_path, table({}))
    (tmp_path / "made.labels.parquet").write_bytes(b"src,sport\n")
    with pytest.raises(InputError, match=r"made.labels.parquet: not Parquet"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["task", "twin"]), "no column task, twin"),
        (
            lambda t: t.append_column("tsak", t.column("task")),
            "column tsak: a label file of the lab has none",
        ),
        (
            lambda t: t.append_column("task", t.column("task")),
            "column task: a label file of the lab has none, or",
        ),
        (
            lambda t: t.set_column(1, "sport", t.column("sport").cast(pa.int64())),
            "column sport: int64, not uint16",
        ),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_corpus(corpus(tmp_path, change(table({}))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"role": "helper"}, "row 2: role helper is none of main, control, data, scan"),
        ({"proto": "sctp"}, "row 2: proto sctp is none of tcp, udp, icmp"),
        ({"attack": 2}, "row 2: attack 2 is none of 0, 1"),
        ({"distribution": "poisson"}, "row 2: distribution poisson is none of uniform"),
        ({"termination": "gone"}, "row 2: termination gone is none of fin"),
        ({"task": None}, "row 2: task None is empty"),
        ({"run": None}, "row 2: run None is empty"),
        ({"dst": None}, "row 2: dst None is empty"),
        ({"end": T0 + 1}, r"row 2: end 2023-11-14 22:13:20.000000001\S* lies before start"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    rows = table({}, {"sport": 40001, "start": T0 + 5} | change, {"sport": 40002, "start": T0 + 9})
    with pytest.raises(InputError, match=says):
        read_corpus(corpus(tmp_path, rows))


def test_further_wrong_rows_are_counted(tmp_path: Path) -> None:
    rows = table(*({"sport": 40000 + k, "role": "helper"} for k in range(3)))
    with pytest.raises(InputError, match=r"row 1: role helper .*\(and 2 more rows\)"):
        read_corpus(corpus(tmp_path, rows))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("start", [T0, T0 + SECOND])  # the same time, and the very moment at which it ends
def test_two_rows_of_a_conversation_at_a_time_are_refused(tmp_path: Path, turned: bool, start: int) -> None:
    again: dict[str, Any] = {"start": start, "end": T0 + 2 * SECOND}
    if turned:
        again |= {"src": "10.0.0.1", "sport": 80, "dst": "10.0.0.10", "dport": 40000}
    with pytest.raises(InputError, match=r"row 3: .*tcp is also row 1, at the same time"):
        read_corpus(corpus(tmp_path, table({}, {"sport": 40001}, again)))


def test_a_port_may_be_used_again(tmp_path: Path) -> None:
    rows = table({}, {"start": T0 + SECOND + 1, "end": T0 + 2 * SECOND})
    assert read_corpus(corpus(tmp_path, rows)).labels.num_rows == 2


def test_a_corpus_without_connections_is_read(tmp_path: Path) -> None:
    assert read_corpus(corpus(tmp_path, table())).labels.num_rows == 0
