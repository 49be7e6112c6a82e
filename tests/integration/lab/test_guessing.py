"""Guesses of passwords, held against the capture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import PcapReader

from probing.lab.isolation import PASSWORD
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

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
