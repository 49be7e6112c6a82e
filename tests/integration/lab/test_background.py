"""Other users at the same time: labelled as such, and no less watched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.lab import needs, perform

pytestmark = pytest.mark.lab

OURS: dict[str, Any] = {
    "scenario": "http", "server": "nginx", "client": "asyncio", "activity": "keep-alive", "samples": 4, "users": 2,
    "link": {"delay_ms": 5}, "group": "pages", "load": {"hogs": 1}, "parameters": {"pause_ms": 100},
}  # fmt: skip
LOOKUPS: dict[str, Any] = {
    "scenario": "dns", "server": "dnsmasq", "client": "asyncio-dns", "activity": "lookup", "users": 2, "pause_ms": 50,
    "link": {"delay_ms": 20},
}  # fmt: skip


def test_background_rows_say_what_they_are_and_have_their_own_link(tmp_path: Path) -> None:
    a, b = perform(tmp_path, {**OURS, "background": [LOOKUPS], "twins": [{}, {"delay_ms": 10}]})
    for done in (a, b):
        joined = done.joined()
        ours = [row for row, _ in joined if not row["background"]]
        others = [row for row, _ in joined if row["background"]]
        assert len(ours) == 4
        assert len(others) > 4
        assert {(r["scenario"], r["load"], r["group"], r["delay_ms"]) for r in ours} == {
            ("http", "hogs-1", "pages", done.run.link.delay_ms)
        }
        assert {(r["scenario"], r["load"], r["group"], r["delay_ms"]) for r in others} == {
            ("dns", "none", "", 20)
        }
        assert {r["twin"] for r in ours} == {done.run.twin}
        assert {(r["twin"], r["pair"]) for r in others} == {("", "")}
        assert len({(r["user"], r["sample"]) for r in (*ours, *others)}) == len(joined)
    assert {r["pair"] for r in a.rows if r["pair"]} == {r["pair"] for r in b.rows if r["pair"]}


@pytest.mark.parametrize("where", ["own", "background"])
def test_a_run_fails_when_users_cannot_do_what_they_should(tmp_path: Path, where: str) -> None:
    needs("nginx", "curl", "dnsmasq")
    impossible = {"scenario": "http", "server": "nginx", "client": "curl", "activity": "get",
                  "parameters": {"termination": "rst"}}  # fmt: skip
    entry = {**impossible, "samples": 3} if where == "own" else {**OURS, "background": [impossible]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"name": "c", "about": "A test.", "runs": [entry]}))
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "lab", "run", str(path), "--out", str(tmp_path), "--link", "user"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        "samples of curl get failed; the first: LabError: curl cannot end a connection by rst" in done.stderr
    )


def test_a_connection_that_nobody_knows_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says something unasked."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, threading, time\n"
        "from probing.lab import run\n"
        "kept = run.Performance._samples\n"
        "def samples(self):\n"
        "    client = self.users[0][1][0].address\n"
        "    host = next(iter(self.servers.values()))[0]\n"
        "    host.in_thread(lambda: socket.socket(2, 2).sendto(b'hello', (client, 999)))\n"
        "    kept(self)\n"
        "run.Performance._samples = samples\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(
        AssertionError, match=r"no sample made the udp connection (10\.\d+\.\d+)\.1:\d+ to \1\.10:999"
    ):
        perform(tmp_path / "out", {**OURS, "samples": 1, "users": 1})
