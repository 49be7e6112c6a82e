"""Requests and answers that do not come to an end, held against the capture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

CONNECTIONS, PAUSE_MS, LEAST_TRICKLES = 6, 150, 4
STATES = {"fin": "SF", "rst": "RSTO", "sudden": "S1"}


def agrees(done: Done) -> None:
    """Hold a run against its capture."""
    assert done.account["failed_samples"] == 0, done.run.id
    joined = done.joined()
    assert len(joined) == done.run.samples * CONNECTIONS
    way = done.run.parameters.termination
    for row, connection in joined:
        what = f"{done.run.id}: {row} {connection}"
        assert (row["termination"], connection["conn_state"]) == (way, STATES[way]), what
        assert is_delayed(row, done.run.link.delay_ms), what
        assert (row["attack"], row["attack_kind"], row["succeeded"]) == (1, "slow-http", True), what
        marks = dict(json.loads(row["phases"]))
        assert list(marks) == ["connect", "request", "trickle"], what
        assert (
            marks["connect"] - 5_000_000 < row["start"] < marks["request"] < marks["trickle"] < row["end"]
        ), what
        assert row["end"] - row["start"] > LEAST_TRICKLES * PAUSE_MS * 1e6, what
        assert connection["orig_bytes"] < 600, what
        if done.run.activity == "slow-read":
            assert connection["resp_bytes"] < 50_000, what
        else:
            assert row["data_up"] > LEAST_TRICKLES, what
    _content_agrees(done, joined)


def _content_agrees(done: Done, joined: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for sample in range(done.run.samples):
        mine = [(row, connection) for row, connection in joined if row["sample"] == sample]
        content = mine[0][0]["content_bytes"]
        if done.run.activity == "slow-headers":
            assert content is None
        else:
            moved = "resp_bytes" if done.run.activity == "slow-read" else "orig_bytes"
            assert 0 < content <= sum(connection[moved] for _, connection in mine)


@pytest.mark.parametrize("activity", ["slow-headers", "slow-body", "slow-read"])
def test_connections_are_held_by_a_trickle_and_end_as_asked(tmp_path: Path, activity: str) -> None:
    ways = list(catalog.scenario("slow-http").activities[activity].terminations)
    parameters = {"requests": CONNECTIONS, "pause_ms": PAUSE_MS, "termination": ways}
    entry = {"scenario": "slow-http", "activity": activity, "samples": 2, "users": 2, "link": {"delay_ms": 5},
             "parameters": parameters}  # fmt: skip
    runs = perform(tmp_path, entry)
    assert len(runs) == 2 * len(ways) >= 4
    for done in runs:
        agrees(done)
