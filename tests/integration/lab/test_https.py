"""The web encrypted: as `test_http`, and nothing of it can be read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.lab.test_http import agrees, lasts_ms
from tests.support.lab import needs, perform

pytestmark = pytest.mark.lab

TLS = 4000  # bytes of hands shaken, at most
QUICK = ["tls-get", "tls-multi-get", "tls-post", "tls-not-found", "tls-redirect", "tls-cached"]


def test_every_program_does_every_activity_at_every_server_encrypted(tmp_path: Path) -> None:
    done = perform(tmp_path, {"scenario": "https", "activity": QUICK, "samples": 2, "users": 2})
    assert len(done) == len(QUICK) * 3 * 2
    for run in done:
        for _, connection in agrees(run, TLS):
            assert connection["orig_bytes"] > 600
            assert connection["resp_bytes"] > 1500


def test_long_activities_are_as_long_encrypted(tmp_path: Path) -> None:
    entry = {"scenario": "https", "activity": ["tls-keep-alive", "tls-streaming"], "samples": 2, "users": 2,
             "parameters": {"content_bytes": 150_000, "pause_ms": 300, "requests": 3}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 2 * 3 * 2
    for run in done:
        for row, _ in agrees(run, TLS):
            assert 400 < lasts_ms(row) < 1500


@pytest.mark.parametrize("ends", ["rst", "sudden", "timeout"])
def test_encrypted_connections_end_as_they_are_told_to(tmp_path: Path, ends: str) -> None:
    entry = {"scenario": "https", "activity": ["tls-get", "tls-post", "tls-streaming"], "client": "asyncio",
             "samples": 4, "users": 4, "parameters": {"termination": ends, "content_bytes": 60_000}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 3 * 2
    unheard = 0
    for run in done:
        for row, connection in agrees(run, TLS):
            unheard += row["cut_down"]
            # no alert of the client crosses the server's end, which would answer with a RST
            assert ends != "timeout" or "r" not in connection["history"].lower()
    assert (unheard > 0) is (ends == "sudden"), "the server goes on with its stream"


def test_http2_is_agreed_on_in_the_handshake_and_fetches_pages_in_one_connection(tmp_path: Path) -> None:
    needs("tshark")
    entry = {"scenario": "https", "activity": ["tls-h2-get", "tls-h2-multi-get", "tls-get"], "client": "curl",
             "samples": 2, "users": 2, "link": {"delay_ms": 10},
             "parameters": {"requests": 5, "content_bytes": 20_000}}  # fmt: skip
    done = perform(tmp_path, entry)
    assert len(done) == 3 * 2
    for run in done:
        for row, connection in run.joined():
            pages = 5 if "multi" in row["activity"] else 1
            what = f"{run.run.id}: {row} {connection}"
            assert (row["succeeded"], row["content_bytes"]) == (True, pages * 20_000), what
            assert (
                row["content_bytes"] < connection["resp_bytes"] < row["content_bytes"] + TLS + pages * 2000
            ), what
            assert connection["conn_state"] == "SF", what
        assert len(run.rows) == 2, "a connection each"
        offers = {"h2,http/1.1"} if "h2" in run.run.activity else {"http/1.1"}
        assert offered(run.capture()) == offers


def offered(capture: Path) -> set[str]:
    """The protocols that clients offer by ALPN."""
    words = ["-Y", "tls.handshake.type == 1", "-T", "fields", "-e", "tls.handshake.extensions_alpn_str"]
    done = subprocess.run(
        ["tshark", "-r", str(capture), *words], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_only_the_encrypted_page_cannot_be_read(tmp_path: Path) -> None:
    entry = {"samples": 1, "server": "nginx", "client": "curl", "parameters": {"content_bytes": 3000}}
    (clear,) = perform(tmp_path, entry | {"scenario": "http", "activity": "get"})
    (hidden,) = perform(tmp_path, entry | {"scenario": "https", "activity": "tls-get"})
    assert b"lazy dog" in clear.capture().read_bytes()
    assert b"lazy dog" not in hidden.capture().read_bytes()
    assert b"HTTP/1.1 200" not in hidden.capture().read_bytes()


def test_encrypted_twins_say_as_much(tmp_path: Path) -> None:
    entry = {"scenario": "https", "activity": "tls-get", "samples": 3, "client": "asyncio",
             "twins": [{}, {"delay_ms": 20}]}  # fmt: skip
    said: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for run in perform(tmp_path, entry):
        for row, connection in agrees(run, TLS):
            said.setdefault((run.run.server, row["sample"]), set()).add(
                (connection["orig_bytes"], connection["resp_bytes"])
            )
    assert len(said) == 2 * 3
    assert all(len(sizes) == 1 for sizes in said.values()), said


def test_a_bad_link_delays_encryption_but_does_not_prevent_it(tmp_path: Path) -> None:
    entry = {"scenario": "https", "activity": "tls-get", "server": "nginx", "samples": 8, "users": 8,
             "link": {"delay_ms": 200, "loss_pct": 5}, "parameters": {"content_bytes": 20_000}}  # fmt: skip
    for run in perform(tmp_path, entry):
        assert run.account["failed_samples"] == 0
        assert all(row["succeeded"] for row in run.rows)
