"""The command-and-control look-alike of the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

ENTRY: dict[str, Any] = {
    "scenario": "c2",
    "samples": 2,
    "link": {"delay_ms": 10},
    "parameters": {"pause_ms": 20},
}


def clean(done: Done) -> None:
    """Nothing that nobody knows, nothing that failed, one connection a sample."""
    assert done.account["failed_samples"] == 0
    assert len(done.rows) == done.run.samples


def marks(row: dict[str, Any]) -> list[str]:
    """Names of the phases, which lie inside the connection."""
    found = json.loads(row["phases"])
    times = [at for _, at in found]
    assert row["start"] <= times[0]
    assert times == sorted(times)
    assert times[-1] <= row["end"]
    return [name for name, _ in found]


def test_each_command_is_one_connection_with_its_pattern(tmp_path: Path) -> None:
    runs = perform(tmp_path, ENTRY)
    assert {done.run.activity for done in runs} == set(catalog.scenario("c2").activities)
    for done in runs:
        clean(done)
        for row, connection in done.joined():
            assert (row["role"], row["attack"], row["attack_kind"]) == ("main", 1, "c2")
            assert (row["termination"], connection["conn_state"]) == ("fin", "SF")
            assert row["succeeded"] is True
            assert is_delayed(row, 10), row
            up, down, content = connection["orig_bytes"], connection["resp_bytes"], row["content_bytes"]
            found = marks(row)
            match done.run.activity:
                case "keep-alive":
                    assert found == ["login", "keep-alive"]
                    assert content is None
                    assert max(up, down) < 150
                case "command-1":
                    assert content < down < content + 150
                case "command-2":
                    assert content < up < 2.5 * content + 150  # words around each report
                    assert row["data_up"] >= 6 + 4
                case "command-3":
                    assert content < down < 1.05 * content + 200
                    assert up < 0.05 * content
                case "command-4":
                    assert content < up < 1.05 * content + 200
                    assert down < 0.05 * content + 200
            if done.run.activity != "keep-alive":
                assert found[:4] == ["login", "keep-alive", "command", "report"]
                assert set(found[4:]) <= {"keep-alive"}


@pytest.mark.parametrize(("termination", "state"), [("rst", "RSTO"), ("sudden", "S1")])
def test_a_bot_that_is_gone_leaves_its_command_undone(tmp_path: Path, termination: str, state: str) -> None:
    entry = ENTRY | {"parameters": {"pause_ms": 20, "termination": termination, "content_bytes": 20000}}
    for done in perform(tmp_path, entry):
        clean(done)
        for row, connection in done.joined():
            assert (row["termination"], connection["conn_state"]) == (termination, state)
            assert row["succeeded"] is False
            assert (row["cut_up"] + row["cut_down"] > 0) == (termination == "sudden")
            if done.run.activity == "command-3":
                assert connection["resp_bytes"] < 20000 + 300
            if done.run.activity == "command-4":
                assert connection["orig_bytes"] < 20000


def test_fixed_content_makes_the_samples_of_a_command_alike_on_any_link(tmp_path: Path) -> None:
    entry = ENTRY | {"samples": 3, "users": 3, "link": {"delay_ms": [0, 15]},
                     "parameters": {"content_fixed": True, "pause_ms": 10}}  # fmt: skip
    said: dict[str, set[tuple[int, ...]]] = {}
    delays: dict[str, set[float]] = {}
    for done in perform(tmp_path, entry):
        clean(done)
        for row, connection in done.joined():
            content = row["content_bytes"] or 0
            key = connection["orig_bytes"], connection["resp_bytes"], content, len(json.loads(row["phases"]))
            said.setdefault(row["activity"], set()).add(key)
            delays.setdefault(row["activity"], set()).add(row["delay_ms"])
    assert len(said) == 5
    assert all(len(sizes) == 1 for sizes in said.values()), said
    assert len(set.union(*said.values())) == 5, "commands differ"
    assert all(d == {0.0, 15.0} for d in delays.values())


def test_a_bot_that_falls_silent_is_left_by_the_hive(tmp_path: Path) -> None:
    link = {"delay_ms": 30, "jitter_ms": 10, "loss_pct": 3}
    entry = ENTRY | {
        "activity": "command-1",
        "link": link,
        "parameters": {"pause_ms": 20, "termination": "timeout"},
    }
    (done,) = perform(tmp_path, entry)
    clean(done)
    for row, connection in done.joined():
        assert (row["termination"], row["succeeded"]) == ("timeout", True)
        assert row["end"] - row["start"] > 1e9
        assert connection["history"].index("f") < connection["history"].index("F")


def test_twins_say_the_same(tmp_path: Path) -> None:
    twins = [{"delay_ms": 1}, {"delay_ms": 30}]
    entry = ENTRY | {"activity": ["command-2", "command-4"], "link": {}, "twins": twins, "users": 2}
    seen: dict[str, list[Any]] = {}
    for done in perform(tmp_path, entry):
        clean(done)
        for row, connection in done.joined():
            said = connection["orig_bytes"], connection["resp_bytes"], row["content_bytes"]
            seen.setdefault(f"{done.run.activity} {row['pair']}", []).append(said)
    assert len(seen) == 4
    for first, second in seen.values():
        assert first == second


def test_commands_are_done_in_spite_of_loss(tmp_path: Path) -> None:
    link = {"delay_ms": 40, "loss_pct": 5}
    entry = ENTRY | {"activity": ["command-3", "command-4"], "link": link, "samples": 4, "users": 4}
    for done in perform(tmp_path, entry):
        clean(done)
        assert all(row["succeeded"] for row in done.rows)
        assert sum(row["lost_up"] + row["lost_down"] for row in done.rows) > 0
