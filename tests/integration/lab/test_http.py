"""HTTP scenarios of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import perform

pytestmark = pytest.mark.lab


def test_labels_agree_with_the_capture(tmp_path: Path) -> None:
    (done,) = perform(tmp_path, {"scenario": "http", "samples": 8, "users": 2, "link": {"delay_ms": 5}, "server": "nginx", "client": "curl", "activity": "get"})
    joined = done.joined()
    assert len(joined) == 8
    for row, connection in joined:
        assert connection["conn_state"] == "SF"
        assert row["handshake_ms"] == pytest.approx(10, abs=1)
    assert done.account["strays"] == 0
    assert done.account["failed_samples"] == 0
