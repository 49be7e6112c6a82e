"""The shop's customers and those who break into it, held against the capture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.utils import PcapReader

from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

DELAY_MS = 5.0
EARLY_NS, LATE_NS = 5_000_000, 50_000_000  # a mark stands before what it announces; a busy machine sees late
HEADERS = 600  # bytes a request, both directions, at most
REQUESTS = {"browse": 7, "search": 6, "login": 4, "register": 4, "order": 5}
ATTACKS = ["tautology", "union", "blind", "list-login", "list-register"]


def entry(scenario: str, **more: Any) -> dict[str, Any]:
    """Two samples over a link of 10 ms there and back."""
    return {"scenario": scenario, "samples": 2, "link": {"delay_ms": DELAY_MS}, **more}


def agrees(done: Done, connections: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Hold a run against its capture. connections: how many of them a sample has. Rows by their start."""
    assert done.account["failed_samples"] == 0, done.run.id
    joined = sorted(done.joined(), key=lambda pair: pair[0]["start"])
    assert len(joined) == done.run.samples * connections, done.run.id
    for row, connection in joined:
        what = f"{done.run.id}: {row} {connection}"
        assert connection["conn_state"] == {"rst": "RSTO", "sudden": "S1"}.get(row["termination"], "SF"), what
        assert is_delayed(row, done.run.link.delay_ms), what
        assert row["role"] == "main", what
    return joined


def within(row: dict[str, Any], phase: str) -> int:
    """How often a phase begins in the time of a connection."""
    marks = json.loads(row["phases"])
    return sum(name == phase and row["start"] - EARLY_NS < at < row["end"] + LATE_NS for name, at in marks)


def test_customers_get_what_they_came_for_at_both_servers(tmp_path: Path) -> None:
    runs = perform(tmp_path, entry("sql", users=2, activity=list(REQUESTS)))
    assert {(done.run.activity, done.run.server) for done in runs} == {
        (activity, server) for activity in REQUESTS for server in ("sql-injectable", "sql-prepared")
    }
    for done in runs:
        for row, connection in agrees(done, 1):
            requests = REQUESTS[done.run.activity]
            assert (row["succeeded"], row["attack"]) == (True, 0)
            moved = connection["orig_bytes"] + connection["resp_bytes"]
            assert moved - requests * 2 * HEADERS < row["content_bytes"] < moved
            marks = json.loads(row["phases"])
            assert [name for name, _ in marks] == ["connect"] + requests * ["request"]
            assert within(row, "request") == requests


def test_with_one_request_a_connection_the_server_closes_each(tmp_path: Path) -> None:
    (done,) = perform(
        tmp_path, entry("sql", activity="login", server="sql-prepared", parameters={"requests": 1})
    )
    for row, connection in agrees(done, REQUESTS["login"]):
        assert connection["history"].index("f") < connection["history"].index("F")
        assert (row["termination"], row["succeeded"]) == ("fin", True)


def test_a_warm_client_has_the_style_sheet(tmp_path: Path) -> None:
    cold, warm = sorted(
        perform(
            tmp_path,
            entry("sql", activity="browse", server="sql-prepared", parameters={"cache": ["cold", "warm"]}),
        ),
        key=lambda done: done.run.parameters.cache,
    )
    assert {within(row, "request") for row, _ in agrees(cold, 1)} == {REQUESTS["browse"]}
    assert {within(row, "request") for row, _ in agrees(warm, 1)} == {REQUESTS["browse"] - 1}


def test_the_last_connection_ends_as_it_is_asked_to(tmp_path: Path) -> None:
    ways = ["fin", "rst", "sudden", "timeout"]
    parameters = {"requests": 2, "termination": ways}
    runs = perform(tmp_path, entry("sql", activity="login", server="sql-prepared", parameters=parameters))
    assert sorted(done.run.parameters.termination for done in runs) == ways
    for done in runs:
        joined, way = agrees(done, 2), done.run.parameters.termination
        assert [row["termination"] for row, _ in joined] == ["fin", way] * 2
        for row, connection in joined:
            history = connection["history"]
            assert row["succeeded"] is (way != "sudden")
            if row["termination"] == "sudden":
                assert row["cut_up"] > 0
                assert "F" not in history
            elif row["termination"] != "rst":
                assert (history.index("f") < history.index("F")) == (row["termination"] == "timeout")


def test_injections_succeed_where_words_become_statements_and_nowhere_else(tmp_path: Path) -> None:
    runs = perform(tmp_path, entry("sql-injection", client="sql-hand", activity=ATTACKS))
    assert len(runs) == 2 * len(ATTACKS)
    for done in runs:
        many = done.run.activity.startswith("list-")
        injectable = done.run.server == "sql-injectable"
        for row, connection in agrees(done, done.run.parameters.guesses if many else 1):
            what = f"{done.run.id}: {row} {connection}"
            assert row["succeeded"] is (injectable and done.run.activity != "list-register"), what
            assert (row["attack"], row["attack_kind"]) == (1, "sql-injection"), what
            for phase in ("connect", "injection", "transfer"):
                assert within(row, phase) >= 1, what
            assert within(row, "browse") == (0 if many else 1), what
            if done.run.activity == "union":  # a few dozen lamps, or all customers as well
                assert (connection["resp_bytes"] > 25_000) == injectable, what
            if done.run.activity == "blind":
                assert connection["orig_pkts"] > done.run.parameters.requests or not injectable, what


def test_marks_of_an_injection_stand_at_its_packets(tmp_path: Path) -> None:
    (done,) = perform(
        tmp_path, entry("sql-injection", activity="union", server="sql-injectable", client="sql-hand")
    )
    injecting, answering = [], []
    with PcapReader(str(done.capture())) as packets:
        for packet in packets:
            text, at = bytes(packet[TCP].payload), int(packet.time * 10**9)
            if b"UNION" in text:
                injecting.append(at)
                answering.append(0)
            elif text and packet[TCP].sport == 80 and answering and not answering[-1]:
                answering[-1] = at
    marks = [dict(json.loads(row["phases"])) for row, _ in agrees(done, 1)]
    assert len(injecting) == len(marks) == 2
    for mark, asked, answered in zip(marks, injecting, answering):
        assert 0 < asked - mark["injection"] < EARLY_NS
        assert abs(answered - mark["transfer"]) < EARLY_NS


def test_sqlmap_finds_the_way_in_and_asks_the_same_in_twins(tmp_path: Path) -> None:
    twins = [{"delay_ms": 1}, {"delay_ms": 15}]
    quick, slow = perform(
        tmp_path,
        {"scenario": "sql-injection", "client": "sqlmap", "activity": "sqlmap-dump", "server": "sql-injectable",
         "twins": twins},
    )  # fmt: skip
    asked = []
    for done in (quick, slow):
        joined = agrees(done, len(done.rows))
        assert 20 < len(joined) < 80
        assert {row["succeeded"] for row, _ in joined} == {True}
        assert all(100 < row["content_bytes"] < connection["resp_bytes"] for row, connection in joined)
        asked.append([(connection["orig_bytes"], connection["resp_bytes"]) for _, connection in joined])
    assert asked[0] == asked[1]


def test_sqlmap_finds_no_way_into_prepared_statements(tmp_path: Path) -> None:
    (done,) = perform(
        tmp_path,
        entry("sql-injection", client="sqlmap", activity="sqlmap-dump", server="sql-prepared", samples=1),
    )
    assert {row["succeeded"] for row, _ in agrees(done, len(done.rows))} == {False}
    assert len(done.rows) > 10
