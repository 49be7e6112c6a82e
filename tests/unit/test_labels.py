"""Probe labels: files of rules, and which packets they name."""

from __future__ import annotations

import csv
import ipaddress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.labels import KEYS, MAX_PATTERNS, Labels, Probes, Slices, new_probe_id, read_labels, time_ns
from engine.types import Packets, empty_packets

T0 = 1_700_000_000_000_000_000
ROW = {
    "src": "10.0.0.1", "sport": "1000", "dst": "10.0.0.2", "dport": "80", "proto": "tcp",
    "start": "1700000000", "end": "1700000010", "task": "http",
}  # fmt: skip


class Packet(NamedTuple):
    """A packet as a label sees it."""

    src: str = "10.0.0.1"
    sport: int = 1000
    dst: str = "10.0.0.2"
    dport: int = 80
    proto: int = 6
    ts: int = T0


def changed(packet: Packet, field: str, value: Any) -> Packet:
    values: dict[str, Any] = {field: value}
    return packet._replace(**values)


def words(text: str) -> tuple[int, int]:
    address = ipaddress.ip_address(text)
    whole = int(address) if address.version == 6 else 0xFFFF << 32 | int(address)
    return whole >> 64, whole & (1 << 64) - 1


def packets(*rows: Packet) -> Packets:
    p = empty_packets(len(rows))
    for i, row in enumerate(rows):
        p.src_hi[i], p.src_lo[i] = words(row.src)
        p.dst_hi[i], p.dst_lo[i] = words(row.dst)
        p.sport[i], p.dport[i], p.proto[i], p.ts[i] = row.sport, row.dport, row.proto, row.ts
    return p


