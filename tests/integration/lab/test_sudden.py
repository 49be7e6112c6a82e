"""Sudden terminations: the network fails, and the senders do not know."""

from __future__ import annotations

import csv
import subprocess
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from probing.lab.run import How
from probing.lab.settings import Parameters
from tests.support.lab import Done, needs, perform

pytestmark = pytest.mark.lab

ATTEMPTS = 2.0  # seconds that these runs go on after the last failure; the default is 15
LINKS: list[dict[str, Any]] = [
    {"delay_ms": 20, "rate_kbit": 2000, "ordered_jitter_ms": 2}, {"delay_ms": 60, "jitter_ms": 15, "loss_pct": 4},
]  # fmt: skip
FIELDS = ("frame.time_epoch", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.seq_raw", "tcp.len")
Ends = tuple[str, int, str, int]


@cache
def segments(capture: Path) -> dict[Ends, dict[int, list[float]]]:
    """Times of all segments with payload, by (address, port) of sender and receiver and by sequence number."""
    needs("tshark")
    words = [word for name in FIELDS for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-r", str(capture), "-Y", "tcp.len > 0", "-T", "fields", "-E", "separator=,", *words],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found: dict[Ends, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for at, src, sport, dst, dport, seq, _ in csv.reader(done.stdout.splitlines()):
        found[src, int(sport), dst, int(dport)][int(seq)].append(float(at))
    return found


def attempts(done: Done, row: dict[str, Any], sender: str) -> list[float]:
    """Times of the segment that a side of a connection sent most often, as a sensor beside it sees them."""
    up = (row["src"], row["sport"], row["dst"], row["dport"])
    down = (row["dst"], row["dport"], row["src"], row["sport"])
    by_client = (sender == "client") is (row["sport"] != 20)  # active FTP: the server opens
    sent = segments(done.capture(sender)).get(up if by_client else down, {})
    return max(sent.values(), key=len, default=[])


def check_back_off(times: list[float], least: int) -> None:
    """Each pause is about twice the one before; the first ones may be a probe for the tail."""
    pauses = [b - a for a, b in pairwise(times)]
    assert len(pauses) >= least, pauses
    for before, after in pairwise(pauses[-least:]):
        # a timer may be an eighth late, more on a busy machine
        assert 1.3 * before < after < 3 * before, pauses


def sides(runs: list[Done], least: int = 3) -> set[str]:
    """The sides that try again, in connections that all end suddenly and in all of which some side does."""
    found = set()
    for done in runs:
        assert done.account["failed_samples"] == 0, done.account["problems"]
        for row in done.rows:
            assert row["termination"] == "sudden"
            assert row["cut_up"] + row["cut_down"] >= least, (done.run.id, row)
            for side in ("client", "server"):
                if len(times := attempts(done, row, side)) > least:
                    check_back_off(times, least - 1)
                    assert row["end"] / 1e9 >= times[-1] - 1e-6
                    found.add(side)
    return found


@pytest.mark.parametrize(("link", "kind"), [(LINKS[0], "user"), ({"rate_kbit": 2000}, "tbf")])
def test_whoever_has_unheard_data_sends_it_again_on_every_link(
    tmp_path: Path, link: dict[str, Any], kind: str
) -> None:
    entry = {"scenario": "c2", "activity": "command-1", "samples": 6, "users": 6, "link": link,
             "parameters": {"termination": "sudden", "after_sudden_s": ATTEMPTS, "pause_ms": 20}}  # fmt: skip
    assert sides(perform(tmp_path, entry, how=How(link=kind))) == {"client", "server"}


def test_a_run_goes_on_for_as_long_as_is_set_after_its_last_failure(tmp_path: Path) -> None:
    assert Parameters().after_sudden_s == 15
    entry = {"scenario": "http", "activity": "get", "server": "nginx", "client": "asyncio", "samples": 12, "users": 3,
             "parameters": {"termination": "sudden", "after_sudden_s": 5}}  # fmt: skip
    (done,) = perform(tmp_path, entry)
    assert sides([done], 4) == {"client", "server"}  # 0.2, 0.4 … 1.6 s
    cut = max(row["sample_start"] for row in done.rows)
    assert all(row["end"] - row["start"] > 2.8e9 for row in done.rows)
    assert done.account["last_ns"] - cut < 8e9, "samples share the wait"


@pytest.mark.parametrize(("scenario", "more", "who"), [
    ("https", {"activity": "tls-post", "server": "nginx", "client": "asyncio", "link": LINKS[0]},
     {"client", "server"}),
    ("smtp", {"activity": "send-attachment", "client": "smtplib", "samples": 4, "users": 4}, {"client", "server"}),
    ("ftp", {"activity": "get", "client": "lftp", "samples": 1, "users": 1}, {"client", "server"}),
    ("ftp", {"activity": "passive-put", "client": "ftplib", "samples": 1, "users": 1}, {"client"}),
    ("ssh", {"activity": "scp-down", "samples": 2, "users": 2, "link": LINKS[0]}, {"client", "server"}),
    ("dns", {"activity": "tcp", "client": "asyncio-dns"}, {"client", "server"}),
])  # fmt: skip
def test_programs_of_all_kinds_try_again(
    tmp_path: Path, scenario: str, more: dict[str, Any], who: set[str]
) -> None:
    entry = {"scenario": scenario, "samples": 6, "users": 6, "link": LINKS[1],
             "parameters": {"termination": "sudden", "after_sudden_s": ATTEMPTS}} | more  # fmt: skip
    assert sides(perform(tmp_path, entry)) == who
