"""Probe labels: files of rules, and which packets they name."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InputError
from engine.labels.file import MAX_PATTERNS, read_labels, time_ns
from engine.labels.rules import new_probe_id
from engine.labels.table import KEYS
from tests.support.labelled import ROW, T0, Packet, as_csv, labels, packets, tasks


def test_rows_with_equal_labels_share_a_probe(tmp_path: Path) -> None:
    rows = [ROW | {"sport": str(k), "task": "ab"[k % 2], "load": str(k % 3)} for k in range(100)]
    known = labels(tmp_path, *rows)
    assert len(known.probes) == 1 + 6
    assert known.probes[0] == {}
    got = known.tag(packets(*(Packet(sport=k) for k in range(100)))).probe.tolist()
    assert [known.probes[k] for k in got] == [{"task": "ab"[k % 2], "load": str(k % 3)} for k in range(100)]


def test_an_empty_label_is_none(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW | {"task": "", "load": "high"})
    assert list(known.probes.values()) == [{}, {"load": "high"}]


def test_labels_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW | {"task": "007", "a,b": "1e3"})
    assert list(known.probes.values())[1] == {"task": "007", "a,b": "1e3"}


def test_more_combinations_than_allowed_are_refused_at_their_row(tmp_path: Path) -> None:
    rows = [ROW | {"task": str(k)} for k in range(4)]
    assert len(labels(tmp_path, *rows, max_probes=4).probes) == 5
    with pytest.raises(InputError, match=r"labels.csv: row 4: more than 3 distinct label combinations"):
        labels(tmp_path, *rows, max_probes=3)


def test_a_file_without_rows_labels_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(",".join(ROW) + "\n")
    assert tasks(read_labels(path), Packet()) == ["-"]


def test_columns_may_stand_in_any_order_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "labels.csv", dict(reversed(ROW.items())))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert tasks(read_labels(path), Packet()) == ["http"]


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.timestamp("ns", "America/New_York"), pa.string()],
    ids=str,
)
def test_parquet_keeps_times_to_the_nanosecond(tmp_path: Path, kind: pa.DataType) -> None:
    times = [T0 + 5, T0 + 7]
    at = (
        pa.array(times).cast(kind)
        if kind != pa.string()
        else pa.array([f"{t // 10**9}.{t % 10**9:09d}" for t in times])
    )
    columns: dict[str, Any] = {
        "src": ["10.0.0.1"], "sport": pa.array([1000], pa.uint16()), "dst": ["10.0.0.2"], "dport": [80],
        "proto": [6], "start": at[:1], "end": at[1:], "task": ["http"],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    known = read_labels(tmp_path / "labels.parquet")
    at_ns = [Packet(ts=T0 + k) for k in range(4, 9)]
    assert tasks(known, *at_ns) == ["-", "http", "http", "http", "-"]


def test_parquet_takes_nulls_other_units_and_times_before_1970(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "src": ["10.0.0.1"], "sport": pa.array([None], pa.int32()), "dst": [None], "dport": pa.array([80.0]),
        "proto": ["tcp"], "start": pa.array([-1500], pa.timestamp("ms")), "end": pa.array([None], pa.timestamp("us")),
        "task": ["http"], "round": [3],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    known = read_labels(tmp_path / "labels.parquet")
    assert list(known.probes.values())[1] == {"task": "http", "round": "3"}
    assert tasks(known, Packet(ts=-1_500_000_001), Packet(ts=-1_500_000_000)) == ["-", "http"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"src": "10.0.0.256"}, "address '10.0.0.256' must be an IPv4 or IPv6 address"),
        ({"dst": "fe80::1%eth0"}, "address 'fe80::1%eth0'"),
        ({"src": "www.example.org"}, "address 'www.example.org'"),
        ({"sport": "65536"}, "sport '65536' must be a number from 0 to 65535"),
        ({"dport": "-1"}, "dport '-1'"),
        ({"dport": "http"}, "dport 'http'"),
        ({"sport": "80.5"}, "sport '80.5'"),
        ({"proto": "tpc"}, "proto 'tpc' must be a number from 0 to 255"),
        ({"proto": "256"}, "proto '256'"),
        ({"start": "yesterday"}, "time 'yesterday' must be epoch seconds or ISO 8601"),
        ({"start": "now"}, "time 'now'"),
        ({"start": "20200101"}, "end 1700000000 is before start 20200101"),
        ({"end": "2020-13-01"}, "time '2020-13-01'"),
        ({"end": "1700000000000"}, "time '1700000000000'"),
        ({"end": "9999999999"}, "time '9999999999' must be in the years 1678 to 2262"),
        ({"start": "1500-01-01"}, "time '1500-01-01' must be in the years"),
        ({"start": "1700000011"}, "end 1700000010 is before start 1700000011"),
    ],
)
def test_a_bad_row_is_named_with_its_value(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    if change.get("start") == "20200101":  # eight digits are seconds, not a date
        change = {"start": "1700000001", "end": "20200101"}
        problem = "end 20200101 is before start 1700000001"
    with pytest.raises(InputError) as caught:
        labels(tmp_path, ROW, ROW | change)
    assert f"labels.csv: row 2: {problem}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, True, b"x"])
def test_a_time_of_parquet_that_is_none_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match="time"):
        time_ns(value)


def test_missing_and_doubled_columns_are_named(tmp_path: Path) -> None:
    without = {k: v for k, v in ROW.items() if k not in ("src", "end")}
    with pytest.raises(InputError, match="no column src, end"):
        labels(tmp_path, without)
    with pytest.raises(InputError, match="no label column besides"):
        labels(tmp_path, {k: ROW[k] for k in KEYS})
    with pytest.raises(InputError, match=r"columns a\.b and a_b would both be a_b in alerts: rename one"):
        labels(tmp_path, ROW | {"a.b": "x", "a_b": "y"})
    with pytest.raises(InputError, match="column 9 has no name"):
        labels(tmp_path, ROW | {"": "x"})
    path = tmp_path / "labels.csv"
    path.write_text(",".join([*ROW, "task"]) + "\n" + ",".join([*ROW.values(), "x"]) + "\n")
    with pytest.raises(InputError, match="more than one column is named task"):
        read_labels(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x01\x02\xff" * 50,
        b"PAR1" + b"x" * 100,
        "größe,\n".encode("latin-1"),
        b"\n\n\n",
        b'"open',
        b"a\0b,c\n1,2",
    ],
)
def test_a_file_that_is_neither_csv_nor_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(InputError, match="labels: "):
        read_labels(path)


def test_a_row_with_too_few_cells_is_refused(tmp_path: Path) -> None:
    path = as_csv(tmp_path / "labels.csv", ROW)
    path.write_text(path.read_text() + "1,2,3\n")
    with pytest.raises(
        InputError, match=r"labels\.csv: not a readable CSV file: CSV parse error: row 2: Expected"
    ):
        read_labels(path)


def test_a_file_that_is_not_there_or_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: No such file or directory"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_labels(tmp_path)


def test_too_many_rows_with_empty_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"at most {MAX_PATTERNS}"):
        labels(tmp_path, *[ROW | {"sport": ""}] * (MAX_PATTERNS + 1))


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("0", 0),
        ("1700000000", T0),
        ("1700000000.5", T0 + 500_000_000),
        ("1700000000.123456789", T0 + 123_456_789),
        ("1700000000.1234567899", T0 + 123_456_789),
        ("-1.5", -1_500_000_000),
        (1700000000, T0),
        (1700000000.25, T0 + 250_000_000),
        (Decimal("1700000000.123456789"), T0 + 123_456_789),
        (" 1700000000 ", T0),
        ("2023-11-14T22:13:20Z", T0),
        ("2023-11-14 22:13:20", T0),
        ("2023-11-14T22:13:20.000000007Z", T0 + 7),
        ("2023-11-14T22:13:20,5", T0 + 500_000_000),
        ("2023-11-15T00:13:20+02:00", T0),
        ("2023-11-14T16:43:20-0530", T0),
        ("2023-11-14T22:13", T0 - 20 * 10**9),
        ("2023-11-14", T0 - (22 * 3600 + 13 * 60 + 20) * 10**9),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
    ],
)
def test_times_are_epoch_seconds_or_iso_8601_to_the_nanosecond(value: Any, ns: int) -> None:
    assert time_ns(value) == ns


@given(ns=st.integers(-(2**63) + 1, 2**63 - 1))  # the least is numpy's NaT
def test_a_time_written_in_either_way_is_read_back(ns: int) -> None:
    sign, (whole, part) = "-" * (ns < 0), divmod(abs(ns), 10**9)
    assert time_ns(f"{sign}{whole}.{part:09d}") == ns
    day = np.datetime64(ns, "ns")
    assert time_ns(str(day)) == ns


# -------------------------------------------------------------------------------------------------- probe ids


def test_files_labelled_apart_agree_on_the_ids_of_equal_labels(tmp_path: Path) -> None:
    one = labels(tmp_path, ROW, ROW | {"sport": "9", "task": "dns"})
    other = labels(tmp_path, ROW | {"task": "ssh"}, ROW | {"task": "dns"})
    assert {k: v for k, v in one.probes.items() if v.get("task") == "dns"} == {
        k: v for k, v in other.probes.items() if v.get("task") == "dns"
    }
    assert len(one.probes.keys() | other.probes.keys()) == 4


def test_an_id_that_is_taken_by_other_labels_is_not_given_again() -> None:
    first = new_probe_id({"task": "a"}, {0: {}})
    assert new_probe_id({"task": "a"}, {0: {}, first: {"task": "b"}}) == (first + 1) & 0xFFFF_FFFF
    assert first != 0
