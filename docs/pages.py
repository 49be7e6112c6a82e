"""Writes the parts of the pages that follow from the code: metrics, configuration, command line.

    python docs/pages.py

Each stands between ``<!-- table NAME -->`` and ``<!-- end -->``; a test compares them with what this gives.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import click
import pyarrow as pa
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.cli import main as cli
from engine.config import Config, show
from engine.metrics import Metrics, SensorMetrics
from probing.lab import catalog
from probing.lab.labels import COLUMNS

HERE = Path(__file__).parent


def metrics_table() -> str:
    """One row a metric."""
    rows = []
    for series in (*Metrics(("SLICE",)).series, *SensorMetrics().series):
        name = series.name + ("_total" if series.kind == "counter" else "")
        labels = ", ".join("*slices*" if label == "SLICE" else f"`{label}`" for label in series.labels)
        rows.append(f"| `{name}` | {series.kind} | {labels} | {series.help} |")
    return "\n".join(rows)


def config_block() -> str:
    """All keys with their defaults."""
    return f"```yaml\n{show(Config())}```"


def config_table() -> str:
    """What each key means: descriptions of the sections, comments of the dataclasses of kernels and models."""
    rows = []

    def walk(kind: Any, prefix: str) -> None:
        if is_dataclass(kind):
            comments, hints = _comments(kind), get_type_hints(kind)
            for f in fields(kind):
                if is_dataclass(hints[f.name]):
                    walk(hints[f.name], f"{prefix}{f.name}.")
                else:
                    rows.append(f"| `{prefix}{f.name}` | {comments.get(f.name, '')} |")
            return
        for name, info in kind.model_fields.items():
            below = info.annotation
            if isinstance(below, type) and (is_dataclass(below) or issubclass(below, BaseModel)):
                walk(below, f"{prefix}{name}.")
            else:
                rows.append(f"| `{prefix}{name}` | {info.description or ''} |")

    walk(Config, "")
    return "\n".join(rows)


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field in a dataclass' source."""
    source = inspect.getsource(kind)
    return {m[1]: m[2] for m in re.finditer(r"^    (\w+): [^#\n]*#\s*(.*)$", source, re.MULTILINE)}


def cli_blocks() -> str:
    """The help of every command."""
    blocks = []

    def walk(command: click.Command, name: str) -> None:
        names = cli.context_settings["help_option_names"]
        context = click.Context(
            command, info_name=name, max_content_width=100, terminal_width=100, help_option_names=names
        )
        blocks.append(f"## {name}\n\n```\n{command.get_help(context)}\n```")
        if isinstance(command, click.Group):
            for sub in command.list_commands(context):
                below = command.get_command(context, sub)
                assert below is not None
                walk(below, f"{name} {sub}")

    walk(cli, "wiresonde")
    return "\n\n".join(blocks)


def labels_table() -> str:
    """One row a column of the lab's label files."""
    kinds = {pa.string(): "text", pa.bool_(): "true, false"}
    rows = ["| column | kind | unit or values | meaning |", "|---|---|---|---|"]
    for c in COLUMNS:
        values = ", ".join(f"`{v}`" for v in c.values) or c.unit or kinds.get(c.type, "number")
        rows.append(f"| `{c.name}` | {c.kind} | {values} | {c.about} |")
    return "\n".join(rows)


def scenarios_table() -> str:
    """One row an activity of the lab."""
    rows = []
    for name, given in catalog.scenarios().items():
        rows += [f"### {name}", "", " ".join(given.about.split()), "",
                 f"Servers: {', '.join(given.servers)}. Clients: {', '.join(given.clients)}.", "",
                 "| activity | what is done | clients | endings |", "|---|---|---|---|"]  # fmt: skip
        for activity, does in given.activities.items():
            attack = f" (attack: {does.attack_kind})" if does.attack else ""
            clients = "" if set(does.clients) in (set(), set(given.clients)) else ", ".join(does.clients)
            about, ends = " ".join(does.about.split()), ", ".join(does.terminations)
            rows.append(f"| `{activity}`{attack} | {about} | {clients} | {ends} |")
        rows.append("")
    return "\n".join(rows[:-1])


PARTS = {
    ("metrics.md", "metrics"): metrics_table,
    ("configure.md", "config"): config_block,
    ("configure.md", "keys"): config_table,
    ("cli.md", "cli"): cli_blocks,
    ("lab.md", "scenarios"): scenarios_table,
    ("lab-labels.md", "labels"): labels_table,
}


def filled(text: str, name: str, content: str) -> str:
    """The page with the part put in. ValueError when it has no place for it."""
    pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no <!-- table {name} --> … <!-- end -->")
    return pattern.sub(lambda m: f"{m[1]}{content}\n{m[2]}", text)


def main() -> None:
    """Fill all parts in."""
    for (page, name), make in PARTS.items():
        path = HERE / page
        path.write_text(filled(path.read_text(), name, make()))


if __name__ == "__main__":
    main()
