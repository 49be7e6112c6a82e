"""A corpus, found and read by its manifest."""

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
from tests.support.corpora import table


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
        ({"format": 2}, "format 2 is not one of 1"),
        ({"captures": {}}, "captures: must name at least one"),
        ({"captures": {"client": {"file": "../made.pcap.zst"}}}, "does not name a file beside the manifest"),
        ({"connections": 7}, "1 rows, but 7 connections in the manifest"),
        ({"connections": None}, "connections: None is not a number"),
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


def test_a_corpus_without_connections_is_read(tmp_path: Path) -> None:
    assert read_corpus(corpus(tmp_path, table())).labels.num_rows == 0
