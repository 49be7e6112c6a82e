"""The commands on the page about capturing work, in a namespace whose interface is called as on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import broker as brokers
from tests.integration.kafka.site import ROOT
from tests.netns import wire

pytestmark = [pytest.mark.kafka, pytest.mark.compiled, pytest.mark.live]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_every_command_on_the_page_works(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    text = (ROOT / "docs" / "capture.md").read_text()
    lines = [line for block in CONSOLE.findall(text) for line in block.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line[:2] == "$ "]
    assert len(commands) >= 4

    def work() -> None:
        with brokers.running(tmp_path / "broker") as broker:
            for command in commands:
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", command.replace("127.0.0.1:9092", broker.address)],
                    cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240,
                    check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    with wire(receiver="eth1") as line:
        line.inside(work)
    assert len((tmp_path / "address.key").read_text().strip()) == 64
