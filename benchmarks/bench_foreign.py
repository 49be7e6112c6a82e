"""What do sequence bundles trained on the lab's SQL injections say of other people's traffic?

    python -m benchmarks.bench_foreign --json docs/figures/bench_foreign.json

Scores each capture of benchmarks/detection/sources.py with the committed bundles: attacks of all kinds (the bundles saw
only SQL injection) and benign controls. Every TCP connection with a score counts. Needs WIRESONDE_CAPTURES.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.sources import ATTACKS, CONTROLS, ROOT, VALIDATION, Source, missing, packets_of
from benchmarks.measure import report
from engine.commands.models import chosen_models
from engine.config import Config
from engine.connections.bounds import TrackerConfig
from engine.scoring.building import build_detector
from engine.types import PacketBlock, take

BUNDLES = {name: ROOT / "bundles" / f"sqli-{name}.safetensors" for name in ("stream", "keep")}
BLOCK = 16_384  # packets


def scored(source: Source) -> dict[str, dict[str, Any]]:
    """Counts of a capture's connections by model: with a score, above the threshold, and quantiles of the score."""
    models = [f"{name}={path}" for name, path in BUNDLES.items()]
    detector = build_detector(0, TrackerConfig(), chosen_models(Config(), models))
    p = packets_of(source)
    batches = []
    for begin in range(0, p.ts.size, BLOCK):
        part = take(p, slice(begin, begin + BLOCK))
        batches += detector.process(PacketBlock("bench", 1, begin, part, int(part.ts.max())))
    batches += detector.flush()
    out = {}
    for name in BUNDLES:
        rows = np.concatenate([b.scores[b.scores["final"]] for b in batches if b.model == name])
        score = rows["score"][~np.isnan(rows["score"])]
        out[name] = {
            "connections": int(score.size), "without score": int(rows.size - score.size),
            "alarms": int(rows["alarm"].sum()), "median": float(np.median(score)) if score.size else None,
            "greatest": float(score.max()) if score.size else None,
        }  # fmt: skip
    return out


def sources() -> Iterator[Source]:
    """All sources, those with SQL injection first."""
    yield from sorted((*VALIDATION, *ATTACKS), key=lambda s: (s.kind != "web", s.kind))
    yield from CONTROLS


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if lacks := missing(*(s.file for s in sources())):
        parser.error(lacks)
    rows = [{"name": s.name, "kind": s.kind, **scored(s)} for s in sources()]
    report({}, "", given.json, rows=rows)


if __name__ == "__main__":
    main()
