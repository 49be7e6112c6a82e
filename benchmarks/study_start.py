"""How many false alarms does a bundle give when it scores alone what came after its training?

    python -m benchmarks.study_start --json docs/figures/study_start.json

For splits of benign captures and several seeds, a model learns from the first packets and scores the rest: with the
streams going on (``continued``, the reference), from empty streams (``empty``, as before there was a warm-up), after
the default warm-up, and with streams that its bundle carries, a gap after them or none. All go through the classes that
``score`` uses. The share of connections that alarm is to be at most twice the one asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kitsune_runs import Run, alarmed, connections_of, interval, learn, packets_of
from benchmarks.measure import report
from benchmarks.study_interarrival import MIRAI, NORMAL
from engine.connections.tracker import Tracked, Tracker
from engine.features.afterimage import AfterImageConfig
from engine.features.carried import last_of
from engine.scoring.passes import AfterImagePass, Carried
from engine.scoring.start import StartConfig
from engine.types import Floats, Packets, take

RATE = 0.001  # false-positive rate asked for
SEEDS = (31, 32, 33, 34, 35, 36)
SPLITS = (
    *(Run("mirai", MIRAI, n) for n in (8_000, 9_000, 10_000, 11_000, 12_000, 13_000, 14_000, 15_000)),
    *(Run("normal", NORMAL, n) for n in (42_000, 45_000, 48_000)),
)
GAPS = {"carried": 0, "carried, 20 s later": 20, "carried, 60 s later": 60, "carried, 120 s later": 120}


def features(one: AfterImagePass, p: Packets) -> Floats:
    """Features of packets in one block."""
    tracked: Tracked = next(iter(Tracker().track(take(p, slice(1)))))
    return one.update(p, tracked).copy()


def ways(before: AfterImagePass, rest: Packets) -> Iterator[tuple[str, Floats, int]]:
    """Name, features of the rest, and row of the first packet scored, for each way to start."""
    none, default = StartConfig(warmup_packets=0), StartConfig()
    arrays = before.carry(default.carry_flows)
    empty = AfterImagePass(AfterImageConfig())
    x = features(empty, rest)
    yield "empty", x, empty.ready(none)
    yield "warm-up", x, empty.ready(default)
    for name, gap in GAPS.items():
        later = rest._replace(ts=rest.ts - rest.ts[0] + last_of(arrays) + int(gap * 1e9))
        one = AfterImagePass(AfterImageConfig(), Carried(arrays, default.max_gap))
        x = features(one, later)
        yield name if one.origin == "carried" else f"{name}: {one.origin}", x, one.ready(default)
    yield "continued", features(before, rest), 0


def runs(given: Run) -> Iterator[dict[str, Any]]:
    """One row for each way and seed."""
    p = packets_of(given.path, given.begin, given.end)
    n, ids = given.learned, connections_of(p)
    before = AfterImagePass(AfterImageConfig())
    x = features(before, take(p, slice(n)))
    models = {seed: learn(x, ids[:n], seed, RATE) for seed in SEEDS}
    for name, rest, first in ways(before, take(p, slice(n, None))):
        for seed, model in models.items():
            found, all_of = alarmed(model, rest[first:], ids[n + first :])
            yield {
                "capture": given.name, "learned": n, "way": name, "seed": seed, "alarmed": found,
                "connections": all_of, "first": first, "calibrated": model.threshold.n,
            }  # fmt: skip


def rate(rows: list[dict[str, Any]]) -> float:
    """Share of connections that alarm."""
    return float(sum(r["alarmed"] for r in rows) / sum(r["connections"] for r in rows))


def rate_of(rows: list[dict[str, Any]]) -> Callable[[Floats], float]:
    """The rate of a choice of rows, given by their indices."""
    return lambda at: rate([rows[int(k)] for k in at])


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [row for run in SPLITS if run.path.exists() for row in runs(run)]
    out = []
    for key in dict.fromkeys((r["capture"], r["way"]) for r in rows):
        own = [r for r in rows if (r["capture"], r["way"]) == key]
        out.append({
            "capture": key[0], "way": key[1], "rate": rate(own), "runs": len(own),
            "interval": interval(list(range(len(own))), rate_of(own)),
            "worst": max(rate([r]) for r in own),
            "over_twice": int(np.sum([r["alarmed"] > 2 * RATE * r["connections"] for r in own])),
        })  # fmt: skip
        print(out[-1], file=sys.stderr)
    if given.json:
        report({}, "", given.json, asked=RATE, ways=out, rows=rows)


if __name__ == "__main__":
    main()
