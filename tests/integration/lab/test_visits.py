"""Visits to the shop with an injection or something harmless in its place, held against the capture."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapReader

from probing.lab.clients.sql_visits import ATTACKS
from probing.lab.session import Sample, Thoughts
from tests.support.lab import BUSY_MS, Done, perform

pytestmark = pytest.mark.lab

REQUEST = re.compile(rb"(?:GET|POST) (\S+) HTTP/1.1\r\n")
INJECTED = re.compile(rb"(?:%27|')")
EARLY_NS = 5_000_000  # a mark stands before what it announces
VISITS: dict[str, Any] = {
    "scenario": "sql",
    "server": "sql-injectable",
    "client": "sql-user",
    "activity": "visit",
}


class Asked(NamedTuple):
    """A request in the capture."""

    at: int  # ns
    size: int  # bytes of the request
    text: bytes
    answer: int  # bytes of its answer
    waited: int  # ns since the last packet of the answer before; -1: the first of its connection


def asked(done: Done) -> dict[tuple[str, int], list[Asked]]:
    """The requests of each connection of a capture, by the client's end."""
    found: dict[tuple[str, int], list[Asked]] = {}
    last: dict[tuple[str, int], int] = {}
    with PcapReader(str(done.capture())) as packets:
        for packet in packets:
            ip, tcp, at = packet[IP], packet[TCP], int(packet.time * 10**9)
            text = bytes(tcp.payload)[: ip.len - 20 - 4 * tcp.dataofs]
            up = tcp.dport == 80
            key = (ip.src, tcp.sport) if up else (ip.dst, tcp.dport)
            requests = found.setdefault(key, [])
            if up and REQUEST.match(text):
                waited = at - last[key] if key in last else -1
                requests.append(Asked(at, len(text), text, 0, waited))
            elif text and not up:
                requests[-1] = requests[-1]._replace(answer=requests[-1].answer + len(text))
                last[key] = at
    return found


def requests_of(done: Done) -> list[tuple[dict[str, Any], list[Asked]]]:
    """Label rows with the requests of their connection, in order of time."""
    assert done.account["failed_samples"] == 0, done.account["problems"]
    found = asked(done)
    rows = sorted((row for row, _ in done.joined()), key=lambda row: row["start"])
    return [(row, found[row["src"], row["sport"]]) for row in rows]


def target(request: Asked) -> bytes:
    """The target of a request."""
    found = REQUEST.match(request.text)
    assert found is not None
    return found[1]


def marks(row: dict[str, Any], *names: str) -> list[int]:
    """Times of a sample's phases of these names."""
    return [at for name, at in json.loads(row["phases"]) if name in names]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """Visits with injections at both servers, with customers at the same one."""
    customers = [{**VISITS, "users": 2, "pause_ms": 1}]
    return perform(
        tmp_path_factory.mktemp("attacked"),
        {"scenario": "sql-injection", "client": "sql-hand", "activity": list(ATTACKS), "samples": 6, "users": 3,
         "background": customers},
    )  # fmt: skip


def test_injections_in_visits_succeed_where_words_become_statements(attacked: list[Done]) -> None:
    assert len(attacked) == 6
    for done in attacked:
        for row, requests in requests_of(done):
            if row["background"]:
                continue
            injections = [r for r in requests if INJECTED.search(r.text)]
            assert row["succeeded"] is (done.run.server == "sql-injectable"), done.run.id
            logins = [r for r in requests if r.text.startswith(b"POST") and r not in injections]
            assert (row["carries_attack"], row["attempts"]) == (True, len(injections) + len(logins))
            blind = done.run.activity == "visit-blind"
            least, most = (3, 8) if blind and row["succeeded"] else (2, 2) if blind else (1, 1)
            assert least <= len(injections) <= most, done.run.id
            login = (b" /login.php", b" /account.php")
            around = [
                r for r in requests if r not in injections and not any(page in r.text for page in login)
            ]
            assert 2 + 2 <= len(around) - 1 <= 5 + 7  # beside the style sheet
            for phases, which in ((("request", "injection"), requests), (("injection",), injections)):
                begun = marks(row, *phases)
                assert len(begun) == len(which)
                ends = [*begun[1:], row["end"] + EARLY_NS]
                assert all(at - EARLY_NS < r.at < end for r, at, end in zip(which, begun, ends))
            assert len(marks(row, "transfer")) == len(injections)


