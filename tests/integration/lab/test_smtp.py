"""SMTP: what aiosmtpd does for swaks and for our own client, held against the capture."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from probing.lab import catalog
from tests.support.lab import Done, is_delayed, perform

pytest.importorskip("aiosmtpd")
pytestmark = pytest.mark.lab

DELAY_MS = 5
STATES = {"fin": "SF", "timeout": "SF", "rst": "RSTO", "sudden": "S1"}
HEAD = 1000  # bytes of a mail and its conversation that are not content, at most


def agrees(done: Done) -> dict[str, Any]:
    """Hold a run of one sample against its capture. Returns its row, merged with its connection."""
    assert done.account["failed_samples"] == 0, done.run.id
    ((label, connection),) = done.joined()
    row = label | connection
    what = f"{done.run.id}: {row}"
    assert (row["role"], row["dport"]) == ("main", 25), what
    assert row["termination"] == done.run.parameters.termination, what
    assert row["conn_state"] == STATES[row["termination"]], what
    assert is_delayed(row, done.run.link.delay_ms), what
    marks = json.loads(row["phases"])
    phases = catalog.scenario("smtp").activities[done.run.activity].phases
    assert tuple(dict.fromkeys(name for name, _ in marks)) == phases, what
    assert all(row["start"] < at < row["end"] for _, at in marks[1:]), what
    assert marks[0][1] < row["start"], what  # it leads to the connection
    return row


def run(folder: Path, activity: str | list[str], **parameters: Any) -> list[Done]:
    """A sample of each activity, by each client."""
    link = {"delay_ms": DELAY_MS}
    return perform(folder, {"scenario": "smtp", "activity": activity, "link": link, "parameters": parameters})


def test_a_mail_carries_its_content(tmp_path: Path) -> None:
    n = 30_000
    rows = [
        (done.run.activity, agrees(done))
        for kind in ("text", "binary")
        for done in run(tmp_path / kind, ["send", "send-attachment"], content_bytes=n, content_kind=kind)
    ]
    assert len(rows) == 8
    assert median(row["handshake_ms"] for _, row in rows) == pytest.approx(2 * DELAY_MS, abs=3)
    for activity, row in rows:
        coded = activity == "send-attachment" or row["content_kind"] == "binary"
        lines = n * (4 / 3 if coded else 1) * 74 / 72
        assert (row["succeeded"], row["content_bytes"]) == (True, n)
        assert lines - 100 < row["orig_bytes"] < lines * 1.01 + HEAD, row


def test_several_mails_share_a_connection(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "several", requests=3, pause_ms=100, content_bytes=2000)
    row = agrees(done)
    marks = [at for _, at in json.loads(row["phases"])]
    assert len(marks) == 3
    assert row["content_bytes"] == 6000
    assert 6000 < row["orig_bytes"] < 6000 + 3 * HEAD
    assert marks[2] - marks[1] > 100e6


def test_an_unknown_recipient_is_refused(tmp_path: Path) -> None:
    runs = run(tmp_path, "rejected-recipient")
    assert len(runs) == 2
    for done in runs:
        row = agrees(done)
        assert (row["succeeded"], row["content_bytes"]) == (False, None)
        assert row["orig_bytes"] < 200


@pytest.mark.parametrize("termination", ["rst", "sudden"])
def test_a_mail_can_be_broken_off(tmp_path: Path, termination: str) -> None:
    runs = run(tmp_path, "send", termination=termination, content_bytes=5000)
    assert len(runs) == 2
    for done in runs:
        row = agrees(done)
        assert row["succeeded"] is False
        assert 2500 < row["orig_bytes"] < 5000 + HEAD, row


def test_the_server_ends_an_idle_connection(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "idle")
    row = agrees(done)
    assert row["history"].index("f") < row["history"].index("F")
    assert row["end"] - row["start"] > 3e9
