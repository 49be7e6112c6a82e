"""Load of the server: a quota of processor time, or busy loops beside it; and its measured effect."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probing.lab.errors import LabError
from probing.lab.hosts import Host
from probing.lab.settings import Load

logger = logging.getLogger(__name__)

CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "wiresonde-lab-"  # prefix of the control groups; the worker's process id and the run's number follow
PERIOD_US = 20_000  # period of a quota: 1 % lets the server run for 0.2 ms in each
EVERY_S = 0.1  # seconds between two readings of the load
ROUNDS, ROUND_S = 40, 0.05  # most looks for new processes of a server, and seconds between two
HOG = "while :; do :; done"


def cgroup_root() -> Path | None:
    """The folder in which control groups with a processor quota can be made; None when there is none."""
    for place, file in ((CGROUPS / "cpu", "cpu.cfs_quota_us"), (CGROUPS, "cgroup.controllers")):
        if place.is_dir() and os.access(place, os.W_OK):
            if file == "cgroup.controllers":
                if not (place / file).exists() or "cpu" not in (place / file).read_text().split():
                    continue
                return place
            return place
    return None


def processes_of(host: Host) -> list[int]:
    """The ids of the processes in a host's network namespace."""
    wanted = host.in_thread(lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat(entry / "ns/net").st_ino == wanted:
                    found.append(int(entry.name))
    return found


def threads_of(pid: int) -> list[int]:
    """The ids of a process's threads; servers work in those beside the first."""
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it has just ended
        return []


def group_name(worker: int, number: int) -> str:
    """The name of a run's control group."""
    return f"{PREFIX}{worker}-{number}"


def apply(load: Load, server: Host, group: str) -> None:
    """Put the server's processes, and those that they start later, under a load."""
    if load.quota_pct:
        place = _limited(load.quota_pct, group)
        _for_all(server, lambda pid, _: (place / "cgroup.procs").write_text(str(pid)))
    if load.hogs:
        processor = min(os.sched_getaffinity(0))
        for _ in range(load.hogs):
            server.start(["sh", "-c", HOG], log="hog")
        _for_all(server, lambda _, thread: os.sched_setaffinity(thread, {processor}))


def _for_all(server: Host, work: Callable[[int, int], object]) -> None:
    """Do something with every process and thread of a server, until none is new: it may be starting some now."""
    done: set[tuple[int, int]] = set()
    for _ in range(ROUNDS):
        new = {(pid, thread) for pid in processes_of(server) for thread in threads_of(pid)} - done
        if not new and done:
            return
        for pid, thread in new:
            with contextlib.suppress(ProcessLookupError):
                work(pid, thread)
        done |= new
        time.sleep(ROUND_S)


def _limited(quota_pct: float, group: str) -> Path:
    """A control group with a quota."""
    root = cgroup_root()
    if root is None:
        raise LabError("load.quota_pct: this machine allows no cpu control group; use load.hogs instead")
    place = root / group
    place.mkdir(exist_ok=True)
    quota = max(1000, round(PERIOD_US * quota_pct / 100))  # the kernel accepts at least 1 ms
    period = max(PERIOD_US, round(quota / quota_pct * 100))
    if (place / "cpu.cfs_quota_us").exists():
        (place / "cpu.cfs_period_us").write_text(str(period))
        (place / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        with contextlib.suppress(OSError):
            (root / "cgroup.subtree_control").write_text("+cpu")
        (place / "cpu.max").write_text(f"{quota} {period}")
    return place


def sweep(worker: int | None = None) -> None:
    """Remove the empty control groups of a worker, or of all workers that have ended."""
    root = cgroup_root()
    if root is None:
        return
    for place in root.glob(f"{PREFIX}*"):
        owner = place.name.removeprefix(PREFIX).split("-")[0]
        mine = worker is not None and owner == str(worker)
        if mine or (worker is None and owner.isdigit() and not _is_worker(owner)):
            _remove(place)


def _is_worker(pid: str) -> bool:
    """Whether a running worker has this process id; a zombie or another program does not count."""
    try:
        return b"probing.lab.worker" in Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False


def _remove(place: Path) -> None:
    """Remove a control group, whose last processes may still be ending."""
    for _ in range(50):
        try:
            place.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
    logger.warning("group=%s could not be removed: still in use", place)


class Measured(NamedTuple):
    """The load over a period, in percent."""

    busy: float  # share of the machine's processors in use
    waiting: float  # share of its running time for which the server waited for a processor


class Meter:
    """A reader of the load, every 0.1 s during a run."""

    def __init__(self, server: Host) -> None:
        self._server = server
        self._rows: list[tuple[int, int, int, int, int]] = []  # ns monotonic, busy, total, ran, waited
        self._threads: dict[int, tuple[int, int]] = {}
        self._ran = self._waited = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load meter", daemon=True)

    def start(self) -> None:
        """Begin to read the load."""
        self._read()
        self._thread.start()

    def stop(self) -> None:
        """Stop reading the load, after a last reading."""
        self._stop.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._read()

    def _read(self) -> None:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        for pid in processes_of(self._server):
            with contextlib.suppress(OSError, ValueError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(HOG.encode()):
                    continue
            for thread in threads_of(pid):
                with contextlib.suppress(OSError, ValueError):
                    self._read_thread(pid, thread)
        self._rows.append((time.monotonic_ns(), sum(ticks) - idle, sum(ticks), self._ran, self._waited))

    def _read_thread(self, pid: int, thread: int) -> None:
        ran, waited = map(int, Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[:2])
        before = self._threads.get(thread, (0, 0))
        self._ran += max(0, ran - before[0])
        self._waited += max(0, waited - before[1])
        self._threads[thread] = (ran, waited)

    def between(self, start: int, end: int) -> Measured:
        """The load between two times (ns, monotonic), widened to the readings before and after."""
        times = [row[0] for row in self._rows]
        first = max(0, int(np.searchsorted(times, start, "right")) - 1)
        last = min(len(times) - 1, int(np.searchsorted(times, end, "left")))
        a, b = self._rows[first], self._rows[max(last, min(first + 1, len(times) - 1))]
        total, ran, waited = b[2] - a[2], b[3] - a[3], b[4] - a[4]
        return Measured(
            100.0 * (b[1] - a[1]) / total if total > 0 else 0.0,
            100.0 * waited / (ran + waited) if ran + waited > 0 else 0.0,
        )
