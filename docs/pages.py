"""Writes the parts of the pages that follow from the code: metrics, configuration, command line.

    python docs/pages.py

Each stands between ``<!-- table NAME -->`` and ``<!-- end -->``; a test compares them with what this gives.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import click
import pyarrow as pa
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.cli import main as cli
from engine.config import Config, show
from engine.connections.columns import CONNECTION_COLUMNS, Column
from engine.metrics import Metrics, SensorMetrics
from engine.scoring.columns import OWN_COLUMNS
from engine.scoring.kinds import KINDS
from engine.scoring.trace import TRACE_COLUMNS
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


def columns_table(columns: Sequence[Column]) -> str:
    """One row a column."""
    rows = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    rows += [f"| `{c.name}` | {c.type} | {c.unit} | {c.about} |" for c in columns]
    return "\n".join(rows)


def trace_table() -> str:
    """One row a column of a trace."""
    score = Column(
        "score.MODEL", pa.float64(), "", "score of the packet, for each model; null when it has none"
    )
    return columns_table([*TRACE_COLUMNS, score])


def scores_table() -> str:
    """One row a column that scores have beside a connection's."""
    label = Column("label.NAME", pa.string(), "", "probe labels, a column each")
    return columns_table([*OWN_COLUMNS, label])


def connections_table() -> str:
    """One row a column of connection records; columns of both sides in one."""
    shown, sides = [], {c.name for c in CONNECTION_COLUMNS}
    for c in CONNECTION_COLUMNS:
        other = c.name.replace("resp_", "orig_", 1)
        if c.name.startswith("resp_") and other in sides and _same(other, c):
            continue
        both = c.name.replace("orig_", "resp_", 1)
        name = f"{c.name}`, `{both}" if both != c.name and both in sides and _same(both, c) else c.name
        shown.append(c._replace(name=name))
    return columns_table(shown)


def _same(name: str, column: Column) -> bool:
    return next(c for c in CONNECTION_COLUMNS if c.name == name).about == column.about


def section_table(kind: type[Any]) -> str:
    """One row a value of a kind's section."""
    rows = ["| value | default | meaning |", "|---|---|---|"]

    def walk(section: Any, prefix: str) -> None:
        comments = _comments(type(section))
        for f in fields(section):
            value = getattr(section, f.name)
            if is_dataclass(value):
                walk(value, f"{prefix}{f.name}.")
            else:
                rows.append(f"| `{prefix}{f.name}` | {value} | {comments.get(f.name, '')} |")

    walk(kind(), "")
    return "\n".join(rows)


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("models/README.md", "trace"): trace_table,
    ("score.md", "scores"): scores_table,
    ("connections.md", "connections"): connections_table,
    **{
        (f"models/{name}.md", "section"): partial(section_table, kind.section) for name, kind in KINDS.items()
    },
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
