"""Guesses of passwords, held against the capture."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapReader

from probing.lab.clients.guessing import word_list
from probing.lab.isolation import PASSWORD
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

CLEAR = re.compile(rb"(?:&password=|^PASS )([^&\r]+)")
STATES = {"fin": {"SF"}, "rst": {"RSTO", "RSTR"}}


def agrees(done: Done) -> dict[int, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Hold a run against its capture; rows with their connections, by their sample."""
    assert done.account["failed_samples"] == 0, done.run.id
    samples: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row, connection in sorted(done.joined(), key=lambda pair: pair[0]["start"]):
        what = f"{done.run.id}: {row} {connection}"
        assert connection["conn_state"] in STATES[row["termination"]], what
        assert is_delayed(row, done.run.link.delay_ms), what
        assert (row["attack"], row["attack_kind"], row["content_bytes"]) == (1, "password-guessing", None), (
            what
        )
        assert row["role"] == ("control" if row["dport"] == 21 else "main"), what
        samples.setdefault(row["sample"], []).append((row, connection))
    assert len(samples) == done.run.samples
    return samples


def guessed(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Times at which a sample's guesses begin."""
    return [at for name, at in json.loads(rows[0][0]["phases"]) if name == "guess"]


def found(done: Done) -> list[int]:
    """When the right password was sent, in clear."""
    with PcapReader(str(done.capture())) as packets:
        return [int(packet.time * 10**9) for packet in packets if PASSWORD.encode() in bytes(packet)]


@pytest.mark.parametrize(
    ("activity", "client", "most"), [("form-guess", "form-guesser", 8), ("ftp-guess", "ftp-guesser", 3)]
)
def test_every_guess_is_sent_until_one_is_right(
    tmp_path: Path, activity: str, client: str, most: int
) -> None:
    runs = perform(
        tmp_path,
        {"scenario": "password-guessing", "activity": activity, "client": client, "samples": 4, "users": 4,
         "link": {"delay_ms": 5}, "parameters": {"guesses": 4, "requests": [1, 8]}},
    )  # fmt: skip
    assert len(runs) == (4 if activity == "form-guess" else 2)
    outcomes = set()
    for done in runs:
        samples = agrees(done)
        right = found(done)
        assert len(right) == sum(rows[0][0]["succeeded"] for rows in samples.values())
        for rows in samples.values():
            tries = len(guessed(rows))
            if rows[0][0]["succeeded"]:  # by the last
                assert any(guessed(rows)[-1] < at < rows[-1][0]["end"] for at in right)
            else:
                assert tries == 4
            assert len(rows) == math.ceil(tries / min(most, done.run.parameters.requests))
            assert (
                rows[0][0]["start"] < guessed(rows)[0] < guessed(rows)[-1] < rows[-1][0]["end"] or tries == 1
            )
            outcomes.add(rows[0][0]["succeeded"])
    assert outcomes == {True, False}


def test_ssh_is_told_a_next_password_whenever_it_asks(tmp_path: Path) -> None:
    runs = perform(
        tmp_path,
        {"scenario": "password-guessing", "activity": "ssh-guess", "client": "ssh-guesser", "samples": 4,
         "link": {"delay_ms": 5}, "parameters": {"guesses": 5, "requests": [1, 5]}},
    )  # fmt: skip
    for done in runs:
        samples = agrees(done)
        assert {rows[0][0]["succeeded"] for rows in samples.values()} == {True, False}
        for rows in samples.values():
            assert len(rows) == len(guessed(rows))  # a mark for each time that the program is started
            if done.run.parameters.requests == 5:
                assert len(rows) == 1
            elif not rows[0][0]["succeeded"]:
                assert len(rows) == 5
    alone, together = sorted(runs, key=lambda done: done.run.parameters.requests)
    least = min(c["orig_bytes"] for rows in agrees(alone).values() for _, c in rows)
    most = max(c["orig_bytes"] for rows in agrees(together).values() for _, c in rows)
    assert most - least > 4 * 80  # of a guess and the frame round it


def guesses_in(row: dict[str, Any]) -> int:
    """The guesses that a connection is said to carry; nothing else in it counts."""
    assert row["carries_attack"] is (row["attempts"] > 0)
    return int(row["attempts"])


@pytest.mark.parametrize(
    ("activity", "server", "most"),
    [("form-guess", "sql-prepared", 4), ("ftp-guess", "vsftpd", 3), ("ssh-guess", "openssh", 4)],
)
def test_several_hosts_share_a_list_and_each_connection_says_how_many_guesses_it_carries(
    tmp_path: Path, activity: str, server: str, most: int
) -> None:
    (done,) = perform(
        tmp_path,
        {"scenario": "password-guessing", "activity": activity, "server": server,
         "client": activity.replace("guess", "guesser"), "samples": 6, "users": 3,
         "parameters": {"guesses": 14, "parts": 3, "requests": 4, "think_ms": 10}},
    )  # fmt: skip
    sent = words_sent(done)
    for sample, rows in agrees(done).items():
        own, carried = rows[0][0], [guesses_in(row) for row, _ in rows]
        part = len(range(sample % 3, 14, 3))
        assert 0 < sum(carried) <= part
        assert own["succeeded"] or sum(carried) == part
        assert max(carried) == min(most, sum(carried))
        assert len({row["src"] for row, _ in rows}) == 1
        if activity != "ssh-guess":
            words = [sent[row["src"], row["sport"]] for row, _ in rows]
            assert [len(tried) for tried in words] == carried
            whole = word_list(Random(f"{done.run.seed}/list {sample // 3}"), 14)
            tried = [unquote(word.decode()) for words_of_one in words for word in words_of_one]
            assert tried == whole[sample % 3 :: 3][: len(tried)]
    assert len({row["src"] for row in done.rows}) == 3


def words_sent(done: Done) -> dict[tuple[str, int], list[bytes]]:
    """The passwords in clear, by the client's end of their connection."""
    found: dict[tuple[str, int], list[bytes]] = {}
    with PcapReader(str(done.capture())) as packets:
        for packet in packets:
            if tried := CLEAR.search(bytes(packet[TCP].payload)):
                found.setdefault((packet[IP].src, packet[TCP].sport), []).append(tried[1])
    return found


def test_guesses_in_a_visit_look_like_those_of_a_customer_who_mistypes(tmp_path: Path) -> None:
    customers = {"scenario": "sql", "server": "sql-injectable", "client": "sql-user", "activity": "mistyped-login",
                 "users": 2, "pause_ms": 1}  # fmt: skip
    (done,) = perform(
        tmp_path,
        {"scenario": "password-guessing", "activity": "form-visit", "server": "sql-injectable", "samples": 6,
         "users": 3, "parameters": {"guesses": 3}, "background": [customers]},
    )  # fmt: skip
    assert done.account["failed_samples"] == 0
    kinds: dict[int, list[tuple[dict[str, Any], dict[str, Any]]]] = {0: [], 1: []}
    for row, connection in done.joined():
        kinds[row["attack"]].append((row, connection))
        assert row["carries_attack"] is bool(row["attack"])
        assert row["attempts"] in (1, 2, 3)
    assert len({row["dst"] for row in done.rows}) == 1
    assert {row["succeeded"] for row, _ in kinds[0]} == {True}
    honest, guessing = ([c["orig_pkts"] for _, c in kinds[k]] for k in (0, 1))
    assert min(honest) < max(guessing)
    assert min(guessing) < max(honest)
    assert all(row["attempts"] == len(guessed([(row, c)])) for row, c in kinds[1])


@pytest.mark.parametrize(
    ("scenario", "server", "client", "wrong"),
    [("ftp", "vsftpd", "ftplib", b"530 "), ("ssh", "openssh", "openssh", b"")],
)
def test_honest_users_mistype_once_or_twice_and_then_come_in(
    tmp_path: Path, scenario: str, server: str, client: str, wrong: bytes
) -> None:
    (done,) = perform(
        tmp_path,
        {"scenario": scenario, "server": server, "client": client, "activity": "mistyped-login", "samples": 4,
         "users": 2, "parameters": {"think_ms": 10}},
    )  # fmt: skip
    assert done.account["failed_samples"] == 0
    rows = [row for row in done.rows if row["role"] != "data"]
    assert {(row["succeeded"], row["attack"], row["carries_attack"]) for row in rows} == {(True, 0, False)}
    assert sorted(row["sample"] for row in rows) == [0, 1, 2, 3]
    assert {row["attempts"] for row in rows} <= {2, 3}
    if wrong:
        with PcapReader(str(done.capture())) as packets:
            refused = sum(bytes(packet[TCP].payload).startswith(wrong) for packet in packets)
        assert refused == sum(row["attempts"] - 1 for row in rows)


def test_guessers_of_our_own_reset_their_connections_when_asked_to(tmp_path: Path) -> None:
    entry = {"scenario": "password-guessing", "server": ["sql-prepared", "vsftpd"], "samples": 2,
             "client": ["form-guesser", "ftp-guesser"], "parameters": {"guesses": 2, "termination": "rst"}}  # fmt: skip
    runs = perform(tmp_path, entry)
    assert {done.run.client for done in runs} == {"form-guesser", "ftp-guesser"}
    for done in runs:
        for rows in agrees(done).values():
            assert {row["termination"] for row, _ in rows} == {"rst"}


def test_what_hydra_finds_and_how_its_connections_end_is_labelled(tmp_path: Path) -> None:
    entry = {"scenario": "password-guessing", "server": ["sql-prepared", "vsftpd", "openssh"], "client": "hydra",
             "samples": 4, "users": 2, "link": {"delay_ms": 5}, "parameters": {"guesses": 4}}  # fmt: skip
    runs = perform(tmp_path, entry)
    assert {done.run.activity for done in runs} == {"form-guess", "ftp-guess", "ssh-guess"}
    for done in runs:
        samples = agrees(done)
        for rows in samples.values():
            assert len(guessed(rows)) == 1
            assert guessed(rows)[0] < rows[0][0]["start"]
            assert len(rows) >= {"form-guess": 2, "ftp-guess": 1, "ssh-guess": 2}[done.run.activity]
        if done.run.activity != "ssh-guess":
            assert len(found(done)) == sum(rows[0][0]["succeeded"] for rows in samples.values())
    assert {row["succeeded"] for done in runs for row in done.rows} == {True, False}
