"""A detector may be killed anywhere: the rows are those of one that was not, to the last bit."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

import pytest

from engine.consumer.segments import Merged, merge
from tests.integration.kafka.site import Site, assert_equal, committed, wait_for
from tests.support.disks import small_disk

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


def held(said: str) -> set[int]:
    """Partitions that a detector has, by its log."""
    mine: set[int] = set()
    for number, change in re.findall(r"partition=(\d+) (assigned|revoked|lost)", said):
        if change == "assigned":
            mine.add(int(number))
        else:
            mine.discard(int(number))
    return mine


def restored(site: Site, name: str) -> dict[int, int]:
    """Where the last detector of that name took its partitions over."""
    return committed((site.folder / f"{name}.log").read_text())


@pytest.mark.parametrize(
    "point",
    [
        "before-rename:2", "during-write:3", "after-rename:4", "before-flush:3", "after-flush:3", "after-sync:2",
        "before-commit:60", "before-flush:1", "after-rename:1",
    ],
)  # fmt: skip
def test_a_detector_killed_at_any_point_goes_on_to_the_last_bit(
    point: str, site: Site, wanted: Merged
) -> None:
    group = point.replace(":", "-")
    killed = site.detect("killed", group=group, crash=point)
    assert killed.process.wait(timeout=120) == -signal.SIGKILL, killed.said()[-3000:]
    after = site.finish("after", group=group)
    assert_equal(merge([killed.out, after]), wanted)


def test_a_kill_while_restoring_leaves_the_snapshot_good(site: Site, wanted: Merged) -> None:
    first = site.detect("first", group="restoring")
    wait_for(lambda: len(site.snapshots()) >= 4, "snapshots")
    first.kill()
    second = site.detect("second", group="restoring", crash="during-restore:2")
    assert second.process.wait(timeout=120) == -signal.SIGKILL, second.said()[-3000:]
    third = site.finish("third", group="restoring")
    assert restored(site, "third") != {}
    assert_equal(merge([first.out, second.out, third]), wanted)


def test_what_was_done_before_a_crash_is_not_done_again_from_the_start(site: Site, wanted: Merged) -> None:
    first = site.finish("first", group="resumed")
    again = site.detect("again", "--stop-at-end", group="resumed")
    again.ended()
    ends = {partition: spans[0][1] for partition, spans in wanted.spans.items()}
    assert restored(site, "again") == ends
    assert_equal(merge([first, again.out]), wanted)


def test_two_rebalances_back_to_back_change_nothing(site: Site, wanted: Merged) -> None:
    first = site.detect("first", group="twice")
    wait_for(site.snapshots, "a snapshot")
    second = site.detect("second", group="twice")
    third = site.detect("third", group="twice")
    wait_for(lambda: "assigned" in second.said() and "assigned" in third.said(), "partitions for all")
    second.stop()
    third.kill()
    wait_for(lambda: first.said().count("assigned") >= 5, "partitions back")
    first.stop()
    last = site.finish("last", group="twice")
    assert_equal(merge([d.out for d in (first, second, third)] + [last]), wanted)


def test_a_rebalance_while_a_partition_is_restored_changes_nothing(site: Site, wanted: Merged) -> None:
    first = site.detect("first", group="slow-restore")
    wait_for(lambda: len(site.snapshots()) >= 4, "snapshots")
    first.kill()
    log = site.folder / "slow.log"
    command = site.command(
        "detect", "--group", "slow-restore", "--state", site.state, "--out", site.folder / "out-slow"
    )
    command[1:3] = [str(Path(__file__).with_name("crash.py")), "slow-restore:2"]
    site.start(command, log, SLOW_SECONDS="5")
    wait_for(lambda: log.exists() and "restored" in log.read_text(), "the first partition restored")
    second = site.detect("second", group="slow-restore")
    wait_for(lambda: "restored" in second.said(), "a partition moved while another was restored")
    wait_for(lambda: log.read_text().count("revoked") >= 1, "the slow one gave some up")
    second.stop()
    site.close()
    last = site.finish("last", group="slow-restore")
    assert_equal(merge([first.out, site.folder / "out-slow", second.out, last]), wanted)


def test_a_stopped_member_loses_its_partitions_and_takes_none_back_wrongly(
    site: Site, wanted: Merged
) -> None:
    first = site.detect("first", group="lost")
    second = site.detect("second", group="lost")
    everything = set(range(site.partitions))

    def shared() -> bool:
        one, other = held(first.said()), held(second.said())
        return bool(one and other) and one | other == everything and not one & other

    wait_for(shared, "partitions for both")
    first.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: held(second.said()) == everything, "the other takes them over")
    before = len(first.said())
    first.process.send_signal(signal.SIGCONT)
    wait_for(lambda: re.search(r"partition=\d (lost|revoked)", first.said()[before:]), "the loss is noticed")
    first.stop()
    second.stop()
    last = site.finish("last", group="lost")
    assert_equal(merge([first.out, second.out, last]), wanted)


def test_processing_that_takes_longer_than_max_poll_interval_loses_nothing(
    site: Site, wanted: Merged
) -> None:
    log = site.folder / "slow.log"
    command = site.command(
        "-v",
        "detect",
        "--group",
        "slow",
        "--state",
        site.state,
        "--out",
        site.folder / "out-slow",
        "--stop-at-end",
    )
    command[1:3] = [str(Path(__file__).with_name("crash.py")), "slow:100"]
    process = site.start(command, log, SLOW_SECONDS="13")  # max_poll_interval_ms is 10 s
    assert process.wait(timeout=120) == 0, log.read_text()[-3000:]
    assert "lost" in log.read_text()
    assert_equal(merge([site.folder / "out-slow"]), wanted)


def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(site: Site, wanted: Merged) -> None:
    first = site.detect("first", group="damaged")
    wait_for(lambda: site.snapshots(0), "a snapshot of a partition")
    first.kill()
    *older, newest = site.snapshots(0)  # a fast machine makes only one: then it is the log's start
    data = newest.read_bytes()
    newest.write_bytes(data[: len(data) * 2 // 3])
    second = site.finish("second", group="damaged")
    said = (site.folder / "second.log").read_text()
    assert f"snapshot skipped: path={newest}" in said
    assert restored(site, "second")[0] == (int(older[-1].stem) if older else 0)
    assert_equal(merge([first.out, second]), wanted)


def test_a_flipped_bit_in_a_snapshot_is_noticed(site: Site, wanted: Merged) -> None:
    first = site.detect("first", group="flipped")
    wait_for(lambda: site.snapshots(1), "a snapshot of a partition")
    first.kill()
    newest = site.snapshots(1)[-1]
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data)
    second = site.finish("second", group="flipped")
    assert "checksum does not match" in (site.folder / "second.log").read_text()
    assert_equal(merge([first.out, second]), wanted)


def test_a_full_disk_during_a_snapshot_stops_no_detection(site: Site, wanted: Merged) -> None:
    with small_disk(site.folder / "disk", 32 << 20) as disk:
        ballast = disk / "ballast"
        detector = site.detect("full", group="full", state=disk / "state")
        wait_for(lambda: site.snapshots(state=disk / "state"), "a snapshot")
        fill(ballast)
        wait_for(lambda: "snapshot failed" in detector.said(), "a snapshot that failed")
        assert "No space left on device" in detector.said()
        ballast.unlink()
        assert detector.process.poll() is None
        detector.stop()
        last = site.finish("last", group="full", state=disk / "state")
        assert_equal(merge([detector.out, last]), wanted)


def test_the_same_snapshots_serve_from_an_object_store(site: Site, wanted: Merged) -> None:
    from engine.commands.detect import Detect, DetectJob
    from engine.config import load, replace

    outs = []
    for name in ("one", "two"):  # fsspec's memory store lives in this process
        outs.append(site.folder / f"out-{name}")
        config = replace(load(site.config), "test", {"output.directory": str(outs[-1])})
        process = Detect(DetectJob(config, "memory", "memory://states", stop_at_end=True))
        report = process.run()
        assert report.partitions == {p: spans[0][1] for p, spans in wanted.spans.items()}
    assert report.packets == 0
    assert_equal(merge(outs), wanted)
