"""The web: what nginx and Apache answer to curl, wget and our own client, held against the capture."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from probing.lab.session import Sample, Thoughts
from tests.support.lab import BUSY_MS, Done, is_delayed, perform

pytestmark = pytest.mark.lab

QUICK = ["get", "multi-get", "post", "not-found", "redirect", "cached"]
STATES = {"fin": "SF", "timeout": "SF", "rst": "RSTO", "sudden": "S1"}
HEADERS = 4000  # bytes, of a conversation of 4 requests at most
LATE_NS = 200_000_000  # as BUSY_MS: a client on a busy machine sees late what has come


def agrees(done: Done, tls: int = 0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Hold a run against its capture. Returns label rows with their connections. tls: bytes of handshakes, at most."""
    assert done.account["failed_samples"] == 0, done.run.id
    joined = done.joined()
    assert len(joined) == done.run.samples, "a sample is one connection"
    ends = done.run.parameters.termination
    for row, connection in joined:
        what = f"{done.run.id}: {row} {connection}"
        assert (row["role"], row["dport"]) == ("main", 443 if tls else 80), what
        assert row["termination"] == ends, what
        assert connection["conn_state"] == STATES[ends], what
        assert is_delayed(row, done.run.link.delay_ms), what
        _phases_agree(done, row, what)
        if ends in ("fin", "timeout"):
            _content_agrees(done, row, connection, tls, what)
    return joined


def _phases_agree(done: Done, row: dict[str, Any], what: str) -> None:
    does = catalog.scenario(done.run.scenario).activities[done.run.activity]
    marks = json.loads(row["phases"])
    assert [at for _, at in marks] == sorted(at for _, at in marks), what
    assert all(row["start"] < at < row["end"] + LATE_NS for _, at in marks), what
    named = {name for name, _ in marks}
    if row["termination"] in ("fin", "timeout"):
        kept = {"transfer"} if done.run.parameters.cache == "warm" else set()
        assert named == set(does.phases) - kept, what
    else:
        assert {"request"} <= named <= set(does.phases), what


def _content_agrees(done: Done, row: dict[str, Any], connection: dict[str, Any], tls: int, what: str) -> None:
    kind = done.run.activity.removeprefix("tls-")
    assert row["succeeded"] is (kind != "not-found"), what
    content = row["content_bytes"] or 0
    assert (row["content_bytes"] is None) == (kind == "not-found"), what
    sent, came = connection["orig_bytes"], connection["resp_bytes"]
    up, down = (content, 0) if kind == "post" else (0, content)
    assert up < sent < up * 1.01 + HEADERS + tls, what
    assert down < came < down * 1.01 + HEADERS + tls, what


def lasts_ms(row: dict[str, Any]) -> float:
    """How long a connection takes."""
    return float(row["end"] - row["start"]) / 1e6


