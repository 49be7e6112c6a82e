"""Names in the lab."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from probing.lab.services.dnsmasq import zone
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

ENTRY: dict[str, Any] = {"scenario": "dns", "samples": 3, "link": {"delay_ms": 10}}


def check(done: Done) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What holds for every run; label rows with their connections."""
    joined = done.joined()
    assert done.account["failed_samples"] == 0
    for row, connection in joined:
        assert connection["id.resp_p"] == 53
        assert (row["role"], row["attack"], row["task"]) == ("main", 0, "dns")
        assert row["succeeded"] is (done.run.activity != "missing")
        ((phase, at),) = json.loads(row["phases"])
        assert phase == "query"
        assert row["sample_start"] <= at <= row["end"]
        assert connection["conn_state"] == "SF"
        assert row["termination"] == ("none" if row["proto"] == "udp" else "fin")
        if row["proto"] == "tcp":
            assert is_delayed(row, 10), row
    return joined


def test_every_activity_asks_as_its_description_says(tmp_path: Path) -> None:
    runs = perform(tmp_path, ENTRY)
    given = catalog.scenario("dns")
    assert {(d.run.activity, d.run.client) for d in runs} == {
        (a, c) for a in given.activities for c in given.clients
    }
    for done in runs:
        joined = check(done)
        protocols = Counter(row["proto"] for row, _ in joined)
        match done.run.activity:
            case "lookup" | "missing":
                assert protocols == {"udp": 3}
                assert all(row["packets_up"] == row["packets_down"] == 1 for row, _ in joined)
            case "many":
                assert protocols == {"udp": 3 * 6 if done.run.client == "dig" else 3}
                assert sum(row["packets_up"] for row, _ in joined) == 3 * 6
                assert (
                    max(row["end"] for row, _ in joined) - min(row["start"] for row, _ in joined) > 15 * 120e6
                )
            case "large":
                assert protocols == {"udp": 3, "tcp": 3}
                limit = 1232 if done.run.client == "dig" else 512
                for row, connection in joined:
                    if row["proto"] == "udp":
                        assert connection["resp_bytes"] <= limit
                    else:
                        assert (
                            row["content_bytes"] < connection["resp_bytes"] < 1.2 * row["content_bytes"] + 100
                        )
            case "tcp":
                assert protocols == {"tcp": 3}
                assert all(connection["resp_bytes"] > 4 * 40 for _, connection in joined)


def test_lost_queries_are_asked_again(tmp_path: Path) -> None:
    entry = ENTRY | {
        "activity": "lookup",
        "samples": 12,
        "users": 12,
        "link": {"delay_ms": 5, "loss_pct": 10},
    }
    for done in perform(tmp_path, entry):
        assert done.account["failed_samples"] == 0
        assert all(row["succeeded"] for row in done.rows)
        lost = sum(row["lost_up"] + row["lost_down"] for row in done.rows)
        assert lost > 0
        assert sum(row["packets_up"] for row in done.rows) == 12 + lost


def test_twins_ask_the_same(tmp_path: Path) -> None:
    entry = ENTRY | {"client": "asyncio-dns", "activity": "many", "link": {}, "twins": [{}, {"delay_ms": 20}]}
    said = []
    for done in perform(tmp_path, entry):
        rows = sorted(check(done), key=lambda pair: pair[0]["sample"])
        said.append([(c["orig_bytes"], c["resp_bytes"]) for _, c in rows])
    assert said[0] == said[1]
    assert len(set(said[0])) > 1


def test_a_zone_depends_on_the_seed_and_has_each_name_once() -> None:
    lines, entries = zone(5)
    assert (lines, entries) == zone(5)
    assert lines != zone(6)[0]
    assert len({(entry.name, entry.type) for entry in entries}) == len(entries)
    assert all(sum(map(len, entry.answers)) > 1232 for entry in entries if entry.large)
