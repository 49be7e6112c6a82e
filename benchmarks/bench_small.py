"""What alarms in corpora/small when a Kitsune has learned from corpora/normal?

    python -m benchmarks.bench_small --json docs/figures/bench_small.json

Does what docs/lab.md tells its reader to do, and counts alarms by kind of attack and, without one, by scenario.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from benchmarks.measure import report

CORPORA = Path(__file__).parents[1] / "corpora"
COLUMNS = ("score", "alarm", "final", "label.attack", "label.attack_kind", "label.scenario", "label.activity")


def wiresonde(*words: str | Path) -> dict[str, Any]:
    """The summary that a command prints as JSON; {} from a command that prints text."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *map(str, words)], stdout=subprocess.PIPE, check=True
    )
    return dict(json.loads(done.stdout)) if "--json" in words else {}


def area(benign: NDArray[np.float64], attacks: NDArray[np.float64]) -> float:
    """Share of the pairs of a benign connection and one of an attack in which the attack's has the greater score."""
    ranks = np.searchsorted(np.sort(benign), attacks, "left") + np.searchsorted(
        np.sort(benign), attacks, "right"
    )
    return float(ranks.mean() / 2 / benign.size)


def counted(scores: pa.Table) -> list[dict[str, Any]]:
    """One row for each kind of attack and each benign scenario."""
    rows = []
    for attack, column in (("0", "label.scenario"), ("1", "label.attack_kind")):
        part = scores.filter(pc.equal(scores.column("label.attack"), attack))
        for name in sorted(set(part.column(column).to_pylist())):
            own = part.filter(pc.equal(part.column(column), name))
            values = own.column("score").drop_null().to_numpy()
            rows.append({
                "attack": int(attack), "name": name, "connections": own.num_rows, "scored": values.size,
                "alarms": pc.sum(own.column("alarm")).as_py() or 0,
                "median": float(np.median(values)), "greatest": float(values.max()),
            })  # fmt: skip
    return rows


def alarmed(scores: pa.Table) -> dict[str, int]:
    """Alarms of each activity that has any."""
    alarms = Counter(scores.filter(scores.column("alarm")).column("label.activity").to_pylist())
    return dict(sorted(alarms.items()))


def main() -> None:
    """Train, score, count and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "normal.safetensors", Path(folder) / "out"
        wiresonde("train", "kitsune", CORPORA / "normal.pcap.zst", "-o", model)
        labels = CORPORA / "small.labels.parquet"
        summary = wiresonde(
            "score", CORPORA / "small.pcap.zst", "--labels", labels, "--model", model, "--out", out, "--json"
        )
        scores = pa.parquet.read_table(out / "scores.parquet", columns=list(COLUMNS))
    scores = scores.filter(scores.column("final"))
    by_attack = [
        scores.filter(pc.equal(scores.column("label.attack"), word)).column("score").drop_null().to_numpy()
        for word in ("0", "1")
    ]
    report(
        {}, "", given.json, threshold=summary["threshold"], scored=summary["scored"],
        connections=summary["connections"], area=area(*by_attack), rows=counted(scores),
        alarms=alarmed(scores),
    )  # fmt: skip


if __name__ == "__main__":
    main()
