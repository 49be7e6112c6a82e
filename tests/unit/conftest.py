"""Captures and a bundle for tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.calls import N, called
from tests.support.demo import piece


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return piece(tmp_path_factory.mktemp("captures") / "piece.pcap", N)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the last record cut."""
    path = piece(tmp_path_factory.mktemp("captures") / "damaged.pcap", N)
    path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.fixture(scope="module")
def trained(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "kitsune.bundle"
    assert called("train", "kitsune", capture, "-o", out).exit_code == 0
    return out