def as_csv(path: Path, *rows: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels(path: Path, *rows: dict[str, Any], **options: Any) -> Labels:
    return read_labels(as_csv(path / "labels.csv", *rows), **options)


def tasks(known: Labels, *rows: Packet) -> list[str]:
    """The label `task` of each packet, - without a probe."""
    return [known.probes[k].get("task", "-") for k in known.tag(packets(*rows)).probe.tolist()]


BACK = Packet(src="10.0.0.2", sport=80, dst="10.0.0.1", dport=1000)


def test_both_directions_of_a_connection_match_and_others_do_not(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW)
    here = Packet()
    others = [
        here._replace(sport=1001), here._replace(dport=81), here._replace(proto=17),
        here._replace(src="10.0.0.3"), here._replace(dst="10.0.0.3"),
        here._replace(sport=80, dport=1000), here._replace(src="10.0.0.2", dst="10.0.0.1"),
    ]  # fmt: skip
    assert tasks(known, here, BACK, *others) == ["http", "http"] + ["-"] * len(others)


def test_the_time_span_includes_both_its_ends_to_the_nanosecond(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW | {"start": "1700000000.000000005", "end": "1700000010.000000007"})
    at = [T0 + 4, T0 + 5, T0 + 10**10 + 7, T0 + 10**10 + 8]
    assert tasks(known, *(Packet(ts=ts) for ts in at)) == ["-", "http", "http", "-"]


@pytest.mark.parametrize("field", ["src", "sport", "dst", "dport", "proto"])
def test_an_empty_field_matches_anything_there(tmp_path: Path, field: str) -> None:
    known = labels(tmp_path, ROW | {field: ""})
    other: dict[str, Any] = {"src": "1.2.3.4", "sport": 9, "dst": "1.2.3.4", "dport": 9, "proto": 17}
    here = changed(Packet(), field, other[field])
    for k, name in enumerate(("src", "sport", "dst", "dport", "proto")):
        wrong = changed(here, name, 7 if k in (1, 3, 4) else "9.9.9.9")
        assert tasks(known, here, wrong) == ["http", "http" if name == field else "-"]


def test_an_empty_start_or_end_is_open(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW | {"start": "", "end": ""})
    assert tasks(known, Packet(ts=0), Packet(ts=-5), Packet(ts=2**62)) == ["http"] * 3


def test_icmp_names_both_versions_and_icmp6_only_one(tmp_path: Path) -> None:
    anything = {"src": "", "sport": "", "dst": "", "dport": "", "start": "", "end": ""}
    both = labels(tmp_path, ROW | anything | {"proto": "icmp"})
    assert tasks(both, Packet(proto=1), Packet(proto=58), Packet(proto=6)) == ["http", "http", "-"]
    six = labels(tmp_path, ROW | anything | {"proto": "icmp6"})
    assert tasks(six, Packet(proto=1), Packet(proto=58)) == ["-", "http"]


@pytest.mark.parametrize(
    ("text", "number"), [("TCP", 6), ("udp", 17), ("sctp", 132), ("47", 47), ("6.0", 6), ("0", 0)]
)
def test_protocols_have_names_or_numbers(tmp_path: Path, text: str, number: int) -> None:
    assert tasks(labels(tmp_path, ROW | {"proto": text}), Packet(proto=number)) == ["http"]


def test_ipv6_addresses_match_however_they_are_written(tmp_path: Path) -> None:
    known = labels(tmp_path, ROW | {"src": "2001:DB8:0:0::1", "dst": "fe80::2"})
    here = Packet(src="2001:db8::1", dst="fe80::2")
    assert tasks(known, here, here._replace(dst="fe80::3")) == ["http", "-"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_overlapping_rows_the_one_that_starts_last_counts(tmp_path: Path, order: int) -> None:
    rows = [ROW, ROW | {"start": "1700000005", "task": "late"}, ROW | {"start": "", "task": "open"}]
    at = [Packet(ts=T0 - 1), Packet(), Packet(ts=T0 + 5 * 10**9)]
    assert tasks(labels(tmp_path, *rows[::order]), *at) == ["open", "http", "late"]
    wild = [row | {"sport": ""} for row in rows]
    assert tasks(labels(tmp_path, *wild[::order]), *at) == ["open", "http", "late"]


@pytest.mark.parametrize("change", [{}, {"dport": ""}])
def test_of_rows_that_start_together_the_last_in_the_file_counts(
    tmp_path: Path, change: dict[str, str]
) -> None:
    rows = [ROW | change | {"task": task} for task in ("a", "b", "c")]
    assert tasks(labels(tmp_path, *rows), Packet()) == ["c"]


def test_a_row_without_empty_fields_goes_before_one_with_them(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"sport": "", "start": "1700000005", "task": "wild"}]
    late = Packet(ts=T0 + 6 * 10**9)
    assert tasks(labels(tmp_path, *rows), late, late._replace(sport=5)) == ["http", "wild"]


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
        ({"src": "10.0.0.256"}, "address '10.0.0.256' is neither IPv4 nor IPv6"),
        ({"dst": "fe80::1%eth0"}, "address 'fe80::1%eth0'"),
        ({"src": "www.example.org"}, "address 'www.example.org'"),
        ({"sport": "65536"}, "sport '65536' is not a number from 0 to 65535"),
        ({"dport": "-1"}, "dport '-1'"),
        ({"dport": "http"}, "dport 'http'"),
        ({"sport": "80.5"}, "sport '80.5'"),
        ({"proto": "tpc"}, "proto 'tpc' is not a number from 0 to 255"),
        ({"proto": "256"}, "proto '256'"),
        ({"start": "yesterday"}, "time 'yesterday' is neither epoch seconds nor ISO 8601"),
        ({"start": "now"}, "time 'now'"),
        ({"start": "20200101"}, "end 1700000000 lies before start 20200101"),
        ({"end": "2020-13-01"}, "time '2020-13-01'"),
        ({"end": "1700000000000"}, "time '1700000000000'"),
        ({"end": "9999999999"}, "time '9999999999' lies outside the years 1678 to 2262"),
        ({"start": "1500-01-01"}, "time '1500-01-01' lies outside"),
        ({"start": "1700000011"}, "end 1700000010 lies before start 1700000011"),
    ],
)
def test_a_bad_row_is_named_with_its_value(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    if change.get("start") == "20200101":  # eight digits are seconds, not a date
        change = {"start": "1700000001", "end": "20200101"}
        problem = "end 20200101 lies before start 1700000001"
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
    with pytest.raises(InputError, match="no label column beside"):
        labels(tmp_path, {k: ROW[k] for k in KEYS})
    with pytest.raises(InputError, match=r"column a\.b is a_b in alerts"):
        labels(tmp_path, ROW | {"a.b": "x", "a_b": "y"})
    with pytest.raises(InputError, match="column 9 has no name"):
        labels(tmp_path, ROW | {"": "x"})
    path = tmp_path / "labels.csv"
    path.write_text(",".join([*ROW, "task"]) + "\n" + ",".join([*ROW.values(), "x"]) + "\n")
    with pytest.raises(InputError, match="more than one column task"):
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


# ------------------------------------------------------------------------------------------- against a naive twin


class Rule(NamedTuple):
    """A row of a label file; None matches anything."""

    src: str | None
    sport: int | None
    dst: str | None
    dport: int | None
    proto: int | None
    start: int | None
    end: int | None


def naive(rules: list[Rule], packet: Packet) -> int:
    """Number of the rule that names a packet, from 1; 0 without one."""
    best: tuple[bool, float, int] = (False, 0.0, 0)
    for number, rule in enumerate(rules, 1):
        ways = [
            (packet.src, packet.sport, packet.dst, packet.dport),
            (packet.dst, packet.dport, packet.src, packet.sport),
        ]
        wanted = rule[:4]
        if not any(all(w is None or w == h for w, h in zip(wanted, way)) for way in ways):
            continue
        if rule.proto is not None and packet.proto != rule.proto and (rule.proto, packet.proto) != (1, 58):
            continue
        if not (rule.start is None or packet.ts >= rule.start) or not (
            rule.end is None or packet.ts <= rule.end
        ):
            continue
        rank = (None not in rule[:5], float("-inf") if rule.start is None else float(rule.start), number)
        if best[2] == 0 or rank > best:
            best = rank
    return best[2]


hosts = st.sampled_from(["10.0.0.1", "10.0.0.2", "fe80::1", "::ffff:10.0.0.3"])
ports = st.sampled_from([0, 80, 1000])
protos = st.sampled_from([1, 6, 17, 58])
times = st.integers(0, 6)
traffic = st.lists(st.builds(Packet, hosts, ports, hosts, ports, protos, times), max_size=15)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, st.none())


