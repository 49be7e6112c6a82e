"""A snapshot that does not fit the log stops a process with the way to repair it; no snapshot is a new start."""

from __future__ import annotations

import re
import shutil
from ast import literal_eval
from pathlib import Path

import pytest

from engine.connections.bounds import TrackerConfig
from engine.errors import StateError
from tests.support.members import Outcome, Process, Site, assert_equal

pytestmark = pytest.mark.compiled


def refused(site: Site, message: str, **options: object) -> None:
    """A process stops at once, and says why in one line."""
    process = site.process(**options)
    with pytest.raises(StateError) as caught:
        process.round()
    assert message in str(caught.value)
    process.kill()


def away(site: Site, partition: int) -> str:
    """What the error asks for, to start without the state of a partition."""
    return f"move {site.store.place}/{partition} away"


def stopped(site: Site, rounds: int) -> None:
    """A process that ended before the end of the log."""
    site.process().rounds(rounds).stop()


def test_a_process_without_snapshots_reads_a_whole_log_again_and_is_exact(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run()
    shutil.rmtree(site.store.place)
    assert site.run().restored == {0: 0, 1: 0, 2: 0}
    assert_equal(site)


def test_a_snapshot_older_than_the_log_stops_with_the_way_to_repair_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 5)
    at = site.snapshots()[2]
    site.topic.trim(2, at + 3)
    where = f"partition 2: the snapshot continues at offset {at}, but the log begins at {at + 3}: 3 messages are gone"
    refused(site, where)
    refused(site, away(site, 2))
    shutil.move(f"{site.store.place}/2", tmp_path / "away")
    site.outcome = Outcome()
    process = site.run()
    assert process.restored[2] == at + 3
    assert process.count("cold_starts") == 1
    rows = [literal_eval(row) for (partition, *_), row in site.outcome.rows.items() if partition == 2]
    soon = min(row["ts"] for row in rows) + TrackerConfig().udp_timeout * 1e9
    early = [row["midstream"] for row in rows if row["ts"] < soon]
    assert len(early) > 10
    assert all(early)  # each may have begun before the log does


def test_a_log_trimmed_up_to_the_snapshot_is_gone_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 5)
    snapshots = site.snapshots()
    for partition, at in snapshots.items():
        site.topic.trim(partition, at)
    assert site.run().restored == snapshots
    assert_equal(site)


def test_a_cold_start_begins_at_the_committed_offset_and_whoever_follows_begins_there_too(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "one")
    stopped(site, 5)
    committed = dict(site.group.committed)
    assert 2 < committed[1] < site.ends()[1]
    site.topic.trim(1, 2)
    shutil.rmtree(site.store.place)
    site.outcome = Outcome()
    undisturbed = Site(tmp_path / "other", group=site.group)
    undisturbed.run()
    site.group.committed.update(committed)
    first = site.process().rounds(1)
    assert first.restored == {0: 0, 1: committed[1], 2: 0}
    assert site.snapshots() == {1: committed[1]}
    first.rounds(2).kill()
    site.group.committed.clear()  # the snapshot decides
    assert site.run().restored[1] == committed[1]
    assert_equal(site, undisturbed.outcome)


@pytest.mark.parametrize(("committed", "at"), [(1, 4), (10_000, None), (None, 4)])
def test_a_cold_start_stays_within_the_log(committed: int | None, at: int | None, tmp_path: Path) -> None:
    site = Site(tmp_path)
    if committed is not None:
        site.group.committed[1] = committed
    site.topic.trim(1, 4)
    process = site.process().rounds(1)
    assert process.restored[1] == (site.ends()[1] if at is None else at)
    process.kill()


def test_a_snapshot_past_the_end_of_the_log_stops_with_the_way_to_repair_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 6)
    at = site.snapshots()[1]
    site.topic.truncate(1, at - 1)
    refused(
        site, f"partition 1: the snapshot continues at offset {at}, but the log ends at {at - 1}: it has lost"
    )
    refused(site, away(site, 1))


def test_a_log_truncated_to_the_snapshot_is_gone_on_with(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 6)
    at = site.snapshots()[1]
    site.topic.truncate(1, at)
    process = site.run()
    assert process.restored[1] == at == site.ends()[1]


def test_a_gap_in_the_offsets_stops_and_is_not_passed_over(tmp_path: Path) -> None:
    site = Site(tmp_path)
    end = site.ends()[0]
    last = site.topic.read(0, end - 1, 1)[0].value
    site.topic.skip(0, 2)
    site.topic.publish(0, last)
    process = site.process()
    message = f"partition 0: offset {end + 2} follows {end - 1}: the log lacks 2 messages"
    with pytest.raises(StateError, match=f"{message}; .*{re.escape(away(site, 0))}"):
        process.finish()
    process.kill()
    assert end + 2 not in site.outcome.offsets.get(0, set())


def test_a_topic_recreated_before_the_start_is_noticed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 3)
    old = site.topic.id
    site.topic.recreate()
    refused(
        site, f"a snapshot of topic id {old}, but the topic was created again and has {site.topic.id}; "
        f"to start without it, move {site.store.place} away",
    )  # fmt: skip


def test_a_topic_recreated_while_a_process_runs_is_noticed_when_it_takes_a_partition_over(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    process = site.process().rounds(3)
    old = site.topic.id
    site.topic.recreate()
    site.group.expire(process.bus)  # it joins again, and takes its partitions over
    with pytest.raises(StateError, match=f"the topic is {site.topic.id} now and was {old}"):
        process.round()
    process.kill()


def test_another_number_of_partitions_before_the_start_is_noticed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 3)
    site.topic.grow(5)
    refused(site, "a snapshot of a topic with 3 partitions, which now has 5")


def test_another_number_of_partitions_while_a_process_runs_is_noticed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    process: Process = site.process().rounds(3)
    site.topic.grow(5)
    with pytest.raises(StateError, match=r"the topic has 5 partitions now and had 3: .*start again"):
        process.round()
    process.kill()
    assert site.snapshots().keys() <= {0, 1, 2}


def test_another_configuration_is_noticed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    stopped(site, 3)
    refused(site, "a snapshot of another configuration", settings="other settings")


def test_a_folder_of_snapshots_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    site = Site(tmp_path)
    Path(site.store.place).write_text("where the folder should be")
    refused(site, f"{site.store.place}/0: cannot be read: ")
