"""Which row of a label file a packet belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.labels.file import read_labels
from engine.labels.rules import Labels
from engine.labels.table import KEYS
from engine.types import Kind
from tests.support.labelled import ROW, T0, Packet, as_csv, labels, packets, tasks


def changed(packet: Packet, field: str, value: Any) -> Packet:
    values: dict[str, Any] = {field: value}
    return packet._replace(**values)


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


ANYTHING = dict.fromkeys(("src", "sport", "dst", "dport", "proto", "start", "end"), "")


def tagged(known: Labels, kind: Kind, packet: Packet) -> bool:
    p = packets(packet)
    p.kind[:] = kind
    return bool(known.tag(p).probe[0])


@pytest.mark.parametrize(
    ("row", "ip", "arp", "lldp"),
    [
        ({"start": "1700000000"}, True, True, True),
        ({"src": "10.0.0.1"}, True, True, False),
        ({"dst": "10.0.0.1"}, True, True, False),
        ({"src": "10.0.0.3"}, False, False, False),
        ({"src": "::"}, False, False, False),
        ({"src": "10.0.0.1", "dst": "10.0.0.2"}, True, False, False),  # what a forged reply says, too
        ({"sport": "1"}, True, False, False),  # the operation of ARP stands there
        ({"dport": "0"}, True, False, False),
        ({"proto": "0"}, True, False, False),
        (
            {"src": "10.0.0.1", "sport": "1", "dst": "10.0.0.2", "dport": "0", "proto": "0"},
            True,
            False,
            False,
        ),
    ],
)
def test_a_frame_that_is_not_ip_matches_a_time_and_arp_one_host_at_most(
    tmp_path: Path, row: dict[str, str], ip: bool, arp: bool, lldp: bool
) -> None:
    known = labels(tmp_path, ROW | ANYTHING | row)
    here = Packet(sport=1, dport=0, proto=0)
    assert tagged(known, Kind.IPV4, here) == ip
    assert tagged(known, Kind.ARP, here) == arp
    assert tagged(known, Kind.LINK, here._replace(src="::", dst="::", sport=0)) == lldp


MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff")


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"src": MACS[0], "dst": MACS[1]}, [True, True, False, False]),
        ({"src": MACS[0].upper().replace(":", "-"), "dst": MACS[2]}, [False, False, True, False]),
        ({"src": MACS[0]}, [True, True, True, False]),
        ({"dst": MACS[0]}, [True, True, True, False]),
        ({}, [True, True, True, True]),
    ],
)
def test_a_row_of_arp_names_macs_in_either_direction(
    tmp_path: Path, row: dict[str, str], wanted: list[bool]
) -> None:
    known = labels(tmp_path, ROW | ANYTHING | {"proto": "arp"} | row)
    p = packets(*[Packet(sport=1, dport=0, proto=0)] * 4)
    p.kind[:] = Kind.ARP
    for i, (src, dst) in enumerate(((0, 1), (1, 0), (0, 2), (1, 2))):
        p.src_mac[i], p.dst_mac[i] = (int(MACS[k].replace(":", ""), 16) for k in (src, dst))
    assert (known.tag(p).probe > 0).tolist() == wanted
    for other in (Kind.IPV4, Kind.LINK):
        p.kind[:] = other
        assert not known.tag(p).probe.any()


def test_many_rows_of_two_macs_need_no_comparison_each(tmp_path: Path) -> None:
    rows = [
        ROW | ANYTHING | {"proto": "arp", "src": MACS[0], "dst": f"02:00:00:01:{k >> 8:02x}:{k & 255:02x}"}
        for k in range(5000)
    ]
    assert labels(tmp_path, *rows).patterns == 0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"proto": "arp", "src": "10.0.0.1"}, "'10.0.0.1' must be a MAC"),
        ({"proto": "arp", "src": "02:00:00:00:00"}, "must be a MAC"),
        ({"proto": "arp", "src": "", "sport": "1"}, "sport '1' must be empty"),
        ({"proto": "tcp", "src": MACS[0]}, "only with proto arp"),
        ({"proto": "", "dst": MACS[0]}, "only with proto arp"),
    ],
)
def test_macs_and_arp_go_together(tmp_path: Path, row: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=f"row 1: .*{words}"):
        labels(tmp_path, ROW | ANYTHING | row)


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
