"""The commands on the page about the lab work."""

from __future__ import annotations

from pathlib import Path

import pytest

from probing.lab.check import programs
from tests.integration.kafka.site import ROOT
from tests.support.lab import needs, needs_default_link
from tests.support.pages import commands, scored, works

pytestmark = [pytest.mark.lab, pytest.mark.compiled]


def test_every_command_on_the_page_works_and_those_that_score_give_scores(tmp_path: Path) -> None:
    needs(*programs(["http", "dns"]))
    needs_default_link()
    (tmp_path / "corpora").symlink_to(ROOT / "corpora")
    page = ROOT / "docs" / "lab.md"
    known = commands(page)
    assert len(known) >= 7
    text = page.read_text()
    for command in known:
        if command.endswith("<<'END'"):  # with the lines that follow on the page
            rest = text.split(command + "\n", 1)[1].split("\nEND\n", 1)[0]
            command = f"{command}\n{rest}\nEND"
        if command.startswith("wiresonde score "):
            assert scored(command, tmp_path) > 0, f"{command}: nothing is scored"
        else:
            works(command, tmp_path)
    assert sum(command.startswith("wiresonde score ") for command in known) >= 2
    assert (tmp_path / "traffic" / "mine.server.pcap.zst").exists()
