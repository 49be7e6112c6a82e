"""The commands on the page about Kafka work, against a broker at whatever address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.kafka.site import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_every_command_on_the_page_works(tmp_path: Path) -> None:
    from tests import broker as brokers

    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    text = (ROOT / "docs" / "kafka.md").read_text()
    commands = [
        line.removeprefix("$ ")
        for block in CONSOLE.findall(text)
        for line in block.splitlines()
        if line[:2] == "$ "
    ]
    assert len(commands) >= 5
    with brokers.running(tmp_path / "broker") as broker:
        for command in commands:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command.replace("127.0.0.1:9092", broker.address)],
                cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
