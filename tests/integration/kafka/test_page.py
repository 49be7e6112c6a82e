"""The commands on the page about Kafka work, against a broker at whatever address."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.kafka.site import ROOT
from tests.support.pages import commands, works

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]


def test_every_command_on_the_page_works(tmp_path: Path) -> None:
    from tests.support import broker as brokers

    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    known = commands(ROOT / "docs" / "kafka.md")
    assert len(known) >= 5
    with brokers.running(tmp_path / "broker") as broker:
        for command in known:
            works(command.replace("127.0.0.1:9092", broker.address), tmp_path)
