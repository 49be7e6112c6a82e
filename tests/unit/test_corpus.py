"""Labelled corpora: read and checked, joined with connection records, parted by whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError, InputError
from engine.labels import time_ns
from engine.reading import read_connections
from probing.corpus import join, read_corpus, split, thin, units
from probing.lab import labels

DEMO = Path(__file__).resolve().parents[2] / "demo"
T0 = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
ROW: dict[str, Any] = {
    "src": "10.0.0.10", "sport": 40000, "dst": "10.0.0.1", "dport": 80, "proto": "tcp", "start": T0, "end": T0 + SECOND,
    "scenario": "http", "task": "web", "activity": "get", "role": "main",
    "background": 0, "keep_order": 0, "client_impl": "curl", "server_impl": "nginx",
    "attack": 0, "attack_kind": "none", "content_kind": "text", "cache": "cold", "load": "none", "delay_ms": 0.0,
    "jitter_ms": 0.0, "distribution": "normal", "loss_pct": 0.0, "reorder_pct": 0.0, "duplicate_pct": 0.0,
    "corrupt_pct": 0.0, "rate_kbit": 0.0, "queue_packets": 1000, "impaired": "both", "termination": "fin", "users": 1,
    "group": "", "run": "00000-http", "sample": 0, "pair": "", "twin": "", "packets_up": 6, "packets_down": 4,
}  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    return labels.table([ROW | row for row in rows])


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


# reading


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


# joining


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


# parting


def runs(n: int, *, twins: int = 1, samples: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """Rows of n runs, or of n pairs of so many twins."""
    rows: list[dict[str, Any]] = []
    for k in range(n):
        for twin in range(twins):
            for sample in range(samples):
                kind = "-".join(f"{key}-{value}" for key, value in changes.items())
                name = f"{k:03d}-{'abc'[twin]}-{kind}"
                pair = f"{k:03d}{kind}-{sample}" if twins > 1 else ""
                rows.append({"run": name, "pair": pair, "sample": sample, "sport": len(rows)} | changes)
    return rows


def test_twins_are_one_unit_and_other_runs_are_their_own() -> None:
    rows = table(
        {"run": "a", "pair": "p-0"}, {"run": "b", "pair": "p-0"}, {"run": "a", "pair": ""}, {"run": "c"},
        {"run": "a", "pair": "p-1"}, {"run": "b", "pair": "p-1"}, {"run": "d"},
    )  # fmt: skip
    found = units(rows)
    assert found.runs == (("c",), ("d",), ("a", "b"))
    assert found.names == ("c", "d", "p-0")
    assert dict(zip(rows.column("run").to_pylist(), found.of_row.tolist())) == {
        "a": 2,
        "b": 2,
        "c": 0,
        "d": 1,
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_run_and_no_pair_is_torn_apart(seed: int) -> None:
    rows = table(*runs(20), *runs(30, twins=3, group="twins"), *runs(7, activity="post"))
    parts = split(rows, {"train": 0.6, "calibrate": 0.2, "test": 0.2}, seed)
    assert (np.sum(list(parts.values()), axis=0) == 1).all()
    for name in ("run", "pair"):
        values = np.array(rows.column(name).to_pylist())
        kinds = [set(values[mask].tolist()) - {""} for mask in parts.values()]
        assert not kinds[0] & kinds[1]
        assert not kinds[0] & kinds[2]
        assert not kinds[1] & kinds[2]


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_run_is_shared_out_evenly(seed: int) -> None:
    rows = table(*runs(20), *runs(10, activity="post"), *runs(5, scenario="ftp"))
    test = split(rows, {"train": 0.8, "test": 0.2}, seed)["test"]
    kinds = list(
        zip(*(np.array(rows.column(n).to_pylist())[test].tolist() for n in ("scenario", "activity")))
    )
    assert [kinds.count(kind) for kind in (("http", "get"), ("http", "post"), ("ftp", "get"))] == [16, 8, 4]


def test_kinds_of_a_single_run_do_not_all_come_to_the_same_part() -> None:
    rows = table(*(row for k in range(100) for row in runs(1, samples=1, group=f"{k}")))
    assert 30 < split(rows, {"a": 0.5, "b": 0.5}, 1)["a"].sum() < 70


def test_a_split_follows_from_the_seed() -> None:
    rows = table(*runs(50))
    one, same, other = (split(rows, {"a": 0.5, "b": 0.5}, seed)["a"] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_split_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = table(*runs(30), *runs(30, activity="post"))
    turned = rows.take(list(range(rows.num_rows))[::-1])
    one, other = (split(t, {"a": 0.5, "b": 0.5}, 3)["a"] for t in (rows, turned))
    assert (one == other[::-1]).all()


@pytest.mark.parametrize("shares", [{}, {"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be positive and add up to 1"):
        split(table({}), shares, 1)


def test_thinning_keeps_the_share_and_every_kind() -> None:
    rows = table(
        *runs(100), *runs(40, twins=2, activity="post"), *runs(1, group="rare"), *runs(1, scenario="ftp")
    )
    kept = thin(rows, 0.25, 1)
    mask = np.isin(rows.column("run").to_pylist(), kept)
    assert 0.25 <= mask.mean() < 0.27  # all rows have as many packets
    for name in ("group", "scenario", "activity"):
        values = np.array(rows.column(name).to_pylist())
        assert set(values[mask].tolist()) == set(values.tolist())
    twins = [name for name in kept if "post" in name]
    assert sorted(name.replace("-a-", "-b-") for name in twins if "-a-" in name) == [
        n for n in twins if "-b-" in n
    ]
    shares = [len(twins) / 80, (len(kept) - len(twins)) / 102]
    assert shares == pytest.approx([0.25, 0.25], abs=0.05)  # no kind at the expense of another


def test_thinning_counts_packets_or_connections() -> None:
    rows = table(*({"run": f"{k}", "packets_up": 10**k} for k in range(10)))
    for seed in range(5):
        assert "9" in thin(rows, 0.5, seed)  # nearly all packets
        assert len(thin(rows, 0.5, seed, "connections")) == 5


def test_all_is_kept_when_all_is_wanted() -> None:
    rows = table(*runs(9, twins=2))
    assert thin(rows, 1, 1) == sorted(set(rows.column("run").to_pylist()))


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="must be more than 0 and at most 1"):
        thin(table({}), share, 1)
