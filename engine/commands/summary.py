"""Prints a run's summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from engine.commands import console as terminal
from engine.commands.run_summary import ATTACK, ModelSummary, RunSummary, hits, is_attack
from engine.labels.rules import NO_PROBES, Probes
from engine.scoring.batch import label_names

MOST_LABELS = 3  # most labels shown beside a connection
MOST_ROWS = 12  # most rows of a table of labels or pairs of hosts


def shown_labels(slices: Sequence[str], probes: Probes = NO_PROBES) -> list[str]:
    """The labels to show: those that are slices, otherwise the first few; always ``attack``."""
    names = label_names(probes)
    shown = [name for name in slices if name in names] or names[:MOST_LABELS]
    return shown if ATTACK in shown or ATTACK not in names else [*shown, ATTACK]


def print_summary(summary: RunSummary, labels: Sequence[str] = (), console: Console | None = None) -> None:
    """Print counts, losses, alarms by label and hosts, and the most anomalous connections to stdout."""
    console = console or Console(highlight=False)
    with console.capture() as captured:
        render_summary(summary, labels, console)
    click.echo(captured.get(), nl=False)


def render_summary(summary: RunSummary, labels: Sequence[str], console: Console) -> None:
    """Print a summary on a console."""
    for name, value in _facts(summary):
        console.print(f"[bold]{name:<12}[/] {printable(value)}", soft_wrap=True)
    tables: list[Table] = []
    first = next((name for name, model in summary.models.items() if not model.shadow), "")
    of = f" of {first}" if len(summary.models) > 1 else ""  # the tables are of that model alone
    if summary.labels:
        tables.append(labels_table(summary.labels, f"Alarms{of} by label"))
    if summary.alarm_pairs and not summary.trained:
        tables.append(_pairs(summary, f"Alarms{of} by hosts"))
    if summary.top:
        tables.append(_top(summary, labels))
    for table in tables:
        print_whole(table, console)


def print_whole(table: RenderableType, console: Console) -> None:
    """Print a table at its full width: a narrow terminal wraps lines, and no cell is cut."""
    whole = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.width = max(console.width, whole)
    console.print(table)


def print_report(summary: RunSummary, labels: Sequence[str], as_json: bool) -> None:
    """Print the summary of a detector on Kafka."""
    if as_json:
        click.echo(json.dumps(summary.as_json(), default=str))
        return
    held = ", ".join(f"{p} up to {offset}" for p, offset in summary.partitions.items()) or "none"
    summary.notes.append(f"partitions held at the end: {held}")
    print_summary(summary, labels)


def print_by_label(found: dict[str, list[dict[str, Any]]], as_json: bool) -> None:
    """Print connections and alarms by label, a table for each model."""
    if as_json:
        click.echo(json.dumps(found))
        return
    console = Console(highlight=False)
    with console.capture() as captured:
        for model, rows in found.items():
            if rows:
                print_whole(labels_table(rows, printable(model), most=len(rows)), console)
                if (said := hits(rows)) is not None:
                    console.print(f"{printable(model)}: {said}\n")
            else:
                console.print(f"{printable(model)}: no connection has these labels")
    click.echo(captured.get(), nl=False)


def _facts(summary: RunSummary) -> list[tuple[str, str]]:
    rate = summary.packets / summary.seconds if summary.seconds > 0 else 0.0
    losses = ", ".join(f"{name} {n:,}" for name, n in summary.losses.items()) or "none"
    facts = [("packets", f"{summary.packets:,} in {summary.seconds:.2f} s ({rate:,.0f} a second)")]
    models = summary.models
    if len(models) > 1:
        facts.append(("connections", f"{summary.connections:,}"))
        facts += [(name, _model(model)) for name, model in models.items()]
    else:
        bound = _bound(summary.threshold, summary.least_threshold, summary.promised_rate)
        facts.append(("connections", f"{summary.connections:,}, of which {summary.scored:,} scored"))
        alarms = (
            "alarms",
            f"{summary.alarms:,} connections{_of_new(summary.new_alarms)} ({bound})"
            if summary.threshold
            else "none: no threshold yet",
        )
        facts.append(("threshold", bound) if summary.trained else alarms)
    facts += [
        (_range_name(name, models), f"{m.out_of_range:.2%} of inputs outside the learned range")
        for name, m in models.items()
        if m.out_of_range is not None
    ]
    if (said := hits(summary.labels)) is not None:
        facts.append(("labels", said))
    facts.append(("losses", losses))
    if summary.interrupted:
        facts.append(("interrupted", "the captures were not read to their end"))
    facts += [("note", note) for note in summary.notes]
    return facts + [("written", file) for file in summary.files]


def _model(model: ModelSummary) -> str:
    what = (
        f"{model.scored:,} scored, {model.alarms:,} alarms{_of_new(model.new_alarms)} "
        f"({_bound(model.threshold, model.least_threshold, model.promised_rate)})"
    )
    if model.phase != "score":
        what = f"phase {model.phase}; {what}"
    return f"shadow: {what}" if model.shadow else what


def _of_new(n: int) -> str:
    """A count of alarms of hosts that learning never saw, in words."""
    return f", {n:,} of new hosts" if n else ""


def _range_name(model: str, models: Mapping[str, ModelSummary]) -> str:
    return "inputs" if len(models) == 1 else f"inputs of {model}"


def _bound(threshold: float | None, least: float | None, promised: float | None) -> str:
    """A threshold in words, with the share of false alarms that it can promise."""
    if threshold is None:
        return "none yet"
    rate = "" if promised is None else f"; {100 * promised:.2g} % false alarms promised"
    if least is not None and least < threshold:
        return f"above {least:.4f} to {threshold:.4f}, by partition{rate}"
    return f"above {threshold:.4f}{rate}"


def labels_table(rows: Sequence[dict[str, Any]], title: str, most: int = MOST_ROWS) -> Table:
    """A table of connections and alarms by label. rows: ``label.NAME`` …, connections, scored, alarms."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    names = [name for name in rows[0] if name.startswith("label.")]
    for name in names:
        table.add_column(printable(name.removeprefix("label.")), no_wrap=True)
    for name in ("connections", "scored", "alarms", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    known = f"label.{ATTACK}" in names
    if known:
        table.add_column("alarms are", no_wrap=True)
    for row in rows[:most]:
        share = f"{row['alarms'] / row['scored']:.1%}" if row["scored"] else "-"
        cells = [
            *(printable(row[name] or "") for name in names),
            f"{row['connections']:,}",
            f"{row['scored']:,}",
        ]
        cells += [f"{row['alarms']:,}", share]
        if known:
            word = "hits" if is_attack(row[f"label.{ATTACK}"]) else "false"
            cells.append(word if row["alarms"] else "")
        table.add_row(*cells)
    if len(rows) > most:
        table.caption = f"and {len(rows) - most:,} more: wiresonde scores FILE --by LABEL,…"
        table.caption_justify = "left"
    return table


def _pairs(summary: RunSummary, title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for name in ("alarms", "originator", "responder", "ports", ""):
        table.add_column(name, justify="right" if name == "alarms" else "left", no_wrap=True)
    for pair in summary.alarm_pairs[:MOST_ROWS]:
        ports = ", ".join(str(port) for _, port in pair["ports"][:3]) if len(pair["ports"]) < 4 else "many"
        unsure = pair["uncertain"]
        word = "" if not unsure else "originator uncertain"
        if 0 < unsure < pair["alarms"]:
            word += f" in {unsure:,}"
        table.add_row(f"{pair['alarms']:,}", pair["originator"], pair["responder"], ports, word)
    return table


def _top(summary: RunSummary, shown: Sequence[str]) -> Table:
    table = Table(title="Most anomalous connections", title_justify="left", title_style="bold", box=None)
    add_connection_columns(table)
    for name in shown:
        table.add_column(printable(name), no_wrap=True)
    table.add_column("uid", no_wrap=True)
    table.add_column("community id", no_wrap=True)
    for row in summary.top:
        cells = [
            *connection_cells(row),
            *(printable(row[f"label.{name}"] or "") for name in shown),
            row["uid"],
            row["community_id"],
        ]
        table.add_row(*cells)
    return table


def add_connection_columns(table: Table) -> None:
    """Add the columns that ``connection_cells`` fills."""
    for name in ("", "score", "originator", "responder", "proto", "state", "packets"):
        table.add_column(name, justify="right" if name in ("score", "packets") else "left", no_wrap=True)


def connection_cells(row: dict[str, Any]) -> list[str]:
    """The first cells of a connection's row, in rich's markup."""
    return [
        "[red]ALARM[/]" if row["alarm"] else "",
        f"{row['score']:.4f}",
        _endpoint(row["id.orig_h"], row["id.orig_p"]),
        _endpoint(row["id.resp_h"], row["id.resp_p"]),
        row["proto"],
        row["conn_state"],
        str(row["orig_pkts"] + row["resp_pkts"]),
    ]


def printable(text: str) -> str:
    """Text without control characters, in rich's markup."""
    return escape(terminal.shown(text))


def _endpoint(host: str, port: int | None) -> str:
    if port is None:
        return host  # a MAC
    return escape(f"[{host}]:{port}") if ":" in host else f"{host}:{port}"
