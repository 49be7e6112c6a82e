"""Label files in the forms in which programs write them, and the line in which all others are refused."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InputError
from engine.labels import table
from engine.labels.file import read_labels
from tests.support.labelled import ROW, Packet, tasks

HEADER, LINE = ",".join(ROW), ",".join(ROW.values())


def meanings(path: Path) -> list[dict[str, str]]:
    return [dict(labels) for probe, labels in read_labels(path).probes.items() if probe]


def written(folder: Path, data: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def parquet(folder: Path, column: Any, name: str = "task", rows: int = 1) -> Path:
    """A file whose label column is ``column``; all rows are of the same conversation but for their port."""
    columns: dict[str, Any] = {key: [ROW[key]] * rows for key in list(ROW)[:7]}
    columns["sport"] = [str(1000 + k) for k in range(rows)]
    pq.write_table(pa.table({**columns, name: column}), folder / "labels.parquet")
    return folder / "labels.parquet"


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_labels(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


# CSV


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{LINE}\n",
        f"{HEADER}\r\n{LINE}\r\n",
        f"{HEADER}\r{LINE}\r",
        f"{HEADER}\n{LINE}",
        f"\ufeff{HEADER}\n{LINE}\n",
        f"\n\n{HEADER}\n\n{LINE}\n\n",
        f"{HEADER}\n{LINE}\n".replace(",", ";"),
        f"{HEADER}\n{LINE}\n".replace(",", "\t"),
        f"{HEADER}\n{LINE}\n".replace(",", "|"),
        f"\ufeff{HEADER}\r\n{LINE}\r\n".replace(",", ";"),
        f"{HEADER}\n{LINE}\n".replace(",", ", "),
        f"{HEADER}\n{LINE}\n".replace(",", " , "),
        ",".join(f'"{name}"' for name in ROW) + f"\n{LINE}\n",
        ", ".join(f'"{name}"' for name in ROW) + "\n" + ", ".join(f'"{v}"' for v in ROW.values()) + "\n",
        ",".join(f'" {name} "' for name in ROW) + f"\n{LINE}\n",
        ";".join(f'"{name}"' for name in ROW) + "\n" + ";".join(f'"{v}"' for v in ROW.values()) + "\n",
    ],
)
def test_csv_is_read_in_the_dialects_of_common_programs(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert meanings(path) == [{"task": "http"}]
    assert tasks(read_labels(path), Packet(), Packet(sport=1)) == ["http", "-"]


def test_cells_of_spaces_are_empty_and_quotes_keep_what_divides(tmp_path: Path) -> None:
    path = written(tmp_path, f'{HEADER}, more\n , ,  ,, ,,  , "a, b",  \n')
    assert meanings(path) == [{"task": "a, b"}]
    path = written(tmp_path, f"{HEADER};note\n".replace(",", ";") + ";;;;;;;x, y;\n")
    assert meanings(path) == [{"task": "x, y"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (HEADER.replace(",", ":"), f"found column {HEADER.replace(',', ':')}, divided by ','"),
        (HEADER.replace("sport", "source port"), "no column sport; the key columns are src, sport, dst, dport, "
         "proto, start, end; found columns src, source port, dst, dport, proto, start, end, task, divided by ','"),
        (HEADER.replace("src,", "").replace(",", ";"), "divided by ';'"),
        (HEADER.replace("src,", "").replace(",", "\t"), "divided by tabs"),
        (HEADER.upper(), "the key columns are src, sport, dst, dport, proto, start, end (in lower case); found "
         "columns SRC, SPORT, DST"),
        (HEADER.replace("src", "Src"), "no column src; the key columns are src, sport, dst, dport, proto, start, end "
         "(in lower case); found columns Src, sport"),
        ("", "no column src, sport, dst, dport, proto, start, end;"),
        ("\n \n", "found column (none)"),
        (HEADER.encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"\xfe\xff" + HEADER.encode("utf-16-be"), "UTF-16: save it as UTF-8"),
        (HEADER.encode("utf-32"), "UTF-32: save it as UTF-8"),
        (HEADER.encode("utf-16-le"), "byte 1: a zero byte: not text in UTF-8"),
        (f"{HEADER}\n{LINE}é\n".encode("latin-1"), f"byte {len(HEADER) + len(LINE) + 1}: not UTF-8"),
        (f"{HEADER}\n{LINE}\n1,2\n", "row 2: Expected 8 columns, got 2"),
        (f"{HEADER}\n{LINE},\n", "row 1: Expected 8 columns, got 9"),
        (f'{HEADER}\n{LINE}"\n"x', "row 2: unexpected end of data"),
        (f'{HEADER}\n"{"x" * 200_000}"\n', "row 1: field larger than field limit"),
        (f"{HEADER},task\n{LINE},x\n", "more than one column is named task"),
        (f"{HEADER}, task \n{LINE},x\n", "more than one column is named task"),
        (f"{HEADER},\n{LINE},x\n", "column 9 has no name"),
    ],
)  # fmt: skip
def test_any_other_file_is_refused_with_what_was_found(tmp_path: Path, data: str | bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, data))


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, f"{HEADER}\n{LINE}\n")
    monkeypatch.setattr(table, "MAX_FILE", path.stat().st_size)
    assert meanings(path) == [{"task": "http"}]
    monkeypatch.setattr(table, "MAX_FILE", path.stat().st_size - 1)
    assert "that a label file may have" in refusal(path)


def test_a_file_of_many_rows_is_read(tmp_path: Path) -> None:
    lines = [LINE.replace("1000", str(k)) for k in range(5000)]
    known = read_labels(written(tmp_path, "\n".join([HEADER, *lines])))
    assert known.rules.size == 5000
    assert sorted(known.rules["sport"].tolist()) == list(range(5000))


# Parquet


@pytest.mark.parametrize(
    ("column", "label"),
    [
        (pa.array([b"scan"], pa.binary()), "scan"),
        (pa.array([b"scan"], pa.large_binary()), "scan"),
        (pa.array([b"scan"], pa.binary(4)), "scan"),
        (pa.array(["größe".encode()], pa.binary()), "größe"),
        (pa.array(["scan"], pa.large_string()), "scan"),
        (pa.array(["scan"], pa.string()).dictionary_encode(), "scan"),
        (pa.array([b"scan"], pa.binary()).dictionary_encode(), "scan"),
        (pa.array([decimal.Decimal("1.50")], pa.decimal128(10, 2)), "1.50"),
        (pa.array([decimal.Decimal("1E+3")], pa.decimal128(10, 0)), "1000"),
        (pa.array([0.5], pa.float32()), "0.5"),
        (pa.array([1e300], pa.float64()), "1e+300"),
        (pa.array([float("inf")], pa.float64()), "inf"),
        (pa.array([True]), "True"),
        (pa.array([7], pa.uint8()), "7"),
        (pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")), "1700000000.000000001"),
        (pa.array([1_700_000_000], pa.timestamp("s", "UTC")), "1700000000.000000000"),
        (pa.array([datetime.date(2024, 1, 31)], pa.date32()), "2024-01-31"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_value_of_any_plain_type_is_a_label(tmp_path: Path, column: pa.Array, label: str) -> None:
    assert meanings(parquet(tmp_path, column)) == [{"task": label}]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, None], pa.null()), pa.array([None, float("nan")], pa.float64()),
        pa.array([float("nan")] * 2, pa.float32()), pa.array(["", None]), pa.array([b"", None], pa.binary()),
        pa.array([None, None], pa.timestamp("ns")), pa.array(["", " "]), pa.array([None, ""]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)  # fmt: skip
def test_null_and_nan_are_no_label(tmp_path: Path, column: pa.Array) -> None:
    assert meanings(parquet(tmp_path, column, rows=2)) == [{}]


def test_nan_is_an_empty_key_too(tmp_path: Path) -> None:
    """As pandas writes a column of ports in which one is missing."""
    nan = float("nan")
    columns: dict[str, Any] = {
        "src": ["10.0.0.1"], "sport": [nan], "dst": [None], "dport": [80.0], "proto": [6.0],
        "start": [nan], "end": pa.array([None], pa.float64()), "task": ["http"],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    known = read_labels(tmp_path / "labels.parquet")
    assert tasks(known, Packet(), Packet(sport=9, dst="10.9.9.9"), Packet(dport=81)) == ["http", "http", "-"]


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("src", pa.array([b"10.0.0.1"], pa.binary())), ("src", pa.array(["10.0.0.1"]).dictionary_encode()),
        ("sport", pa.array([decimal.Decimal("1000.00")])), ("proto", pa.array([b"TCP"], pa.binary())),
        ("start", pa.array([datetime.date(2023, 11, 14)])), ("start", pa.array([decimal.Decimal("1700000000.0")])),
    ],
)  # fmt: skip
def test_keys_may_be_of_any_plain_type(tmp_path: Path, key: str, column: pa.Array) -> None:
    columns: dict[str, Any] = {name: [value] for name, value in ROW.items()}
    pq.write_table(pa.table({**columns, key: column}), tmp_path / "labels.parquet")
    assert tasks(read_labels(tmp_path / "labels.parquet"), Packet(), Packet(sport=1)) == ["http", "-"]


def broken(kind: pa.DataType) -> pa.Array:
    """Text that is not UTF-8, which Arrow does not check."""
    of = pa.array([b"ok\xff"], pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, 1, of.buffers())


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (broken(pa.string()), "not a readable Parquet file: column task: text that is not UTF-8"),
        (broken(pa.large_string()), "column task: text that is not UTF-8"),
        (pa.array([b"\xff\xfe"], pa.binary()), "column task: bytes that are not UTF-8"),
        (pa.array([b"\xff"], pa.binary(1)), "column task: bytes that are not UTF-8"),
        (pa.array([b"\xff"], pa.binary()).dictionary_encode(), "column task: bytes that are not UTF-8"),
        (pa.array([["a"]]), "column task: list<"),
        (pa.array([{"a": 1}]), "column task: struct<"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "column task: map<"),
        (pa.array([1], pa.duration("ns")), "column task: duration[ns]: neither text nor a number"),
        (pa.array([1], pa.time64("ns")), "column task: time64[ns]"),
        (pa.array([10**11], pa.timestamp("s")), "column task: Casting from timestamp"),
    ],
)
def test_any_other_type_is_refused_naming_the_column(tmp_path: Path, column: pa.Array, said: str) -> None:
    assert said in refusal(parquet(tmp_path, column))


def test_a_measured_column_may_be_of_any_type(tmp_path: Path) -> None:
    columns = {name: pa.array([value]) for name, value in ROW.items()} | {"phases": pa.array([[1, 2]])}
    fields = [pa.field(n, c.type, metadata={b"wiresonde.kind": b"measured"} if n == "phases" else None)
              for n, c in columns.items()]  # fmt: skip
    pq.write_table(pa.table(list(columns.values()), pa.schema(fields)), tmp_path / "labels.parquet")
    assert meanings(tmp_path / "labels.parquet") == [{"task": "http"}]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, ["x"], name="taskX")
    path.write_bytes(path.read_bytes().replace(b"taskX", b"task\xff"))
    assert "not a readable Parquet file" in refusal(path)


@pytest.mark.parametrize("cut", [8, 100, 400])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = parquet(tmp_path, ["x"])
    path.write_bytes(path.read_bytes()[:-cut])
    assert "not a readable Parquet file" in refusal(path)
