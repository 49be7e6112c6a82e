"""The pages say what is so: commands run, tables are what the code gives, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from engine.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "demo" / "README.md",
]
# tests/integration/kafka/test_page.py and tests/integration/live/test_page.py run their commands
ELSEWHERE = ("kafka.md", "capture.md")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(page: Path) -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in CONSOLE.findall(page.read_text())
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.compiled
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if commands(p) and p.name not in ELSEWHERE],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_command_on_a_page_works(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands(page):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_generated_parts_are_what_the_code_gives() -> None:
    module = pages()
    for (page, name), make in module.PARTS.items():
        text = (ROOT / "docs" / page).read_text()
        assert module.filled(text, name, make()) == text, f"docs/{page} is stale: run python docs/pages.py"


def test_every_key_of_the_configuration_is_explained() -> None:
    rows = [line.split("|")[1:3] for line in pages().config_table().splitlines()]
    assert len(rows) > 50
    assert [key for key, meaning in rows if not meaning.strip()] == []


def test_every_command_has_help_and_stands_on_the_command_line_page() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()

    def walk(command: click.Command, name: str) -> None:
        assert command.help, name
        assert f"## {name}\n" in text
        if isinstance(command, click.Group):
            for sub, below in command.commands.items():
                walk(below, f"{name} {sub}")

    walk(main, "wiresonde")


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name
