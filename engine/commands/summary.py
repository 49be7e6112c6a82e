"""A run's summary for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from engine.commands.score import Summary
from engine.labels.file import NO_PROBES, Probes
from engine.scoring.columns import label_names

if TYPE_CHECKING:  # at run time it would bring Kafka along
    from engine.commands.detect import DetectReport

MOST_LABELS = 3  # shown beside a connection


def shown_labels(slices: Sequence[str], probes: Probes = NO_PROBES) -> list[str]:
    """The labels worth a column: those that the configuration made slices, else the first few."""
    names = label_names(probes)
    return [name for name in slices if name in names] or names[:MOST_LABELS]


def print_summary(summary: Summary, labels: Sequence[str] = (), console: Console | None = None) -> None:
    """Print to stdout: what was read, lost and found, and the most anomalous connections with some labels."""
    console = console or Console(highlight=False)
    with console.capture() as captured:
        for name, value in _facts(summary):
            console.print(f"[bold]{name:<12}[/] {escape(value)}", soft_wrap=True)
        if summary.top:
            table = _top(summary, labels)
            whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
            console.width = max(console.width, whole)  # a terminal that is too narrow wraps, nothing is cut
            console.print(table)
    click.echo(captured.get(), nl=False)


def print_report(report: DetectReport, slices: Sequence[str], as_json: bool) -> None:
    """Print what a detector on Kafka did."""
    if as_json:
        click.echo(json.dumps(asdict(report), default=str))
        return
    summary = Summary(
        packets=report.packets, connections=report.connections, scored=report.scored, alarms=report.alarms,
        seconds=report.seconds, losses={k: n for k, n in report.counters.items() if n}, top=report.top,
        threshold=report.top[0]["threshold"] if report.top else None,
    )  # fmt: skip
    held = ", ".join(f"{p} up to {offset}" for p, offset in report.partitions.items()) or "none"
    summary.notes.append(f"partitions held at the end: {held}")
    names = [
        k.removeprefix("label.") for k in (report.top[0] if report.top else {}) if k.startswith("label.")
    ]
    print_summary(summary, [n for n in slices if n in names] or names[:MOST_LABELS])


def _facts(summary: Summary) -> list[tuple[str, str]]:
    rate = summary.packets / summary.seconds if summary.seconds > 0 else 0.0
    bound = "none yet" if summary.threshold is None else f"above {summary.threshold:.4f}"
    least = summary.least_threshold
    if summary.threshold is not None and least is not None and least < summary.threshold:
        bound = f"above {least:.4f} to {summary.threshold:.4f}, by partition"
    losses = ", ".join(f"{name} {n:,}" for name, n in summary.losses.items()) or "none"
    facts = [
        ("packets", f"{summary.packets:,} in {summary.seconds:.2f} s ({rate:,.0f} a second)"),
        ("connections", f"{summary.connections:,}, of which {summary.scored:,} scored"),
        ("threshold", bound) if summary.trained else ("alarms", f"{summary.alarms:,} connections ({bound})"),
        ("losses", losses),
    ]
    if summary.interrupted:
        facts.append(("interrupted", "the captures were not read to their end"))
    facts += [("note", note) for note in summary.notes]
    return facts + [("written", file) for file in summary.files]


def _top(summary: Summary, shown: Sequence[str]) -> Table:
    table = Table(title="Most anomalous connections", title_justify="left", title_style="bold", box=None)
    add_connection_columns(table)
    for name in shown:
        table.add_column(name, no_wrap=True)
    table.add_column("community id", no_wrap=True)
    for row in summary.top:
        cells = [
            *connection_cells(row),
            *(escape(_printable(row[f"label.{name}"] or "")) for name in shown),
            row["community_id"],
        ]
        table.add_row(*cells)
    return table


def add_connection_columns(table: Table) -> None:
    """The columns that ``connection_cells`` fills."""
    for name in ("", "score", "originator", "responder", "proto", "state", "packets"):
        table.add_column(name, justify="right" if name in ("score", "packets") else "left", no_wrap=True)


def connection_cells(row: dict[str, Any]) -> list[str]:
    """What a connection's row says first, in rich's markup."""
    return [
        "[red]ALARM[/]" if row["alarm"] else "",
        f"{row['score']:.4f}",
        _endpoint(row["id.orig_h"], row["id.orig_p"]),
        _endpoint(row["id.resp_h"], row["id.resp_p"]),
        row["proto"],
        row["conn_state"],
        str(row["orig_pkts"] + row["resp_pkts"]),
    ]


def _printable(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _endpoint(host: str, port: int) -> str:
    return escape(f"[{host}]:{port}") if ":" in host else f"{host}:{port}"
