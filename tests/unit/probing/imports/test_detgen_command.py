"""``wiresonde lab import``, of DetGen's captures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.errors import InputError
from engine.labels.file import read_labels
from probing.imports.detgen import import_folder, parse_name
from tests.support.captures import CAPTURES
from tests.support.detgen_files import SECOND, T0, TIME, capture, packet, ssh


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["lab", "import", "detgen", *map(str, arguments)])


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv"])
@pytest.mark.parametrize("per", ["capture", "connection"])
def test_the_command_writes_what_labels_reads(tmp_path: Path, name: str, per: str) -> None:
    ssh(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / name, "--per", per)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"{tmp_path / name}: 1 rows for 1 captures\n"
    known = read_labels(tmp_path / name)
    assert known.patterns == (per == "capture")
    (labels,) = (values for probe, values in known.probes.items() if probe)
    assert labels == {
        "scenario": "090-openssh", "task": "ssh", "activity": "scp-up", "client_impl": "openssh",
        "server_impl": "openssh", "attack": "0", "attack_kind": "none", "delay_ms": "100.23", "jitter_ms": "20.5",
        "distribution": "pareto", "loss_pct": "0.05", "corrupt_pct": "0.012",
    }  # fmt: skip
    rule = known.rules[0]
    assert (rule["start"], rule["end"]) == (T0, T0 + 2 * SECOND)


def test_parquet_also_has_what_is_no_label(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    assert command(tmp_path / "data", "-o", tmp_path / "labels.parquet").exit_code == 0
    (row,) = pq.read_table(tmp_path / "labels.parquet").drop_columns(["start", "end"]).to_pylist()
    assert (row["content_bytes"], row["load_average"], row["run"]) == (4321, 0.52, f"090-openssh-{TIME}-1")


def test_the_command_says_what_it_could_not_use(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    capture(tmp_path / "data" / "other.pcap", packet(T0))
    result = command(tmp_path / "data", "-o", tmp_path / "labels.csv")
    assert result.exit_code == 0
    assert "other.pcap: no capture time in its name: not made by DetGen" in result.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path, "no such folder"),
        (lambda folder: folder.mkdir(), "no captures"),
        (lambda folder: capture(folder / "other.pcap", packet(T0)), "no capture could be labelled"),
    ],
)
def test_the_command_fails_where_there_is_nothing_to_label(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert f"{tmp_path / 'data'}: {says}" in result.stderr
    assert not (tmp_path / "labels.csv").exists()


def test_a_file_of_another_kind_is_not_written(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / "labels.txt")
    assert result.exit_code == 2
    assert "must end with .parquet or .csv" in result.stderr


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        import_folder(tmp_path / "none")


@pytest.mark.captures
def test_captures_that_detgen_made_are_labelled(tmp_path: Path) -> None:
    paths = [path for path in CAPTURES.rglob("dump-*") if parse_name(path.name)]
    if not paths:
        pytest.skip(f"no captures of DetGen in {CAPTURES} (set WIRESONDE_CAPTURES)")
    for k, path in enumerate(paths):  # names are not unique across folders
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / path.name).symlink_to(path)
    found = import_folder(tmp_path)
    assert found.captures == len(paths)
    for row in found.rows:
        assert row["task"] is not None, row["capture"]
        assert 0 <= row["end"] - row["start"] < 3600 * SECOND
        assert row["attack"] in (0, 1)