def test_customers_visit_the_server_that_is_attacked_and_nothing_of_theirs_is_an_attack(
    attacked: list[Done],
) -> None:
    for done in attacked:
        servers = {row["dst"] for row in done.rows if not row["background"]}
        customers = [(row, requests) for row, requests in requests_of(done) if row["background"]]
        assert len(customers) >= 2
        for row, requests in customers:
            assert (row["dst"] in servers) == (done.run.server == "sql-injectable")
            assert (row["attack"], row["carries_attack"], row["succeeded"]) == (0, False, True)
            assert not any(INJECTED.search(r.text) for r in requests)
            assert row["attempts"] == sum(r.text.startswith(b"POST /login.php") for r in requests)


def test_answers_of_injections_are_as_large_as_honest_ones(attacked: list[Done]) -> None:
    honest: dict[bytes, list[int]] = {}
    injected: dict[bytes, list[int]] = {}
    for done in attacked:
        if done.run.server == "sql-injectable":
            for _row, requests in requests_of(done):
                for r, following in itertools.pairwise(requests):
                    page = target(r).partition(b"?")[0]
                    bad = INJECTED.search(r.text) is not None
                    (injected if bad else honest).setdefault(page, []).append(r.answer)
                    if bad and page == b"/login.php":
                        injected.setdefault(b"/account.php", []).append(following.answer)
    for page in (b"/search.php", b"/product.php", b"/account.php"):
        low, high = min(honest[page]), max(honest[page])
        assert low * 0.9 < min(injected[page]), page
        assert max(injected[page]) < high * 1.1, page
        assert low < median(injected[page]) < high, page


def test_of_a_visit_in_several_connections_those_that_carry_the_injection_are_told(tmp_path: Path) -> None:
    (done,) = perform(
        tmp_path,
        {"scenario": "sql-injection", "client": "sql-hand", "activity": "visit-union", "server": "sql-injectable",
         "samples": 4, "users": 2, "parameters": {"requests": 3}},
    )  # fmt: skip
    carrying: dict[int, int] = {}
    for row, requests in requests_of(done):
        injections = sum(INJECTED.search(r.text) is not None for r in requests)
        assert 1 <= len(requests) <= 3
        logins = sum(r.text.startswith(b"POST /login.php") for r in requests)
        assert (row["attack"], row["carries_attack"]) == (1, injections > 0)
        assert row["attempts"] == injections + logins
        carrying[row["sample"]] = carrying.get(row["sample"], 0) + injections
    assert carrying == dict.fromkeys(range(4), 1)
    assert len(done.rows) > 8


def test_mirrored_visits_send_requests_as_long_as_injections(tmp_path: Path, attacked: list[Done]) -> None:
    long = [
        len(target(r))
        for done in attacked
        for _, requests in requests_of(done)
        for r in requests
        if b"UNION" in r.text
    ]
    runs = perform(tmp_path, {**VISITS, "samples": 12, "users": 3, "parameters": {"mirrored_pct": [0, 100]}})
    for done in runs:
        visits, mirrored = requests_of(done), done.run.parameters.mirrored_pct == 100
        longest = [max(len(target(r)) for r in requests) for _, requests in visits]
        assert {row["mirrored"] for row, _ in visits} == {mirrored}
        assert (sum(n >= min(long) for n in longest) >= 3) is mirrored
        assert mirrored or max(longest) < min(long)


def test_users_think_as_long_as_their_pace_says(tmp_path: Path) -> None:
    think_ms = 60.0
    (done,) = perform(
        tmp_path,
        {**VISITS, "server": "sql-prepared", "activity": "browse", "samples": 12, "users": 3,
         "parameters": {"think_ms": think_ms}},
    )  # fmt: skip
    paces = []
    late: list[float] = []
    for row, requests in requests_of(done):
        name = f"client{row['user'] + 1}"
        thoughts = Thoughts(Sample("browse", done.run.parameters, str(done.run.seed), row["sample"]), name)
        paces.append(thoughts.pace)
        waits = [r.waited / 1e9 for r in requests if r.waited >= 0]
        wanted = [0.0, *(thoughts.next(think_ms) for _ in waits[1:])]  # the style sheet is asked for at once
        assert all(wait >= want for wait, want in zip(waits, wanted)), row
        late += [wait - want for wait, want in zip(waits, wanted)]
    assert len(set(paces)) == 3
    assert len(late) == 12 * 6
    assert median(late) < BUSY_MS / 1e3
