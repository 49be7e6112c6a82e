"""A wire in a namespace of its own for the tests of a module, and captures to send through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Wire, wire


@pytest.fixture
def line() -> Iterator[Wire]:
    """A fresh wire."""
    with wire() as made:
        yield made


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo capture as plain pcap: tcpreplay sends what was captured of each frame, so wire sizes are those."""
    from connectors.files.pcap import CaptureFile
    from tests.integration.kafka.site import DEMO
    from tests.support.capture_bytes import pcap

    records = []
    with CaptureFile(DEMO) as capture:
        for frames in capture:
            for start, size, ts in zip(frames.start.tolist(), frames.captured.tolist(), frames.ts.tolist()):
                frame = frames.buffer[start : start + size].tobytes()
                records.append((ts // 1000, frame, len(frame)))
    path = tmp_path_factory.mktemp("mixed") / "mixed.pcap"
    path.write_bytes(pcap(records))
    return path
