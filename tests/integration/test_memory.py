"""Live connections fit into the memory that the documentation names, and a scan does not make it grow.

A fifth of what benchmarks/bench_memory.py measures.
"""

from __future__ import annotations

import pytest

from tests.support.memory import measured_apart

pytestmark = pytest.mark.compiled

LIVE, SCANNED = 200_000, 400_000


def test_live_connections_take_a_bounded_number_of_bytes_each_and_a_scan_takes_no_more() -> None:
    taken = measured_apart(LIVE, SCANNED)
    assert (taken.live, taken.opened) == (LIVE, LIVE + SCANNED)
    assert 500 < taken.filled / LIVE < 1600
    assert taken.most - taken.filled < 0.05 * taken.filled
