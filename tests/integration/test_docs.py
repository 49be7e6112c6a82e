"""The pages say what is so: commands run, tables are what the code gives, links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import click
import pytest

from engine.cli import main
from engine.scoring.kinds import KINDS
from tests.support.pages import commands, works

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "demo" / "README.md",
]
# test_page.py in tests/integration/kafka, live and lab run their commands
ELSEWHERE = ("kafka.md", "capture.md", "lab.md")


def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.compiled
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if commands(p) and p.name not in ELSEWHERE],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_command_on_a_page_works(page: Path, tmp_path: Path) -> None:
    if page.name == "train-sequence.md":
        pytest.importorskip("torch", reason="the extra train is not installed")
    shutil.copytree(ROOT / "demo", tmp_path / "demo")
    (tmp_path / "corpora").symlink_to(ROOT / "corpora")
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    for command in commands(page):
        works(command, tmp_path)


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
            context = click.Context(command)
            for sub in command.list_commands(context):
                below = command.get_command(context, sub)
                assert below is not None
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
    assert "docs/models/README.md" in text


def test_every_kind_of_model_has_a_page_of_its_name_that_explains_its_section() -> None:
    for name, kind in KINDS.items():
        text = (ROOT / "docs" / "models" / f"{name}.md").read_text()
        for field in dataclasses.fields(kind.section):
            assert f"{field.name}" in text, f"docs/models/{name}.md: {field.name}"


def test_the_pictures_of_the_rooms_and_the_path_are_what_the_code_gives() -> None:
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "figures" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    for name, make in rooms.PICTURES.items():
        drawn = (ROOT / "docs" / "figures" / name).read_text()
        assert make() == drawn, f"docs/figures/{name} is stale: run python docs/figures/rooms.py"
