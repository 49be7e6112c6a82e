"""Pauses put between the halves of a recorded run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from probing.lab import pausing
from probing.lab.errors import LabError
from probing.lab.link.tables import RECORD

MS = 1_000_000


def rows(*spans: tuple[int, int]) -> list[dict[str, Any]]:
    """Label rows of connections that last from one millisecond to another."""
    return [
        {"start": a * MS, "end": b * MS, "sample_start": a * MS,
         "phases": json.dumps([["request", (a + 1) * MS]])} for a, b in spans
    ]  # fmt: skip


def test_the_moment_is_between_the_samples_in_the_middle() -> None:
    given = rows((0, 10), (20, 30), (40, 50), (60, 70), (80, 90))
    assert 30 * MS < pausing.moment(given, "r") < 40 * MS
    del given[4]
    assert 30 * MS < pausing.moment(given, "r") < 40 * MS


def test_the_moment_is_outside_of_every_connection_however_they_nest() -> None:
    given = rows((0, 55), (5, 10), (20, 30), (40, 50), (60, 70), (65, 66))
    assert 55 * MS < pausing.moment(given, "r") < 60 * MS
    with pytest.raises(LabError, match="run r: pause_s needs a moment without connections"):
        pausing.moment(rows((0, 90), (10, 20), (30, 100)), "r")


def test_what_comes_later_is_moved_and_nothing_else() -> None:
    given, records = rows((0, 10), (20, 30)), np.zeros(3, RECORD)
    records["in_ts"] = [1 * MS, 21 * MS, 22 * MS]
    records["due"] = records["out_ts"] = [2 * MS, 23 * MS, 0]
    pausing.put(given, records, 15 * MS, 60.0)
    hour = 60_000
    assert [(r["start"] // MS, r["end"] // MS, r["sample_start"] // MS, r["pause_s"]) for r in given] == [
        (0, 10, 0, 0.0), (20 + hour, 30 + hour, 20 + hour, 60.0),
    ]  # fmt: skip
    assert [json.loads(r["phases"])[0][1] // MS for r in given] == [1, 21 + hour]
    assert (records["in_ts"] // MS).tolist() == [1, 21 + hour, 22 + hour]
    assert (records["out_ts"] // MS).tolist() == [2, 23 + hour, 0]  # 0: not delivered
