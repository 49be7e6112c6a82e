"""Load of the server: set, and measured."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from probing.lab import load
from probing.lab.settings import Load
from tests.support.lab import Done, perform

pytestmark = pytest.mark.lab

PAGES = {
    "scenario": "sql", "server": "sql-prepared", "client": "sql-user", "activity": "search", "samples": 12,
    "link": {"delay_ms": 1},
}  # fmt: skip


def seconds(done: Done) -> float:
    """Median time of a sample's connections."""
    return float(statistics.median((row["end"] - row["start"]) / 1e9 for row in done.rows))


def by_load(runs: list[Done]) -> dict[str, Done]:
    return {done.run.load.name: done for done in runs}


def waiting(done: Done) -> float:
    return statistics.median(float(row["load_waiting_pct"]) for row in done.rows)


def test_a_quota_slows_the_server_and_is_labelled(tmp_path: Path) -> None:
    if load.cgroup_root() is None:
        pytest.skip("no cpu control group can be made here")
    runs = by_load(perform(tmp_path, {**PAGES, "load": {"quota_pct": [0, 5]}}))
    assert set(runs) == {"none", "quota-5"}
    assert {row["load"] for row in runs["quota-5"].rows} == {"quota-5"}
    assert seconds(runs["quota-5"]) > 2 * seconds(runs["none"])


def test_hogs_compete_with_the_server_and_the_wait_is_measured(tmp_path: Path) -> None:
    runs = by_load(perform(tmp_path, {**PAGES, "load": {"hogs": [0, 4]}}))
    assert set(runs) == {"none", "hogs-4"}
    assert waiting(runs["hogs-4"]) > waiting(runs["none"])
    assert seconds(runs["hogs-4"]) > seconds(runs["none"])
    for row in runs["hogs-4"].rows:
        assert 0 < row["load_busy_pct"] <= 100


OTHERS: list[dict[str, Any]] = [  # servers of threads, and of a process for each connection
    {"scenario": "https", "server": "apache", "client": "asyncio", "activity": "tls-get"},
    {"scenario": "ftp", "server": "vsftpd", "client": "ftplib", "activity": "passive-get"},
]


@pytest.mark.parametrize("entry", OTHERS)
def test_a_load_is_felt_at_other_servers(tmp_path: Path, entry: dict[str, Any]) -> None:
    if load.cgroup_root() is None:
        pytest.skip("no cpu control group can be made here")
    more = {"samples": 10, "link": {"delay_ms": 1}, "parameters": {"content_bytes": 2_000_000, "pause_ms": 0}}
    runs = by_load(perform(tmp_path / "quota", entry | more | {"load": {"quota_pct": [0, 2]}}))
    assert seconds(runs["quota-2"]) > 2 * seconds(runs["none"])
    hogged = by_load(perform(tmp_path / "hogs", entry | more | {"load": {"hogs": 6}}))
    assert waiting(hogged["hogs-6"]) > 50, "six of seven shares of the processor are the hogs'"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "none"),
        ({"quota_pct": 2.5}, "quota-2.5"),
        ({"hogs": 3}, "hogs-3"),
        ({"quota_pct": 5, "hogs": 1}, "quota-5-hogs-1"),
    ],
)
def test_a_load_has_a_name(given: dict[str, Any], name: str) -> None:
    assert Load(**given).name == name
