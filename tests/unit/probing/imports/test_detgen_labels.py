"""DetGen's label files, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probing.imports.detgen import HEADER, Problem, read_label_file
from tests.support.detgen_files import SSH, TIME, label_file


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[Problem] = []
    runs = read_label_file(path, problems)
    assert all(problem.file == path for problem in problems)
    return [{"repetition": run.repetition, **run.values} for run in runs], [p.reason for p in problems]


@pytest.mark.parametrize("header", ["", HEADER, HEADER.replace(";", " ; ").upper()])
def test_the_header_may_be_missing_and_may_be_written_otherwise(tmp_path: Path, header: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH, header=header))
    assert (rows[0]["repetition"], rows[0]["delay_ms"]) == (1, 100.23)
    assert problems == []


def test_a_header_amid_rows_is_no_row(tmp_path: Path) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH, HEADER, "2" + SSH[1:]))
    assert [row["repetition"] for row in rows] == [1, 2]
    assert problems == []


def test_a_description_may_contain_what_separates_columns(tmp_path: Path) -> None:
    rows, _ = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH + "; then ls"))
    assert rows[0]["description"] == "Filetransfer Client to server with password; then ls"


def test_a_decimal_comma_is_read(tmp_path: Path) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH.replace("0.52", "0,52")))
    assert rows[0]["load_average"] == 0.52
    assert problems == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (SSH.replace(";0.52;", ";average;"), "load 'average' is not a number: left empty"),
        (SSH.replace(";0.05;", ";101;"), "mean loss 101 is not between 0 and 100: left empty"),
        (SSH.replace(";4321;", ";-3;"), "file-length -3 is not between 0 and inf: left empty"),
        (SSH.replace(";020.5;", ";inf;"), "latency variance inf is not between 0 and inf: left empty"),
        (SSH.replace(";020.5;", ";nan;"), "latency variance nan is not between 0 and inf: left empty"),
    ],
)
def test_a_value_that_cannot_be_is_left_empty(tmp_path: Path, row: str, reason: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", row))
    whole, _ = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH))
    assert problems == [reason]
    assert len(rows[0]) == len(whole[0]) - 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (";" + SSH.split(";", 1)[1], "row 2: REPNUM '' is not a number: skipped"),
        ("1;capture-090-openssh;9", "row 2 has 3 of 14 columns: skipped"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out(tmp_path: Path, row: str, reason: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", row, SSH))
    assert [r["repetition"] for r in rows] == [1]
    assert problems == [reason]


def test_the_same_oddity_is_said_once(tmp_path: Path) -> None:
    odd = SSH.replace(";0.52;", ";average;")
    _, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", odd, "2" + odd[1:]))
    assert problems == ["load 'average' is not a number: left empty (2 rows)"]


def test_a_label_file_without_a_time_and_one_of_other_bytes_are_said(tmp_path: Path) -> None:
    assert read(label_file(tmp_path / "my-labels.csv", SSH)) == ([], ["no capture time in its name"])
    path = tmp_path / f"-{TIME}-labels.csv"
    path.write_bytes(b"\x00\xff;\n" * 3)
    rows, problems = read(path)
    assert rows == []
    assert len(problems) == 3
