"""Totals of the lab's corpora, from their manifests.

python -m benchmarks.lab_corpora out/small.manifest.json … --json docs/figures/lab_corpora.json

Corpora that the file has already stay in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

KEPT = ("connections", "families", "seconds", "jobs", "machine", "command", "wiresonde", "made")


def main() -> None:
    """Summarise and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if given.json.exists():
        found = json.loads(given.json.read_text())["corpora"]
    for path in given.manifests:
        manifest = json.loads(path.read_text())
        packets = next(iter(manifest["captures"].values()))["packets"]
        found[manifest["name"]] = {
            **{name: manifest[name] for name in KEPT}, "runs": len(manifest["runs"]), "packets": packets,
        }  # fmt: skip
    given.json.write_text(json.dumps({"corpora": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
