"""Commands called in this process, what they refuse, and lines that read a capture and write somewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.cli import main

N = 3000  # packets of the piece of the demo capture that most tests of commands read

Line = Callable[[Path, Path], tuple[object, ...]]  # arguments for a capture and a directory of outputs
READERS = [
    pytest.param(lambda c, o: ("packets", c, "-o", o / "f"), id="packets"),
    pytest.param(lambda c, o: ("connections", c, "--format", "parquet", "-o", o / "f"), id="connections"),
    pytest.param(lambda c, o: ("score", c, "--out", o / "d"), id="score"),
    pytest.param(lambda c, o: ("train", "kitsune", c, "-o", o / "f"), id="train"),
]  # fmt: skip


def called(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, code: int, said: str) -> None:
    """A command that ended with one line on stderr, nothing on stdout and this exit code."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("wiresonde: ")
    assert said in lines[0]


def misused(result: Result, said: str) -> None:
    """A command that click refused: one line that names the help, exit code 2."""
    refused(result, 2, said)
    assert "--help" in result.stderr


def summary(*arguments: object, code: int = 0) -> dict[str, object]:
    result = called("score", *arguments, "--json")
    assert result.exit_code == code, result.stderr
    values: dict[str, object] = json.loads(result.stdout, parse_constant=pytest.fail)
    return values