some_rules = st.lists(
    st.builds(Rule, *map(optional, (hosts, ports, hosts, ports, protos, times, times))).filter(
        lambda rule: rule.start is None or rule.end is None or rule.start <= rule.end
    ),
    max_size=12,
)


@given(rules=some_rules, rows=traffic)
@settings(max_examples=150)
def test_packets_get_the_probe_that_a_naive_matcher_gives(
    tmp_path_factory: pytest.TempPathFactory, rules: list[Rule], rows: list[Packet]
) -> None:
    names = [dict(zip(KEYS, rule)) | {"task": str(k)} for k, rule in enumerate(rules, 1)]
    for name in names:
        for end in ("start", "end"):
            name[end] = None if name[end] is None else f"0.{name[end]:09d}"
    path = as_csv(
        tmp_path_factory.getbasetemp() / "rules.csv", *(names or [dict.fromkeys([*KEYS, "task"], "x")])
    )
    if not rules:
        path.write_text(path.read_text().splitlines()[0] + "\n")
    known = read_labels(path)
    order = list(known.probes)
    got = [order.index(k) for k in known.tag(packets(*rows)).probe.tolist()]
    assert got == [naive(rules, row) for row in rows]


def test_tagging_changes_only_the_probe_column_and_not_the_block_it_was_given(tmp_path: Path) -> None:
    before = packets(Packet(), BACK)
    known = labels(tmp_path, ROW)
    after = known.tag(before)
    assert before.probe.tolist() == [0, 0]
    assert after.probe.tolist() == [list(known.probes)[1]] * 2
    assert all(a is b for name, a, b in zip(after._fields, after, before) if name != "probe")


# ----------------------------------------------------------------------------------------------------- slices


def sliced(probes: Probes, names: tuple[str, ...], most: int) -> Slices:
    slices = Slices(names, most)
    slices.meet(probes)
    return slices


def test_slices_keep_the_first_values_and_fold_the_rest_into_other() -> None:
    probes: dict[int, dict[str, str]] = {0: {}} | {
        10 + k: {"task": t, "load": load}
        for k, (t, load) in enumerate(zip("abcab", ["1", "2", "1", "3", "1"]))
    }
    slices = sliced(probes, ("task", "load"), 2)
    assert [slices.values(k) for k in probes] == [
        ("", ""), ("a", "1"), ("b", "2"), ("other", "1"), ("a", "other"), ("b", "1"),
    ]  # fmt: skip
    assert [slices.folded(k) for k in probes] == [(), (), (), ("task",), ("load",), ()]


def test_probes_that_are_met_later_change_no_value_given_before() -> None:
    slices = sliced({1: {"task": "a"}}, ("task",), 2)
    slices.meet({1: {"task": "a"}, 2: {"task": "b"}, 3: {"task": "c"}})
    assert [slices.values(k) for k in (1, 2, 3, 4)] == [("a",), ("b",), ("other",), ("",)]
    assert slices.folded(4) == ()


def test_a_slice_that_a_probe_does_not_have_is_empty_and_not_folded() -> None:
    slices = sliced({0: {}, 7: {"load": "1"}}, ("task",), 1)
    assert [(slices.values(k), slices.folded(k)) for k in (0, 7)] == [(("",), ())] * 2


@given(values=st.lists(st.text(max_size=3), max_size=30), most=st.integers(1, 5))
def test_a_slice_has_never_more_values_than_allowed(values: list[str], most: int) -> None:
    slices = sliced({k: {"task": v} for k, v in enumerate(values)}, ("task",), most)
    assert len({slices.values(k)[0] for k in range(len(values))} - {"", "other"}) <= most


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
