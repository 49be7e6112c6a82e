"""FTP: what vsftpd does for lftp and for our own client, held against the capture."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from probing.lab import catalog
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

DELAY_MS = 5
STATES = {"fin": "SF", "timeout": "SF", "rst": "RSTO", "sudden": "S1"}
SEVERAL = 3  # files, of activities with several
LISTING = 300  # bytes at most that name them
# data connections: of files, and of lists
TRANSFERS = {
    "get": (1, 0), "mget": (SEVERAL, 1), "delete": (0, 0), "mdelete": (0, 1), "mkdir-put": (1, 0), "rename": (0, 0),
    "put": (1, 0), "put-get": (2, 0), "mput": (SEVERAL, 0), "make-remove": (SEVERAL, 1), "passive-get": (1, 0),
    "passive-put": (1, 0),
}  # fmt: skip


def agrees(done: Done) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Hold a run of one sample against its capture. Returns rows, merged with connections: control, and data."""
    assert done.account["failed_samples"] == 0, done.run.id
    both: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for row, connection in done.joined():
        what = f"{done.run.id}: {row} {connection}"
        assert row["role"] == ("control" if row["dport"] == 21 else "data"), what
        assert row["termination"] == done.run.parameters.termination, what
        assert connection["conn_state"] == STATES[row["termination"]], what
        assert is_delayed(row, done.run.link.delay_ms), what
        both[row["role"] == "data"].append(row | connection)
    (control,), data = both
    marks = json.loads(control["phases"])
    does = catalog.scenario("ftp").activities[done.run.activity]
    assert tuple(name for name, _ in marks) == does.phases, done.run.id
    times = [at for _, at in marks]
    assert times == sorted(times), done.run.id
    assert all(control["start"] < at < control["end"] for at in times[1:]), done.run.id
    assert times[0] < control["end"], done.run.id  # it leads to the connection
    return [control], data


def test_every_activity_is_told_by_its_connections(tmp_path: Path) -> None:
    entry = {"scenario": "ftp", "activity": list(TRANSFERS), "link": {"delay_ms": DELAY_MS}}
    runs = perform(tmp_path, entry)
    assert len(runs) == 2 * len(TRANSFERS)
    handshakes = [row["handshake_ms"] for done in runs for row in done.rows]
    assert median(handshakes) == pytest.approx(2 * DELAY_MS, abs=3)
    for done in runs:
        (control,), data = agrees(done)
        files, lists = TRANSFERS[done.run.activity]
        assert len(data) == files + lists, done.run.id
        assert control["succeeded"] is True, done.run.id
        passive = done.run.activity.startswith("passive")
        for row in data:
            assert (row["src"] == control["src"]) is passive, done.run.id
            assert (row["sport"] == 20) is not passive, done.run.id
            assert control["start"] < row["start"] < row["end"], done.run.id
        content = control["content_bytes"] or 0
        assert (control["content_bytes"] is None) is (not files), done.run.id
        carried = sum(row["orig_bytes"] + row["resp_bytes"] for row in data)
        assert content + lists <= carried <= content + lists * LISTING, done.run.id


def test_a_wrong_password_comes_to_nothing(tmp_path: Path) -> None:
    activities = ["wrong-password-get", "wrong-password-put"]
    for done in perform(
        tmp_path, {"scenario": "ftp", "activity": activities, "link": {"delay_ms": DELAY_MS}}
    ):
        (control,), data = agrees(done)
        assert not data
        assert (control["succeeded"], control["content_bytes"]) == (False, None)


@pytest.mark.parametrize("termination", ["rst", "sudden"])
def test_a_transfer_can_be_broken_off(tmp_path: Path, termination: str) -> None:
    entry = {
        "scenario": "ftp", "activity": ["passive-get", "passive-put"], "link": {"delay_ms": DELAY_MS},
        "parameters": {"termination": termination},
    }  # fmt: skip
    for done in perform(tmp_path, entry):
        (control,), (data,) = agrees(done)
        assert control["succeeded"] is False, done.run.id
        carried = data["orig_bytes"] + data["resp_bytes"]
        if (
            termination == "sudden" and done.run.activity == "passive-put"
        ):  # beside the client: what it tried to send
            carried = next(c["orig_bytes"] for r, c in done.joined("server") if r["role"] == "data")
        assert 0 < carried < control["content_bytes"], done.run.id


def test_the_server_ends_an_idle_session(tmp_path: Path) -> None:
    for done in perform(tmp_path, {"scenario": "ftp", "activity": "idle", "link": {"delay_ms": DELAY_MS}}):
        (control,), data = agrees(done)
        assert not data
        # lftp leaves when it is told 421, so its FIN may cross the server's
        ((_, there),) = done.joined("server")
        history = there["history"]
        assert history.index("f") < history.index("F"), done.run.id
        assert control["end"] - control["start"] > 3e9, done.run.id


def test_twins_transfer_the_same_files(tmp_path: Path) -> None:
    entry = {
        "scenario": "ftp", "activity": "mput", "samples": 2, "users": 2,
        "twins": [{"delay_ms": 1}, {"delay_ms": 20, "loss_pct": 2}],
    }  # fmt: skip
    seen: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for done in perform(tmp_path, entry):
        assert done.account["failed_samples"] == 0
        files = [(r["pair"], c["resp_bytes"]) for r, c in done.joined() if r["role"] == "data"]
        seen[done.run.client, done.run.twin] = sorted(files)
        assert len(files) == 2 * SEVERAL
    for client in ("lftp", "ftplib"):
        assert seen[client, "a"] == seen[client, "b"]
