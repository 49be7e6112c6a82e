"""Connection records joined with the rows of a corpus."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from engine.commands.reading import read_connections
from engine.labels.file import time_ns
from probing.corpus.join import join
from tests.support.corpora import SECOND, T0, table

DEMO = Path(__file__).resolve().parents[4] / "demo"


def records(*rows: tuple[str, int, str, int, str, int, int | None]) -> pa.Table:
    """Connection records: ends, protocol, first packet and length in ns (None: one packet)."""
    columns = list(zip(*rows)) if rows else [()] * 7
    return pa.table(
        {
            "id.orig_h": pa.array(columns[0], pa.string()), "id.orig_p": pa.array(columns[1], pa.uint16()),
            "id.resp_h": pa.array(columns[2], pa.string()), "id.resp_p": pa.array(columns[3], pa.uint16()),
            "proto": pa.array(columns[4], pa.string()), "ts": pa.array(columns[5], pa.timestamp("ns", tz="UTC")),
            "duration": pa.array([None if n is None else n / SECOND for n in columns[6]], pa.float64()),
        }
    )  # fmt: skip


def test_a_record_is_joined_in_either_direction_and_by_time() -> None:
    rows = table({}, {"start": T0 + 5 * SECOND, "end": T0 + 6 * SECOND})
    there, back = ("10.0.0.10", 40000, "10.0.0.1", 80, "tcp"), ("10.0.0.1", 80, "10.0.0.10", 40000, "tcp")
    found = join(
        rows,
        records(
            (*there, T0, SECOND),
            (*back, T0 + 5 * SECOND, None),
            (*back, T0 + SECOND // 2, SECOND // 2),
            (*there, T0 + 3 * SECOND, SECOND),
            (*there, T0 + 7 * SECOND, None),
            ("10.0.0.10", 40000, "10.0.0.1", 80, "udp", T0, None),
            ("10.0.0.10", 40001, "10.0.0.1", 80, "tcp", T0, None),
            ("10.0.0.10", 80, "10.0.0.1", 40000, "tcp", T0, None),
        ),
    )
    assert found.tolist() == [0, 1, 0, -1, -1, -1, -1, -1]


def test_a_record_that_begins_before_its_row_is_joined() -> None:
    record = records(("10.0.0.10", 40000, "10.0.0.1", 80, "tcp", T0 - 1000, SECOND))
    assert join(table({}), record).tolist() == [0]


def test_a_record_of_two_conversations_is_that_in_which_it_begins() -> None:
    rows = table({}, {"start": T0 + SECOND + 1, "end": T0 + 2 * SECOND})
    record = records(("10.0.0.10", 40000, "10.0.0.1", 80, "tcp", T0 + 1, 2 * SECOND))
    assert join(rows, record).tolist() == [0]


def test_echo_is_joined_although_records_have_type_and_code_for_ports() -> None:
    rows = table({"proto": "icmp", "sport": None, "dport": None})
    assert join(rows, records(("10.0.0.10", 8, "10.0.0.1", 0, "icmp", T0, SECOND))).tolist() == [0]


def test_nothing_is_joined_with_nothing() -> None:
    record = records(("10.0.0.10", 40000, "10.0.0.1", 80, "tcp", T0, None))
    assert join(table(), record).tolist() == [-1]
    assert join(table({}), records()).tolist() == []


def test_joining_finds_what_a_search_of_all_rows_finds() -> None:
    rng = Random(7)
    hosts, ports = [f"10.0.0.{k}" for k in range(4)], range(3)
    rows: list[dict[str, Any]] = []
    free: dict[frozenset[tuple[str, int]], int] = {}
    for _ in range(400):
        one, other = ((rng.choice(hosts), rng.choice(ports)) for _ in range(2))
        start = free.get(frozenset((one, other)), T0) + rng.randrange(1, 3 * SECOND)
        end = start + rng.randrange(SECOND)
        free[frozenset((one, other))] = end
        rows.append(
            {"src": one[0], "sport": one[1], "dst": other[0], "dport": other[1], "start": start, "end": end}
        )
    given = table(*rows)
    many = records(
        *(
            (rng.choice(hosts), rng.choice(ports), rng.choice(hosts), rng.choice(ports), "tcp",
             T0 + rng.randrange(60 * SECOND), rng.choice((None, rng.randrange(SECOND))))
            for _ in range(3000)
        )
    )  # fmt: skip
    held = given.select(["src", "sport", "dst", "dport"]).to_pylist()
    start, end = (given.column(name).cast(pa.int64()).to_pylist() for name in ("start", "end"))
    begin = many.column("ts").cast(pa.int64()).to_pylist()
    matched = 0
    for k, (record, row) in enumerate(zip(many.drop_columns(["ts"]).to_pylist(), join(given, many).tolist())):
        ends = {(record["id.orig_h"], record["id.orig_p"]), (record["id.resp_h"], record["id.resp_p"])}
        last = begin[k] + round((record["duration"] or 0) * SECOND)
        mine = [
            i for i, r in enumerate(held)
            if {(r["src"], r["sport"]), (r["dst"], r["dport"])} == ends and start[i] <= last and end[i] >= begin[k]
        ]  # fmt: skip
        at_begin = [i for i in mine if start[i] <= begin[k]]
        expected = at_begin or [max(mine, key=lambda i: start[i])] if mine else [-1]
        assert row == expected[0]
        matched += row >= 0
    assert 100 < matched < 2900


@pytest.mark.compiled
def test_every_connection_of_the_demo_is_a_row_of_its_labels() -> None:
    texts = pa.csv.read_csv(
        DEMO / "labels.csv",
        convert_options=pa.csv.ConvertOptions(column_types={"start": pa.string(), "end": pa.string()}),
    )
    for name in ("start", "end"):
        ns = pa.array(
            [time_ns(text) for text in texts.column(name).to_pylist()], pa.timestamp("ns", tz="UTC")
        )
        texts = texts.set_column(texts.column_names.index(name), name, ns)
    found = join(texts, read_connections([DEMO / "demo.pcap.zst"]))
    assert (found >= 0).all()
    times = np.bincount(found, minlength=texts.num_rows)
    pings = np.array([proto == "icmp" for proto in texts.column("proto").to_pylist()])
    assert (times[~pings] == 1).all()
    assert times[pings].sum() >= 1  # pings that follow each other closely are one record
