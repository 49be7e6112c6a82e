"""The commands on the page about capturing work, in a namespace whose interface is called as on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.kafka.site import ROOT
from tests.support import broker as brokers
from tests.support.netns import wire
from tests.support.pages import commands, works

pytestmark = [pytest.mark.kafka, pytest.mark.compiled, pytest.mark.live]


def test_every_command_on_the_page_works(tmp_path: Path) -> None:
    known = commands(ROOT / "docs" / "capture.md")
    assert len(known) >= 4

    def work() -> None:
        with brokers.running(tmp_path / "broker") as broker:
            for command in known:
                works(command.replace("127.0.0.1:9092", broker.address), tmp_path)

    with wire(receiver="eth1") as line:
        line.inside(work)
    assert len((tmp_path / "address.key").read_text().strip()) == 64
