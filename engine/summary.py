"""A run's summary as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from engine.app import Summary
from engine.labels import Probes
from engine.scores import label_names


def print_summary(summary: Summary, probes: Probes, console: Console | None = None) -> None:
    """Print to stdout: what was read, lost and found, and the most anomalous connections."""
    console = console or Console()
    rate = summary.packets / summary.seconds if summary.seconds > 0 else 0.0
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("packets", f"{summary.packets:,} in {summary.seconds:.2f} s ({rate:,.0f} a second)")
    facts.add_row("connections", f"{summary.connections:,}, of which {summary.scored:,} scored")
    bound = "none yet" if summary.threshold is None else f"above {summary.threshold:.4f}"
    facts.add_row("alarms", f"{summary.alarms:,} connections ({bound})")
    facts.add_row("losses", ", ".join(f"{name} {n:,}" for name, n in summary.losses.items()) or "none")
    if summary.interrupted:
        facts.add_row("interrupted", "the captures were not read to their end")
    for note in summary.notes:
        facts.add_row("note", escape(note))
    for file in summary.files:
        facts.add_row("written", escape(file))
    console.print(facts, soft_wrap=True)
    if summary.top:
        table = _top(summary, label_names(probes))
        whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        console.width = max(console.width, whole)  # a terminal that is too narrow wraps, nothing is cut
        console.print(table)


def _top(summary: Summary, labels: Sequence[str]) -> Table:
    table = Table(title="Most anomalous connections", title_justify="left", title_style="bold", box=None)
    shown = [name for name in ("task", "activity", "attack") if name in labels]
    for name in ("", "score", "originator", "responder", "proto", "state", "packets"):
        table.add_column(name, justify="right" if name in ("score", "packets") else "left", no_wrap=True)
    for name in shown:
        table.add_column(name, no_wrap=True)
    table.add_column("community id", no_wrap=True)
    for row in summary.top:
        cells = [
            "[red]ALARM[/]" if row["alarm"] else "",
            f"{row['score']:.4f}",
            _endpoint(row["id.orig_h"], row["id.orig_p"]),
            _endpoint(row["id.resp_h"], row["id.resp_p"]),
            row["proto"],
            row["conn_state"],
            str(row["orig_pkts"] + row["resp_pkts"]),
            *(escape(row[f"label.{name}"] or "") for name in shown),
            row["community_id"],
        ]
        table.add_row(*cells)
    return table


def _endpoint(host: str, port: int) -> str:
    return escape(f"[{host}]:{port}") if ":" in host else f"{host}:{port}"
