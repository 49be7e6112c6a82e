"""Label files, checked: columns, values, and conversations that overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from probing.corpus.labels import read_label_rows
from tests.support.corpora import SECOND, T0, table


def write(folder: Path, rows: pa.Table) -> Path:
    """A label file with these rows."""
    pq.write_table(rows, folder / "made.labels.parquet")
    return folder / "made.labels.parquet"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["task", "twin"]), "no column task, twin"),
        (
            lambda t: t.append_column("tsak", t.column("task")),
            "column tsak: must be a column of the lab",
        ),
        (
            lambda t: t.append_column("task", t.column("task")),
            "column task: must be .* there only once",
        ),
        (
            lambda t: t.set_column(1, "sport", t.column("sport").cast(pa.int64())),
            "column sport: int64, not uint16",
        ),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_label_rows(write(tmp_path, change(table({}))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"role": "helper"}, "row 2: role helper is not one of main, control, data, scan"),
        ({"proto": "sctp"}, "row 2: proto sctp is not one of tcp, udp, icmp"),
        ({"attack": 2}, "row 2: attack 2 is not one of 0, 1"),
        ({"distribution": "poisson"}, "row 2: distribution poisson is not one of uniform"),
        ({"termination": "gone"}, "row 2: termination gone is not one of fin"),
        ({"task": None}, "row 2: task None is empty"),
        ({"run": None}, "row 2: run None is empty"),
        ({"dst": None}, "row 2: dst None is empty"),
        ({"end": T0 + 1}, r"row 2: end 2023-11-14 22:13:20.000000001\S* is before start"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    rows = table({}, {"sport": 40001, "start": T0 + 5} | change, {"sport": 40002, "start": T0 + 9})
    with pytest.raises(InputError, match=says):
        read_label_rows(write(tmp_path, rows))


def test_further_wrong_rows_are_counted(tmp_path: Path) -> None:
    rows = table(*({"sport": 40000 + k, "role": "helper"} for k in range(3)))
    with pytest.raises(InputError, match=r"row 1: role helper .*\(and 2 more rows\)"):
        read_label_rows(write(tmp_path, rows))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("start", [T0, T0 + SECOND])  # the same time, and the very moment at which it ends
def test_two_rows_of_a_conversation_at_a_time_are_refused(tmp_path: Path, turned: bool, start: int) -> None:
    again: dict[str, Any] = {"start": start, "end": T0 + 2 * SECOND}
    if turned:
        again |= {"src": "10.0.0.1", "sport": 80, "dst": "10.0.0.10", "dport": 40000}
    with pytest.raises(InputError, match=r"row 3: .*tcp is also row 1, at the same time"):
        read_label_rows(write(tmp_path, table({}, {"sport": 40001}, again)))


def test_a_port_may_be_used_again(tmp_path: Path) -> None:
    rows = table({}, {"start": T0 + SECOND + 1, "end": T0 + 2 * SECOND})
    assert read_label_rows(write(tmp_path, rows)).num_rows == 2
