"""What does a second model cost, on the whole path and in making rows?

    python -m benchmarks.bench_models --trace FILE.pcap [--json OUT] [--rounds 5] [--against DIR]

``pipeline`` is `wiresonde score` without a file to write: Kitsune alone, and with the baseline beside it, which is
given the same features. ``rows`` makes columns of ended connections, as the sinks do, of one model and of two. All run
in turn in one sitting on one core; each pipeline is a process of its own. ``--against`` runs the pipeline of another
checkout in the same turns, for instance that of the commit before a change.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import interleaved, one_core, report, timed
from connectors.files.pcap import CaptureFile
from engine.connections.layout import CONNECTION
from engine.connections.tracker import Tracker
from engine.headers.decode import decode
from engine.scoring.batch import SCORE, Records, ScoreBatch, join
from engine.scoring.columns import score_table

BATCHES = 16  # closings that a flush joins
PIPELINE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
try:
    from engine.commands.score import Job, Scoring
except ImportError:
    from engine.app import Job, Scoring
from engine.config import Config, parse
models = {name: {"kind": name} for name in sys.argv[2:]}
given = parse({"models": models}, "bench") if models else Config()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(2):
    began = time.process_time()
    packets = Scoring(Job([Path(sys.argv[1])], given)).run().packets
print(packets / (time.process_time() - began))
"""


def pipeline(trace: Path, folder: Path, *models: str) -> float:
    """Packets a second of CPU, in the second of two runs of a fresh process."""
    words = [sys.executable, "-c", PIPELINE, str(trace.resolve()), *models]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout)


def closings(trace: Path) -> list[Records]:
    """Connections of a trace as they ended, in batches as a flush joins them."""
    tracker, found = Tracker(), []
    with CaptureFile(trace, frames_per_block=16_384) as capture:
        for frames in capture:
            for tracked in tracker.track(decode(frames)):
                if tracked.closed.size:
                    found.append(Records(*tracker.rows(tracked.closed)))
    found += [Records(*tracker.rows(slots)) for slots in tracker.flush()]
    assert all(r.rows.dtype == CONNECTION for r in found)
    return found


def rows(batches: list[Records], models: int) -> int:
    """Make the columns of all connections for so many models."""
    made = 0
    for begin in range(0, len(batches), BATCHES):
        part = [
            Records(r.rows, r.sides) for r in batches[begin : begin + BATCHES]
        ]  # nothing made of them yet
        scores = [np.zeros(len(r), SCORE) for r in part]
        said = [
            ScoreBatch(f"m{k}", "v", records, own)
            for records, own in zip(part, scores)
            for k in range(models)
        ]
        made += sum(score_table(batch).num_rows for batch in join(said)[1])
    return made


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, for the pipeline of one model")
    arguments = parser.parse_args()
    trace: Path = arguments.trace
    core = one_core()
    batches = closings(trace)
    n = sum(len(records) for records in batches)
    work = {
        "pipeline": (arguments.rounds, lambda: pipeline(trace, Path.cwd())),
        "pipeline_two": (arguments.rounds, lambda: pipeline(trace, Path.cwd(), "kitsune", "baseline")),
        "rows": (arguments.rounds, lambda: timed(n, lambda: rows(batches, 1))),
        "rows_two": (arguments.rounds, lambda: timed(n, lambda: rows(batches, 2))),
    }
    if arguments.against is not None:
        work["before"] = arguments.rounds, lambda: pipeline(trace, arguments.against)
    runs = interleaved(work, arguments.rounds)
    ratios = {
        "two_to_one": _ratio(runs["pipeline_two"], runs["pipeline"]),
        "row_cost": _ratio(runs["rows"], runs["rows_two"]),
    }
    if arguments.against is not None:
        ratios["to_before"] = _ratio(runs["pipeline"], runs["before"])
    units = {name: "connections/s" if name.startswith("rows") else "packets/s" for name in runs}
    report(runs, units, arguments.json, ratios=ratios, connections=n, trace={"name": trace.name}, core=core)


def _ratio(a: list[float], b: list[float]) -> float:
    """Median of the rounds' ratios."""
    return round(statistics.median(x / y for x, y in zip(a, b)), 3)


if __name__ == "__main__":
    main()
