"""How do losses, reordering and delay look from the client's side and from the server's?

    sudo python -m benchmarks.bench_vantage --json docs/figures/bench_vantage.json

The same downloads, captured at both ends at once, under several settings of the link; counted as by
`wiresonde connections`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import report
from engine.commands.reading import read_connection_tables
from engine.config import Config
from engine.connections.record import json_lines
from probing.lab import catalog
from probing.lab.campaign import Worker
from probing.lab.run import How
from probing.lab.settings import Corpus, Entry
from probing.lab.vantage import HEADERS

SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {"delay_ms": 10},
    "loss 1 %": {"delay_ms": 10, "loss_pct": 1},
    "loss 5 %": {"delay_ms": 10, "loss_pct": 5},
    "reorder 1 %": {"delay_ms": 10, "rate_kbit": 8000, "reorder_pct": 1},
    "reorder 5 %": {"delay_ms": 10, "rate_kbit": 8000, "reorder_pct": 5},
    "jitter 2 ms": {"delay_ms": 10, "jitter_ms": 2, "rate_kbit": 8000},
    "duplicate 2 %": {"delay_ms": 10, "duplicate_pct": 2},
    "corrupt 2 %": {"delay_ms": 10, "corrupt_pct": 2},
    "queue of 20 at 8 Mbit/s": {"delay_ms": 10, "rate_kbit": 8000, "queue_packets": 20},
    "delay 50 ms": {"delay_ms": 50},
}
COUNTS = ("retransmitted", "reordered", "duplicates", "late_fills", "spurious", "capture_duplicate")
SAMPLES, BYTES = 20, 300_000


def look(capture: Path, segments: int) -> dict[str, float]:
    """Counts of the server's segments at a vantage, per thousand; and the measured round trip."""
    tables = read_connection_tables([capture], Config())
    rows = [json.loads(line) for table in tables for line in json_lines(table)]
    seen = {name: 1000 * sum(row[f"resp_{name}"] for row in rows) / segments for name in COUNTS}
    return seen | {
        "round_trip_ms": 1e3 * statistics.median(row["round_trip"] for row in rows if "round_trip" in row)
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-vantage-"))
    worker = Worker(folder, How(snap=HEADERS))
    rows = {}
    try:
        for name, link in SETTINGS.items():
            entry = Entry(scenario="http", server="nginx", client="asyncio", activity="get", samples=SAMPLES, users=2,
                          link=link, parameters={"content_bytes": BYTES})  # fmt: skip
            corpus = Corpus(name="vantage", about="", vantage=("client", "server"), runs=(entry,))
            (run,) = catalog.expand(corpus)
            if problem := worker.do(run):
                raise RuntimeError(problem)
            labelled = json.loads((folder / run.id / "rows.json").read_text())
            segments = sum(row["data_down"] for row in labelled)
            made = {
                what: 1000 * sum(row[f"{what}_down"] for row in labelled) / segments
                for what in ("lost_data", "overflow_data", "reordered_data", "duplicated", "corrupted")
            }
            rows[name] = {
                "segments": segments, "link": made,
                **{side: look(folder / run.id / f"{side}.pcap", segments) for side in ("client", "server")},
            }  # fmt: skip
            print(name, rows[name], file=sys.stderr)
            shutil.rmtree(folder / run.id)
    finally:
        worker.kill()
        shutil.rmtree(folder, ignore_errors=True)
    report({}, "per thousand segments", given.json, rows=rows, samples=SAMPLES, bytes=BYTES)


if __name__ == "__main__":
    main()
