"""A worker of the lab: reads runs from stdin, does one after the other, and writes the outcome of each to stdout.

It is small and has no threads, since every run is a fork of it: kernels are loaded once, and each run starts in
milliseconds.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from probing.lab import load, trace
from probing.lab.errors import LabError
from probing.lab.isolation import alone, die_with_parent
from probing.lab.link.link import Bounds
from probing.lab.run import LINKS, How, perform
from probing.lab.settings import Run
from probing.lab.vantage import FULL, HEADERS, write_pcap

logger = logging.getLogger(__name__)


def serve(work: Path, how: How) -> None:
    """Do the runs that arrive until stdin ends. work: folder for the folders of the runs."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # half-open connections are kept to the end of a run
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    warm_up(how)
    for line in sys.stdin:
        run = Run.model_validate_json(line)
        sys.stdout.write(json.dumps({"id": run.id, "problem": do(run, work, how)}) + "\n")
        sys.stdout.flush()


def warm_up(how: How) -> None:
    """Compile or load all kernels: what a run compiles is lost when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        link = LINKS[how.link]([], [], 0, Bounds(1 << 16, 16))
        link.end()
        link.carry()
        for snap in (HEADERS, FULL):
            write_pcap(Path(folder) / "nothing.pcap", link.log(), "client", snap)


def do(run: Run, work: Path, how: How) -> str:
    """Do a run, whose folder appears complete or not at all; returns the reason of a failure, "" for none."""
    part, whole = work / f"{run.id}.part", work / run.id
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for path in run.trace_digests:
            trace.read(Path(path))  # outside: a private machine has another /run
    except LabError as unreadable:
        return str(unreadable)
    group = load.group_name(os.getpid(), run.number)
    ended = alone(lambda: perform(run, part.name, group, how), work, run.limit_s, f"{part.name}/error.txt")
    load.sweep(os.getpid())
    error = part / "error.txt"
    problem = error.read_text() if error.exists() else ""
    if ended.code == 0 and (part / "run.json").exists():
        part.rename(whole)
        return ""
    if ended.timed_out:
        problem = f"not finished after {run.limit_s:g} s (limit_s)"
    return problem.strip() or f"ended with status {ended.code}"


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    serve(Path(sys.argv[1]), How(int(sys.argv[3]), sys.argv[4]))
