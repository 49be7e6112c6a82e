"""Captures that are not part of the project, and what other tools say of them.

They lie where the environment variable WIRESONDE_CAPTURES points, else in ../shared/captures beside the
checkout; tests that need them are skipped where they are not.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

CAPTURES = Path(
    os.environ.get("WIRESONDE_CAPTURES", Path(__file__).resolve().parents[3] / "shared" / "captures")
)

needs_captures = pytest.mark.skipif(
    not (CAPTURES / "manifest.tsv").is_file(),
    reason=f"no captures in {CAPTURES} (set WIRESONDE_CAPTURES)",
)


def tshark_counters() -> dict[str, dict[str, str]]:
    """File -> tshark's counters, of the files that are there."""
    path = CAPTURES / "truth" / "tshark_per_file.tsv"
    if not path.is_file():
        return {}
    with path.open(newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["file"]: row for row in rows if (CAPTURES / row["file"]).is_file()}


def capture_files(*folders: str) -> list[Path]:
    """The captures of these folders that the manifest names and that are there, in its order."""
    path = CAPTURES / "manifest.tsv"
    if not path.is_file():
        return []
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = [CAPTURES / r["file"] for r in rows if r["packets"] and r["file"].split("/")[0] in folders]
    return [file for file in wanted if file.is_file()]
