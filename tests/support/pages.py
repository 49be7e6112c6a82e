"""The commands that a page tells its reader to type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCORED = re.compile(r"^connections .* of which ([\d,]+) scored$", re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of its console blocks that begin with a prompt."""
    lines = [line for block in CONSOLE.findall(page.read_text()) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


NOTHING = re.compile(r"\b0 scored\b")


def works(command: str, folder: Path) -> str:
    """What a command prints, run as a reader would, in a folder. AssertionError when it fails, or scores nothing."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert not NOTHING.search(done.stdout), f"{command} scores nothing:\n{done.stdout[-2000:]}"
    return done.stdout


def scored(command: str, folder: Path) -> int:
    """Connections that a `wiresonde score` scores, by its summary. AssertionError when it fails or has no summary."""
    found = SCORED.search(works(command, folder))
    assert found is not None, f"{command}: no summary"
    return int(found[1].replace(",", ""))
