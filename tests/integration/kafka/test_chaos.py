"""No crash loses or doubles a row: one seed of tests/support/chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import chaos

pytestmark = [pytest.mark.kafka, pytest.mark.compiled, pytest.mark.chaos]


@pytest.mark.parametrize("seed", [1])
def test_a_group_that_is_broken_at_random_gives_the_rows_of_one_that_is_not(
    seed: int, tmp_path: Path
) -> None:
    report = chaos.run(seed, tmp_path, seconds=25.0)
    assert report.messages > 300
    assert report.resident < 600 << 20
    assert sum(report.events.values()) >= 8
