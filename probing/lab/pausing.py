"""Silence put between the halves of a recorded run, so that nobody has to wait for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probing.lab.errors import LabError

TIMES = ("in_ts", "due", "out_ts")  # times of a record of the link
AROUND_NS = 100_000  # time around the pause without any packet


def moment(rows: Sequence[dict[str, Any]], name: str) -> int:
    """A time at which no connection lasts, between two samples and as near as possible to the middle of them.

    Raises LabError when there is none: users overlap.
    """
    spans = sorted((row["start"], row["end"]) for row in rows)
    end = spans[0][1] if spans else 0
    gaps = []
    for k, (start, last) in enumerate(spans[1:], 1):
        if start - end > 2 * AROUND_NS:
            gaps.append((abs(2 * k - len(spans)), (start + end) // 2))
        end = max(end, last)
    if not gaps:
        raise LabError(
            f"run {name}: pause_s needs a moment without connections: no background, and two samples or more"
        )
    return int(min(gaps)[1])


def put(rows: Sequence[dict[str, Any]], records: NDArray[Any], at: int, pause_s: float) -> None:
    """Move everything behind a time by a pause, in place, and label rows with the pause before them."""
    ns = round(pause_s * 1e9)
    later = records["in_ts"] > at
    for name in TIMES:
        records[name] += np.where(later & (records[name] > 0), ns, 0)
    for row in rows:
        behind = row["start"] > at
        row["pause_s"] = pause_s if behind else 0.0
        for name in ("start", "end", "sample_start"):
            if row[name] > at:
                row[name] += ns
        marks = json.loads(row["phases"])
        row["phases"] = json.dumps(
            [[name, t + ns if t > at else t] for name, t in marks], separators=(",", ":")
        )
