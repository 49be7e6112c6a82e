"""SSH: what sshd does for the programs of openssh-client, held against the capture."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from probing.lab import catalog
from probing.lab.clients.openssh import SCANNED
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

DELAY_MS = 5
STATES = {"fin": "SF", "timeout": "SF", "rst": "RSTO", "sudden": "S1"}
LOGIN = 3000  # bytes that a login takes at least, of either side
MORE = 60_000  # bytes of a conversation that are not content, at most


def agrees(done: Done) -> list[dict[str, Any]]:
    """Hold a run against its capture. Returns its rows, merged with their connections."""
    assert done.account["failed_samples"] == 0, done.run.id
    phases = catalog.scenario("ssh").activities[done.run.activity].phases
    rows = [row | connection for row, connection in done.joined()]
    for row in rows:
        what = f"{done.run.id}: {row}"
        assert (row["role"], row["dport"]) == ("main", 22), what
        assert row["termination"] == done.run.parameters.termination, what
        assert row["conn_state"] == STATES[row["termination"]], what
        assert is_delayed(row, done.run.link.delay_ms), what
        marks = json.loads(row["phases"])
        assert tuple(dict.fromkeys(name for name, _ in marks)) == phases, what
        times = [at for _, at in marks]
        assert times == sorted(times), what
        assert times[0] < row["end"], what  # it leads to the connection
        assert all(row["start"] < at < row["end"] for at in times[1:]), what
    assert median(row["handshake_ms"] for row in rows) == pytest.approx(2 * DELAY_MS, abs=10), done.run.id
    return rows


def run(folder: Path, activity: str | list[str], **parameters: Any) -> list[Done]:
    """A sample of each activity."""
    link = {"delay_ms": DELAY_MS}
    return perform(folder, {"scenario": "ssh", "activity": activity, "link": link, "parameters": parameters})


def test_content_is_carried_in_one_connection(tmp_path: Path) -> None:
    n = 50_000
    towards = {  # times that the content goes up, and down
        "commands": (0, 1), "scp-down": (0, 1), "scp-up": (1, 0), "sftp": (1, 1), "tunnel": (0, 1),
    }  # fmt: skip
    for done in run(tmp_path, list(towards), content_bytes=n, content_kind="binary"):
        (row,) = agrees(done)
        up, down = towards[done.run.activity]
        assert row["succeeded"] is True, done.run.id
        assert row["content_bytes"] == (up + down) * n, done.run.id
        assert up * n + LOGIN < row["orig_bytes"] < up * n + MORE, done.run.id
        assert down * n + LOGIN < row["resp_bytes"] < down * n + MORE, done.run.id


def test_commands_pause_as_long_as_they_are_told(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "commands", requests=3, pause_ms=300)
    (row,) = agrees(done)
    first, second, third = (at for name, at in json.loads(row["phases"]) if name == "command")
    assert 0.3e9 < second - first < 1.3e9
    assert 0.3e9 < third - second < 1.3e9


@pytest.mark.parametrize("termination", ["rst", "sudden"])
def test_a_shell_can_be_broken_off(tmp_path: Path, termination: str) -> None:
    (done,) = run(tmp_path, "commands", termination=termination, pause_ms=0)
    (row,) = agrees(done)
    assert row["succeeded"] is False


def test_a_wrong_password_comes_to_nothing(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "wrong-password")
    (row,) = agrees(done)
    assert (row["succeeded"], row["content_bytes"]) == (False, None)


def test_a_key_scan_asks_for_each_kind_by_itself(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "key-scan")
    rows = agrees(done)
    assert len(rows) == SCANNED
    assert all(row["succeeded"] for row in rows)


def test_the_server_ends_an_unused_connection(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "idle")
    (row,) = agrees(done)
    assert row["history"].index("f") < row["history"].index("F")
    assert row["end"] - row["start"] > 3e9


def test_who_was_here_before_asks_for_the_other_keys(tmp_path: Path) -> None:
    cold, warm = run(tmp_path, "scp-up", cache=["cold", "warm"], content_bytes=1000)
    if cold.run.parameters.cache == "warm":
        cold, warm = warm, cold
    (first,), (later,) = agrees(cold), agrees(warm)
    assert (first["cache"], later["cache"]) == ("cold", "warm")
    assert later["orig_bytes"] > first["orig_bytes"] + 200  # the other two keys, as sent
    assert later["resp_bytes"] > first["resp_bytes"] + 200  # signatures by them
