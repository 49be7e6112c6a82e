"""Functions fit a screen and take few arguments; the engine has the modules that the architecture draws."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "connectors", "models", "probing", "benchmarks")
COMPILED = re.compile(r"\b(kernel|allocating|inlined|njit|intrinsic|overload)\b")
CLICK = re.compile(r"\.command\(|\.group\(|click\.(command|group|option|argument)\(")
MOST_LINES, MOST_ARGUMENTS, MEDIAN_LINES = 60, 6, 8


class Function(NamedTuple):
    """A function and how large it is."""

    where: str
    lines: int  # of its body, docstring left out
    arguments: int  # self left out
    compiled: bool
    clicked: bool  # a command, whose arguments are its options


def functions() -> Iterator[Function]:
    """All functions of the product."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield measured(node, path)


def measured(node: ast.FunctionDef | ast.AsyncFunctionDef, path: Path) -> Function:
    """One of them."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
    a = node.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    count = (
        len([name for name in names if name not in ("self", "cls")])
        + (a.vararg is not None)
        + (a.kwarg is not None)
    )
    decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
    where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
    return Function(where, lines, count, bool(COMPILED.search(decorators)), bool(CLICK.search(decorators)))


FUNCTIONS = list(functions())


def test_no_function_but_a_kernel_is_longer_than_sixty_lines() -> None:
    long = [f"{f.where}: {f.lines} lines" for f in FUNCTIONS if f.lines > MOST_LINES and not f.compiled]
    assert long == []


def test_no_function_but_a_kernel_or_a_command_takes_more_than_six_arguments() -> None:
    many = [
        f"{f.where}: {f.arguments} arguments"
        for f in FUNCTIONS
        if f.arguments > MOST_ARGUMENTS and not (f.compiled or f.clicked)
    ]
    assert many == []


def test_half_of_all_functions_are_at_most_eight_lines() -> None:
    assert len(FUNCTIONS) > 1000
    assert statistics.median(f.lines for f in FUNCTIONS) <= MEDIAN_LINES


def test_kernels_and_commands_are_told_from_other_functions() -> None:
    assert sum(f.compiled for f in FUNCTIONS) > 80
    assert sum(f.clicked for f in FUNCTIONS) > 15


def test_no_loose_module_stands_beside_the_rooms() -> None:
    here = {path.stem for path in (ROOT / "engine").glob("*.py")} - {"__init__"}
    drawn = {
        "cli", "config", "metrics", "wire", "partition", "clock", "types", "notation", "hashing", "kernels", "errors",
    }  # fmt: skip
    assert here == drawn


def test_unit_tests_mirror_the_rooms() -> None:
    """A folder of unit tests is named as the room it is of."""
    unit = ROOT / "tests" / "unit"
    for folder in unit.rglob("*"):
        if folder.is_dir() and folder.name != "__pycache__":
            assert (ROOT / folder.relative_to(unit)).is_dir(), folder
    for room in (ROOT / "engine").iterdir():
        if (room / "__init__.py").exists():
            assert list((unit / "engine" / room.name).glob("test_*.py")), room.name
