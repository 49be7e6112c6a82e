"""Partitions that move between processes, at whatever moment, lose no row, change none, and are not held twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.consumer.snapshot import Snapshot
from tests.support.members import Process, Site, assert_equal, together

pytestmark = pytest.mark.compiled


def changes(process: Process) -> dict[str, int]:
    """How many partitions came to a process and left it."""
    return {kind: int(n) for (kind,), n in process.metrics.rebalances.values.items()}


def held(process: Process) -> set[int]:
    """Partitions that a process works on."""
    return {int(partition) for (partition,) in process.metrics.next_offset.values}


def test_two_processes_that_share_the_partitions_give_the_rows_of_one(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, second = site.process(), site.process()
    first.rounds(3)
    second.rounds(3)
    assert held(first) | held(second) == {0, 1, 2}
    assert not held(first) & held(second)
    together(first, second)
    assert_equal(site)


def test_a_process_that_is_asked_to_give_up_a_partition_saves_it_for_the_next(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process().rounds(3)
    before = site.snapshots()
    second = site.process()
    (moved,) = (p for p, owner in site.group.owner.items() if owner is second.bus)
    first.rounds(1)
    assert changes(first) == {"assigned": 3, "revoked": 1, "lost": 0}
    assert moved not in held(first)
    saved = site.snapshots()[moved]
    assert saved > before.get(moved, 0)
    second.rounds(1)
    assert second.restored == {moved: saved}
    together(first, second)
    assert_equal(site)


def test_the_next_owner_may_begin_before_the_last_one_has_noticed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process().rounds(6)
    second = site.process().rounds(3)  # works on what the first still takes for its own
    assert held(first) & held(second)
    first.rounds(1)
    assert not held(first) & held(second)
    together(first, second)
    assert_equal(site)


def test_two_rebalances_back_to_back_change_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process().rounds(5)
    second, third = site.process(), site.process()
    first.rounds(1)
    second.rounds(2)
    third.rounds(2)
    assert [len(held(process)) for process in (first, second, third)] == [1, 1, 1]
    second.stop()
    third.kill()
    first.rounds(2)
    assert held(first) == {0, 1, 2}
    assert changes(first)["assigned"] >= 5
    first.stop()
    site.run()
    assert_equal(site)


def test_a_partition_that_goes_and_comes_back_between_two_polls_is_restored_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process().rounds(4)
    second = site.process()
    (moved,) = (p for p, owner in site.group.owner.items() if owner is second.bus)
    second.rounds(2)
    second.stop()  # further than the first ever was
    saved = site.snapshots()[moved]
    first.rounds(1)
    assert changes(first) == {"assigned": 4, "revoked": 1, "lost": 0}
    assert first.restored[moved] == saved
    first.finish()
    assert_equal(site)


def test_a_partition_that_comes_to_the_member_that_has_it_is_restored_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process()
    while 1 not in site.snapshots():
        process.rounds(1)
    process.rounds(2)  # past the snapshot
    process.bus.note("assigned", 1)
    process.rounds(1)
    assert process.restored == {0: 0, 1: site.snapshots()[1], 2: 0}
    process.finish()
    assert_equal(site)


def test_a_rebalance_while_a_partition_is_restored_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.process().rounds(12).kill()
    others: list[Process] = []

    def built(partition: int) -> None:
        if partition == 1 and not others:
            others.append(site.process())
            others[0].rounds(2)

    slow = site.process(built=built)
    slow.round()
    (second,) = others
    assert len(held(second)) == 1
    slow.rounds(1)
    assert changes(slow)["revoked"] == 1
    assert not held(slow) & held(second)
    together(slow, second)
    assert_equal(site)


@pytest.mark.parametrize("where", ["before flush", "after flush", "before sync", "after sync"])
def test_a_partition_taken_away_while_its_messages_are_processed_changes_nothing(
    where: str, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    others: list[Process] = []

    def at(place: str) -> None:
        if place == where and first.now >= 4.0 and not others:
            others.append(site.process())
            others[0].rounds(1)

    first = site.process(at=at)
    first.rounds(7)
    (second,) = others
    assert changes(first)["revoked"] == 1
    together(first, second)
    assert_equal(site)


def test_a_member_that_stood_still_loses_its_partitions_and_takes_none_back_wrongly(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first, second = site.process(), site.process()
    first.rounds(5)
    second.rounds(5)
    site.group.expire(first.bus)  # stopped for longer than its session
    second.rounds(4)
    assert held(second) == {0, 1, 2}
    mine = held(first)
    first.rounds(1)
    assert changes(first)["lost"] == len(mine) == 2
    second.rounds(1)
    assert held(first) | held(second) == {0, 1, 2}
    assert not held(first) & held(second)
    together(first, second)
    assert_equal(site)


def test_a_member_that_was_too_slow_gets_its_partitions_back_and_loses_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    expired = False

    def at(place: str) -> None:
        nonlocal expired
        if place == "before flush" and slow.now >= 6.0 and not expired:
            expired = True
            site.group.expire(slow.bus)  # max_poll_interval_ms is over, while it processes

    slow = site.process(at=at)
    slow.finish()
    assert changes(slow) == {"assigned": 6, "revoked": 0, "lost": 3}
    assert site.group.committed == site.ends()
    assert_equal(site)


def test_a_member_whose_commits_are_refused_loses_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    fenced = site.process()
    fenced.bus.fenced = True
    fenced.rounds(12)
    snapshots = site.snapshots()
    assert len(snapshots) == 3
    fenced.kill()
    assert site.group.committed == {}
    assert site.run().restored == snapshots
    assert site.group.committed == site.ends()
    assert_equal(site)


def test_a_member_is_ready_once_it_has_its_partitions_and_not_while_a_rebalance_runs(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rebalances = 0

    def at(place: str) -> None:
        nonlocal rebalances
        if place == "before flush" and not rebalances:
            rebalances += 1
            site.group.rebalance()

    process = site.process(at=at)
    ready = [process.member.ready]
    while not rebalances:
        process.rounds(1)
        ready.append(process.member.ready)
    process.rounds(1)
    assert [*ready, process.member.ready] == [False, *[True] * (len(ready) - 2), False, True]
    process.finish()
    assert_equal(site)


def test_lag_and_next_offset_are_those_of_the_partitions_held(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(3)
    ends = site.ends()
    following = {int(p): int(v) for (p,), v in process.metrics.next_offset.values.items()}
    lag = {int(p): int(v) for (p,), v in process.metrics.lag.values.items()}
    assert sum(following.values()) > 0
    assert lag == {partition: ends[partition] - at for partition, at in following.items()}
    process.finish()
    assert set(process.metrics.lag.values.values()) == {0}


def test_a_snapshot_that_is_written_late_takes_no_commit_back(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(7)
    before = {p: offset for p in range(3) if (offset := process.bus.committed(p))}
    assert before
    for partition, offset in before.items():
        process.member.snapshots.write(
            Snapshot(partition, offset - 1, ({}, {}))
        )  # begun before a rebalance, say
        process.member.snapshots.wait()
    process.round()
    assert all((process.bus.committed(p) or 0) >= offset for p, offset in before.items())
    process.finish()
    assert_equal(site)
