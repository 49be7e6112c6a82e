"""Synchronisation of files in the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probing.lab import catalog
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

BOTH = ["rsync", "unison"]
STEPS = {
    "idle": ["idle"],
    "put": ["put"],
    "put-edit": ["put", "edit"],
    "put-delete": ["put", "delete"],
    "put-edit-delete": ["put", "edit", "delete"],
    "large": ["put"],
}


def entry(client: str, **more: Any) -> dict[str, Any]:
    """Two samples of every activity, binary so that nothing is compressed."""
    parameters = {"pause_ms": 10, "content_kind": "binary"} | more.pop("parameters", {})
    return {
        "scenario": "sync",
        "client": client,
        "samples": 2,
        "link": {"delay_ms": 5},
        "parameters": parameters,
    } | more


def by_step(done: Done) -> list[tuple[int, str, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Sample, step, and the step's connections in order."""
    joined = sorted(done.joined(), key=lambda pair: pair[0]["start"])
    found = []
    for sample in range(done.run.samples):
        mine = [pair for pair in joined if pair[0]["sample"] == sample]
        phases = [(name, at) for name, at in json.loads(mine[0][0]["phases"])]
        assert mine[0][0]["sample_start"] <= phases[0][1] <= mine[0][0]["start"]
        ends = [at for _, at in phases[1:]] + [1 << 62]
        for (name, at), end in zip(phases, ends):
            found.append((sample, name, [p for p in mine if at <= p[0]["start"] < end]))
    return found


def check(done: Done, steps: list[str]) -> None:
    """All hosts equal; each step brings one connection a client host, and one more when a client has news."""
    clients = done.run.parameters.hosts - 1
    assert done.account["failed_samples"] == 0
    for row, connection in done.joined():
        assert row["succeeded"] is True
        assert row["task"] == "file-sync"
        assert (row["termination"], connection["conn_state"]) == ("fin", "SF")
        assert is_delayed(row, 5), row
    found = by_step(done)
    assert [name for _, name, _ in found] == steps * done.run.samples
    for _, name, connections in found:
        first = len(connections) - clients
        assert first == 0 if name in ("idle", "first") else first in (0, 1)
        assert len({row["src"] for row, _ in connections[first:]}) == clients
        makers = {row["src"] for row, _ in connections[:first]}
        roles = ["push"] * first + [
            "idle" if name == "idle" or row["src"] in makers else "pull" for row, _ in connections[first:]
        ]
        assert [row["role"] for row, _ in connections] == roles


@pytest.mark.parametrize("client", BOTH)
def test_two_hosts_end_up_equal_whatever_is_done(tmp_path: Path, client: str) -> None:
    runs = perform(tmp_path, entry(client, users=2))
    assert {done.run.activity for done in runs} == set(STEPS) == set(catalog.scenario("sync").activities)
    for done in runs:
        check(done, STEPS[done.run.activity])
        content = {row["sample"]: row["content_bytes"] for row in done.rows}
        for sample, name, connections in by_step(done):
            most = max(max(c["orig_bytes"], c["resp_bytes"]) for _, c in connections)
            if done.run.activity == "put" or name == "first":
                assert content[sample] < most < content[sample] + 10_000
            if done.run.activity == "large":
                assert content[sample] == 2_000_000
                assert 2_000_000 < most < 2_030_000
            if name in ("idle", "delete"):
                assert most < 8_000


@pytest.mark.parametrize("client", BOTH)
def test_four_hosts_fetch_the_same_at_the_same_time(tmp_path: Path, client: str) -> None:
    given = entry(client, activity=["put-edit-delete"], parameters={"hosts": 4, "content_bytes": 50_000})
    (done,) = perform(tmp_path, given)
    check(done, STEPS["put-edit-delete"])
    for sample, name, connections in by_step(done):
        together = [row for row, _ in connections[-3:]]
        assert max(row["start"] for row in together) < min(row["end"] for row in together), (sample, name)
        if name == "put":
            carried = [max(c["orig_bytes"], c["resp_bytes"]) > 50_000 for _, c in connections]
            assert sum(carried) == 3
            for row, c in connections:
                moved = (c["orig_bytes"] > 50_000, c["resp_bytes"] > 50_000)
                assert moved == (row["role"] == "push", row["role"] == "pull"), row
    assert {row["content_bytes"] for row in done.rows} == {3 * (50_000 + 6_250)}


@pytest.mark.parametrize("client", BOTH)
def test_hosts_that_were_never_here_fetch_all_files_first(tmp_path: Path, client: str) -> None:
    given = entry(client, activity="put", users=2, parameters={"cache": "cold", "hosts": 3})
    (done,) = perform(tmp_path, given)
    check(done, ["first", "put"])
    assert {row["cache"] for row in done.rows} == {"cold"}
    for sample, name, connections in by_step(done):
        if name == "first":
            fetched = {connection["resp_bytes"] for _, connection in connections}
            assert len(connections) == 2
            assert min(fetched) > 1_000, sample


@pytest.mark.parametrize("client", BOTH)
def test_twins_transfer_the_same_and_loss_is_survived(tmp_path: Path, client: str) -> None:
    twins = [{"delay_ms": 1}, {"delay_ms": 20, "loss_pct": 3}]
    runs = perform(
        tmp_path,
        entry(client, activity="put-edit", samples=1, link={}, twins=twins, parameters={"hosts": 3}),
    )
    sizes = []
    for done in runs:
        assert all(row["succeeded"] for row in done.rows)
        found = by_step(done)
        assert [name for _, name, _ in found] == ["put", "edit"]
        sizes.append([sorted(c["orig_bytes"] + c["resp_bytes"] for _, c in joined) for _, _, joined in found])
    assert runs[0].rows[0]["content_bytes"] == runs[1].rows[0]["content_bytes"]
    for one, other in zip(*sizes):
        assert one == pytest.approx(other, abs=64)  # numbers of varying length: process ids, checksum seeds
    assert sum(row["lost_up"] + row["lost_down"] for done in runs for row in done.rows) > 0


def test_unison_remembers_what_was_equal_when_its_cache_is_warm(tmp_path: Path) -> None:
    (done,) = perform(tmp_path, entry("unison", activity="idle", samples=4))
    sizes = [connection["orig_bytes"] for _, connection in done.joined()]
    assert (
        max(sizes) - min(sizes) <= 8
    )  # else it would tell the hub of each file, of which samples have 3 to 6
