"""A process that is killed anywhere, and starts again, gives the rows of one that was not, to the last bit.

With test_member_group.py and test_member_log.py these are the cases of tests/integration/kafka, without a broker:

1. killed between any two of: process, flush, make durable, snapshot, commit (test_member.py)
2. killed while it restores (test_member.py)
3. ended cleanly and started again: nothing is done twice (test_member.py)
4. newest snapshot damaged: cut short, or a bit flipped (test_member.py)
5. snapshots that cannot be written, on a full disk (test_member.py)
6. two rebalances back to back, also while snapshots are written (test_member_group.py)
7. partitions moved while one is restored, or while messages are processed (test_member_group.py)
8. a member that stood still and lost its partitions to another (test_member_group.py)
9. a member that was too slow, lost its partitions and gets them back (test_member_group.py)
10. snapshot older than the log's start, and the cold start after it; no snapshot at all (test_member_log.py)
11. topic recreated, before the start or while running (test_member_log.py)
12. number of partitions changed, before the start or while running; another configuration (test_member_log.py)

Only here, since a broker does these rarely: refused commits, a snapshot past the log's end, a gap in the offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.bus.memory_group import MemoryGroup
from connectors.bus.memory_topic import MemoryTopic
from engine.consumer.outlet import FLUSHED_ROW
from engine.errors import OutputError
from tests.support.members import KilledError, Process, Site, assert_equal, traffic

pytestmark = pytest.mark.compiled


def crash(where: str, nth: int) -> Callable[[str], None]:
    """Kills a process the nth time that its sink reaches a place."""
    reached = 0

    def at(place: str) -> None:
        nonlocal reached
        reached += place == where
        if place == where and reached == nth:
            raise KilledError

    return at


def killed_at(site: Site, **options: object) -> Process:
    """A process that ran until it crashed."""
    process = site.process(**options)
    with pytest.raises(KilledError):
        process.finish()
    process.kill()
    return process


@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("where", ["before flush", "after flush", "before sync", "after sync"])
def test_a_process_killed_around_a_flush_or_a_sync_goes_on_to_the_last_bit(
    where: str, nth: int, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    killed_at(site, at=crash(where, nth))
    site.run()
    assert_equal(site)


@pytest.mark.parametrize("n", [1, 4, 6, 11, 16])
def test_a_process_killed_after_any_round_goes_on_to_the_last_bit(n: int, tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.process().rounds(n).kill()
    site.run()
    assert_equal(site)


def test_a_process_killed_between_a_snapshot_and_its_commit_goes_on_from_the_snapshot(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process()
    while not site.snapshots():
        first.rounds(1)
    first.kill()
    assert site.group.committed == {}
    snapshots = site.snapshots()
    second = site.run()
    assert second.restored == {0: 0, 1: 0, 2: 0} | snapshots
    assert_equal(site)


def test_a_process_killed_while_it_writes_a_snapshot_leaves_the_one_before_good(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process()
    while not site.snapshots():
        first.rounds(1)
    first.kill()
    ((partition, offset),) = site.snapshots().items()
    path = site.path(partition)
    half = path.with_name(f".{offset + 2:020d}.safetensors.{7:032x}.tmp")
    half.write_bytes(path.read_bytes()[:1000])
    second = site.run()
    assert second.restored[partition] == offset
    assert second.count("snapshots_unreadable") == 0
    assert_equal(site)


def test_a_process_killed_while_it_restores_leaves_the_snapshots_good(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.process().rounds(12).kill()
    snapshots = site.snapshots()

    def built(partition: int) -> None:
        if partition == 1:
            raise KilledError

    killed_at(site, built=built)
    assert site.run().restored == snapshots
    assert_equal(site)


def test_messages_before_a_clean_end_are_not_processed_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.process().rounds(7).stop()
    snapshots = site.snapshots()
    assert snapshots == site.group.committed
    assert all(0 < offset < site.ends()[partition] for partition, offset in snapshots.items())
    assert site.run().restored == snapshots
    assert_equal(site)
    again = site.run()
    assert again.restored == site.ends()
    assert not again.metrics.packets.values
    assert_equal(site)


def test_traffic_after_an_end_goes_on_with_the_connections_that_were_live_there(tmp_path: Path) -> None:
    site = Site(tmp_path, MemoryGroup(MemoryTopic(3)))
    rest = []
    for partition, offset, value in traffic():
        if offset < 8:
            site.topic.publish(partition, value)
        else:
            rest.append((partition, value))
    site.run()
    early = {identity for identity in site.outcome.rows if identity[3] >= FLUSHED_ROW}
    assert len(early) > 10
    for partition, value in rest:
        site.topic.publish(partition, value)
    assert site.run().restored == {0: 8, 1: 8, 2: 8}
    for rows in (site.outcome.rows, site.outcome.sent):
        for identity in early:
            del rows[identity]
    assert_equal(site)


def test_a_process_killed_again_and_again_gets_on_and_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    before: dict[int, int] = {}
    for _ in range(3):
        site.process().rounds(8).kill()  # long enough for a snapshot of each partition
        snapshots = site.snapshots()
        assert all(offset > before.get(partition, 0) for partition, offset in snapshots.items())
        before = snapshots
    assert len(before) == 3
    site.run()
    assert_equal(site)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.process().rounds(15).kill()
    newest, before = site.store.offsets(1)
    damage(site.path(1))
    second = site.run()
    assert second.restored[1] == before < newest
    assert second.count("snapshots_unreadable") == 1
    assert_equal(site)


def test_a_damaged_only_snapshot_falls_back_to_the_start_of_the_log(tmp_path: Path) -> None:
    site = Site(tmp_path)
    first = site.process()
    while not site.snapshots():
        first.rounds(1)
    first.kill()
    ((partition, _),) = site.snapshots().items()
    flip(site.path(partition))
    assert site.run().restored == {0: 0, 1: 0, 2: 0}
    assert_equal(site)


def test_snapshots_that_cannot_be_written_stop_no_detection_and_are_tried_again(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(1)
    folder = Path(site.store.place)
    folder.write_text("where the folder should be")
    process.rounds(10)
    assert process.count("snapshot_failures") >= 3
    folder.unlink()
    assert site.snapshots() == site.group.committed == {}
    process.finish()
    assert site.snapshots() == site.group.committed == site.ends()
    assert_equal(site)


def test_a_process_that_cannot_write_its_last_snapshots_says_so_and_its_rows_are_kept(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(1)
    folder = Path(site.store.place)
    folder.write_text("where the folder should be")
    with pytest.raises(
        OutputError,
        match=r"packets: no snapshot of partitions \[0, 1, 2\] was written; see the warnings above",
    ):
        process.finish()
    process.kill()
    assert_equal(site)
    folder.unlink()
    assert site.run().restored == {0: 0, 1: 0, 2: 0}
    assert_equal(site)


def test_a_member_whose_sinks_are_behind_reads_nothing_until_they_are_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    behind = True
    process = site.process(busy=lambda: behind).rounds(1)
    process.rounds(5)
    assert not process.metrics.packets.values
    assert process.member.ready
    behind = False
    process.rounds(2)
    assert process.metrics.packets.values
    process.finish()
    assert_equal(site)


def test_rows_reach_the_sinks_in_time_though_no_snapshot_is_due(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(4)
    assert site.outcome.sent
    assert not site.snapshots()
    assert not site.outcome.rows  # durable only with a snapshot
    process.kill()
