"""Breaks a detector group at random and compares what comes out with what an undisturbed process makes of the log.

    python -m tests.support.chaos [--seeds 3] [--first 1] [--seconds 30] [--jobs 1] [--json OUT]

A broker, four partitions, three detectors that share a state folder on a small disk, one long replay. At random
moments: SIGKILL, SIGSTOP past the session timeout and SIGCONT, a member added or sent away, the broker killed and
started again, the newest snapshot cut short, the disk filled. In the end every offset must be covered and every row
equal to the last bit. Prints a line a seed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.measure import commit
from engine.commands.models import chosen_models
from engine.commands.warm import warm_up
from engine.config import Config
from engine.consumer.segments import merge
from tests.integration.kafka.site import DEMO, LABELS, Detector, Site, assert_equal, wait_for
from tests.support import broker as brokers
from tests.support.disks import small_disk

DISK = 48 << 20  # bytes for snapshots
MEMBERS = (1, 4)  # fewest and most at a time
PAGE = 4096
UNREACHABLE = re.compile("^wiresonde: (kafka://|topic )", re.MULTILINE)


@dataclass
class Report:
    """What happened to one seed."""

    seed: int
    events: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    rows: int = 0
    repeated: int = 0
    resident: int = 0  # bytes, the most of any detector
    seconds: float = 0.0

    def __str__(self) -> str:
        events = ", ".join(f"{name} {n}" for name, n in sorted(self.events.items()))
        return (
            f"seed {self.seed}: equal; {self.messages:,} messages, {self.rows:,} rows, {self.repeated:,} came again; "
            f"{events}; {self.resident >> 20} MiB at most; {self.seconds:.0f} s"
        )


class Chaos:
    """One run."""

    def __init__(self, seed: int, folder: Path, broker: brokers.Broker, disk: Path, seconds: float) -> None:
        self.random = random.Random(seed)
        self.report = Report(seed)
        self.broker = broker
        self.disk = disk
        self.seconds = seconds
        self.site = Site(broker.address, folder)
        self.site.state = disk / "state"
        self.members: list[Detector] = []
        self.outs: list[Path] = []
        self.stopped: list[tuple[float, Detector]] = []  # until when, who
        self.ballast_until = 0.0

    def join(self) -> None:
        name = f"member-{len(self.outs)}"
        self.members.append(self.site.detect(name))
        self.outs.append(self.members[-1].out)

    def pick(self) -> Detector:
        return self.random.choice(self.members)

    def kill(self) -> None:
        member = self.pick()
        self.members.remove(member)
        member.kill()
        self.join()

    def freeze(self) -> None:
        member = self.pick()
        if all(member is not frozen for _, frozen in self.stopped):
            member.process.send_signal(signal.SIGSTOP)
            self.stopped.append((time.monotonic() + self.random.uniform(3.5, 6.0), member))

    def add(self) -> None:
        if len(self.members) < MEMBERS[1]:
            self.join()

    def leave(self) -> None:
        running = [m for m in self.members if all(m is not frozen for _, frozen in self.stopped)]
        if len(self.members) > MEMBERS[0] and running:
            member = self.random.choice(running)
            self.members.remove(member)
            self.end(member)

    def end(self, member: Detector) -> None:
        member.process.send_signal(signal.SIGTERM)
        code = member.process.wait(timeout=60)
        # before it has begun: 143, or the signal itself where Python had not begun either
        early = code == -signal.SIGTERM and not member.said()
        # a full disk keeps the last snapshot from being written, which it says
        full = code == 1 and (
            "no snapshot of partitions" in member.said() or UNREACHABLE.search(member.said())
        )
        assert code in (0, 143) or early or full, f"exit {code}:\n{member.said()[-3000:]}"

    def restart_broker(self) -> None:
        self.broker.restart()

    def cut_snapshot(self) -> None:
        found = self.site.snapshots()
        if found:
            newest = max(found, key=lambda p: (p.name, p))
            with contextlib.suppress(FileNotFoundError):
                data = newest.read_bytes()
                newest.write_bytes(data[: self.random.randrange(len(data))])

    def fill_disk(self) -> None:
        with (self.disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        self.ballast_until = time.monotonic() + self.random.uniform(0.5, 3.0)

    def events(self) -> list[tuple[int, Callable[[], None]]]:
        """Weights and what may happen."""
        return [
            (5, self.kill), (2, self.freeze), (3, self.add), (3, self.leave), (1, self.restart_broker),
            (3, self.cut_snapshot), (2, self.fill_disk),
        ]  # fmt: skip

    def tick(self) -> None:
        """What is due: thaw who was frozen, empty the disk, look at everybody."""
        now = time.monotonic()
        for until, member in list(self.stopped):
            if now >= until or member not in self.members:
                self.stopped.remove((until, member))
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(signal.SIGCONT)
        if self.ballast_until and now >= self.ballast_until:
            (self.disk / "ballast").unlink()
            self.ballast_until = 0.0
        for member in list(self.members):
            code = member.process.poll()
            if code == 1 and "assigned" not in member.said() and UNREACHABLE.search(member.said()):
                self.members.remove(member)  # it began while the broker was away, said so and ended
                self.report.events["refused"] += 1
                self.join()
                continue
            assert code is None, f"a detector ended with {code}:\n{member.said()[-3000:]}"
            with contextlib.suppress(FileNotFoundError, IndexError):
                pages = int(Path(f"/proc/{member.process.pid}/statm").read_text().split()[1])
                self.report.resident = max(self.report.resident, pages * PAGE)

    def run(self) -> Report:
        began = time.monotonic()
        site = self.site
        site.make_topics()
        for _ in range(3):
            self.join()
        loops = max(1, round(self.seconds * 4 / 85))
        replay = site.start(
            site.command("replay", DEMO, "--labels", LABELS, "--speed", "4x", "--loop", loops),
            site.folder / "replay.log",
        )
        wait_for(lambda: replay.poll() is not None or sum(site.offsets().values()) > 0, "the first packets")
        weights, actions = zip(*self.events())
        while replay.poll() is None:
            pause = time.monotonic() + self.random.uniform(0.3, 2.0)
            while time.monotonic() < pause:
                self.tick()
                time.sleep(0.1)
            (action,) = self.random.choices(actions, weights)
            self.report.events[action.__name__] += 1
            action()
        assert replay.returncode == 0, (site.folder / "replay.log").read_text()[-3000:]
        self.settle()
        self.outs.append(site.finish("last"))
        got, wanted = merge([out for out in self.outs if out.is_dir()]), site.undisturbed()
        self.report.messages = sum(site.offsets().values())
        assert {p: spans[-1][1] for p, spans in wanted.spans.items()} == site.offsets()
        assert_equal(got, wanted)
        self.report.rows, self.report.repeated = got.table.num_rows, got.repeated
        self.report.seconds = time.monotonic() - began
        return self.report

    def settle(self) -> None:
        """Let everybody go on and end."""
        self.ballast_until = min(self.ballast_until, 1.0)
        self.stopped = [(0.0, member) for _, member in self.stopped]
        self.tick()
        for member in self.members:
            self.end(member)


def run(seed: int, folder: Path, seconds: float = 30.0) -> Report:
    """One seed, in a folder of its own. AssertionError when a row is lost, doubled or different."""
    folder.mkdir(parents=True, exist_ok=True)
    with small_disk(folder / "disk", DISK) as disk, brokers.running(folder / "broker") as broker:
        chaos = Chaos(seed, folder / "site", broker, disk, seconds)
        try:
            return chaos.run()
        finally:
            chaos.site.close()


def main() -> None:
    """Run seeds, some at a time; exit 1 when any fails, keeping its folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=1, help="Runs at a time, each with a broker of its own.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    brokers.jars()  # fetched, and kernels compiled, once and not by all at a time
    warm_up(Config(), chosen_models(Config()))
    reports = []

    def one(seed: int) -> Report | str:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        try:
            report = run(seed, folder, arguments.seconds)
        except (Exception, pytest.fail.Exception, pytest.skip.Exception):
            return f"seed {seed} FAILED; its logs are in {folder}\n{traceback.format_exc()}"
        shutil.rmtree(folder, ignore_errors=True)
        return report

    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for report in pool.map(one, range(arguments.first, arguments.first + arguments.seeds)):
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
            if isinstance(report, Report):
                reports.append(report)
            else:
                failed += 1
    if failed:
        sys.exit(f"{failed} of {arguments.seeds} seeds failed")
    if arguments.json is not None:
        document = {
            "commit": commit(), "jobs": arguments.jobs,
            "reports": [{**vars(r), "events": dict(r.events)} for r in reports],
        }  # fmt: skip
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