def test_every_program_does_every_activity_at_every_server(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": QUICK, "samples": 2, "users": 2}
    done = perform(tmp_path, entry)
    assert len(done) == len(QUICK) * 3 * 2
    for run in done:
        agrees(run)


def test_a_connection_that_is_kept_alive_rests_between_requests(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "keep-alive", "samples": 2, "users": 2,
             "parameters": {"requests": 3, "pause_ms": 400}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 3 * 2
    for run in done:
        for row, _ in agrees(run):
            requests = [at for name, at in json.loads(row["phases"]) if name == "request"]
            assert len(requests) == 3
            # curl counts from where it begins with a request: one that leaves late is nearer to the next
            assert all(b - a > (400 - BUSY_MS) * 1e6 for a, b in itertools.pairwise(requests))
            assert 2 * 400 - BUSY_MS < lasts_ms(row) < 2 * 400 + 3 * BUSY_MS


def test_a_user_thinks_between_the_pages_of_a_connection_that_is_kept_alive(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "keep-alive", "server": "nginx", "client": "asyncio", "samples": 4,
             "users": 2, "parameters": {"requests": 5, "pause_ms": 10, "think_ms": 60}}  # fmt: skip
    (done,) = perform(tmp_path, entry)
    for row, _ in agrees(done):
        sample = Sample("keep-alive", done.run.parameters, str(done.run.seed), row["sample"])
        thoughts = Thoughts(sample, f"client{row['user'] + 1}")
        requests = [at for name, at in json.loads(row["phases"]) if name == "request"]
        waits = [(b - a) / 1e9 for a, b in itertools.pairwise(requests)]
        assert len(waits) == 4
        assert all(wait >= 0.01 + thoughts.next(60.0) for wait in waits)


def test_requests_of_a_multi_get_follow_each_other(tmp_path: Path) -> None:
    entry = {
        "scenario": "http",
        "activity": "multi-get",
        "server": "nginx",
        "samples": 2,
        "parameters": {"requests": 6},
    }
    for run in perform(tmp_path, entry):
        for row, _ in agrees(run):
            assert [name for name, _ in json.loads(row["phases"])].count("request") == 6
            assert lasts_ms(row) < 2 * BUSY_MS


def test_a_stream_flows_as_long_as_its_rate_says(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "streaming", "samples": 2, "users": 2,
             "parameters": {"content_bytes": 200_000}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 3 * 2
    for run in done:
        for row, _ in agrees(run):
            assert row["data_down"] > 200_000 / 1460
            # what is not limited, the first burst, is an eighth at most; Apache waits a fifth of a second behind each
            assert 0.6 < lasts_ms(row) / 1e3 / (200_000 / 256 / 1024) < 1.6


@pytest.mark.parametrize("ends", ["rst", "sudden"])
def test_connections_break_off_as_they_are_told_to(tmp_path: Path, ends: str) -> None:
    entry = {"scenario": "http", "activity": [*QUICK, "keep-alive", "streaming"], "client": "asyncio", "samples": 6,
             "users": 6,
             "parameters": {"termination": ends, "content_bytes": "20000-90000", "pause_ms": 30}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 8 * 2
    part, succeeded, asks_again = 0, set(), 0
    for run in done:
        for row, connection in agrees(run):
            succeeded.add(row["succeeded"])
            part += 0 < connection["resp_bytes"] < (row["content_bytes"] or 0)
            asks_again += row["cut_up"] > 0
    assert part > 10, "some break off amid a content"
    # who is cut off when all is there has what it wanted; who does not know asks again and is not heard
    assert (succeeded == {True, False}) is (asks_again > 3) is (ends == "sudden")


def test_an_idle_connection_is_ended_by_the_server(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": ["get", "streaming"], "client": "asyncio", "samples": 4, "users": 4,
             "parameters": {"termination": "timeout", "content_bytes": 50_000}}  # fmt: skip
    for run in perform(tmp_path, entry):
        for row, connection in agrees(run):
            assert 950 < lasts_ms(row) < 1600
            assert connection["history"].index("f") < connection["history"].index("F")


def test_between_requests_the_server_is_more_patient(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "keep-alive", "server": "apache", "client": "asyncio", "samples": 4,
             "users": 4, "link": {"delay_ms": 200},
             "parameters": {"termination": "timeout", "pause_ms": 800}}  # fmt: skip
    (done,) = perform(tmp_path, entry)
    agrees(done)


@pytest.mark.parametrize("client", ["curl", "wget"])
def test_programs_refuse_an_end_that_they_cannot_make(tmp_path: Path, client: str) -> None:
    entry = {"scenario": "http", "activity": "get", "server": "nginx", "client": client}
    with pytest.raises(
        AssertionError, match=f"{client} cannot end a connection by rst; use the client asyncio"
    ):
        perform(tmp_path, entry | {"parameters": {"termination": "rst"}})


def test_what_the_client_has_is_not_sent_again(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "cached", "server": "apache", "samples": 2,
             "parameters": {"content_bytes": 9000, "cache": ["cold", "warm"]}}  # fmt: skip
    for run in perform(tmp_path, entry):
        for row, connection in agrees(run):
            cold = row["cache"] == "cold"
            assert row["content_bytes"] == (9000 if cold else 0)
            assert (connection["resp_bytes"] > 9000) is cold


def test_twins_say_the_same(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": ["get", "post"], "samples": 3, "server": "nginx",
             "twins": [{}, {"delay_ms": 20}]}  # fmt: skip
    said: dict[tuple[str, str, int], set[tuple[int, int]]] = {}
    for run in perform(tmp_path, entry):
        for row, connection in agrees(run):
            key = (run.run.client, run.run.activity, row["sample"])
            said.setdefault(key, set()).add((connection["orig_bytes"], connection["resp_bytes"]))
    assert len(said) == 3 * 2 * 3
    assert all(len(sizes) == 1 for sizes in said.values())


def test_a_bad_link_delays_but_does_not_prevent(tmp_path: Path) -> None:
    entry = {"scenario": "http", "activity": "get", "server": "apache", "samples": 8, "users": 8,
             "link": {"delay_ms": 200, "loss_pct": 5}, "parameters": {"content_bytes": 20_000}}  # fmt: skip
    for run in perform(tmp_path, entry):
        assert run.account["failed_samples"] == 0
        assert all(row["succeeded"] for row in run.rows)
        assert sum(row["lost_up"] + row["lost_down"] for row in run.rows) > 3
