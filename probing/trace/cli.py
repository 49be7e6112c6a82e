"""`wiresonde trace`: chosen connections packet by packet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from engine.commands.console import progress_bar, whole
from engine.commands.options import CONFIG, FILE, load_config
from engine.errors import ConfigError


@click.command()
@click.argument("capture", type=FILE, metavar="PCAP")
@click.option(
    "--connection", "connections", multiple=True, required=True, metavar="UID",
    help="Connection to show: its uid or community id; may be repeated.",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, required=True, metavar="[NAME=]BUNDLE",
    help="Score with this bundle as model NAME [default: the bundle's kind]; may be repeated.",
)  # fmt: skip
@click.option(
    "--twin", "twins", multiple=True, metavar="UID|PCAP:UID",
    help="Show this connection below, aligned with the one of --connection; may be repeated.",
)  # fmt: skip
@click.option("--twins", "all_twins", is_flag=True, help="The same for all its twins, by the lab's labels.")
@click.option("--labels", type=FILE, help="Probe labels. [default: NAME.labels.parquet beside PCAP]")
@click.option("--frames", type=FILE, help="What the link did. [default: NAME.frames.parquet beside PCAP]")
@click.option("--svg", type=FILE, help="Picture to write.")
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def trace(
    capture: Path, connections: tuple[str, ...], models: tuple[str, ...], twins: tuple[str, ...], all_twins: bool,
    labels: Path | None, frames: Path | None, svg: Path | None, config_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show connections packet by packet, with each model's score of each packet, as a table and as a picture.

    PCAP: a file. Twins are aligned by the phases of their visit, or else by the share of their bytes.
    """
    aligns = bool(twins or all_twins)
    if aligns and len(connections) > 1:
        raise ConfigError(f"--twin: give one --connection to align with, not {len(connections)}")
    config = load_config(config_file)
    from connectors.files.text import TextFile
    from engine.commands.models import chosen_models
    from engine.commands.reading import check_captures
    from probing.trace.align import aligned, by_time
    from probing.trace.picture import draw
    from probing.trace.sources import Question, parse_twin, traced_connections
    from probing.trace.text import as_json as values
    from probing.trace.text import lines

    check_captures([capture, *(parse_twin(text, capture)[0] for text in twins)], svg, config_file)
    asked = Question(capture, connections, twins, all_twins, labels, frames)
    with progress_bar("scoring") as progress:
        found = traced_connections(asked, config, chosen_models(config, models), progress)
    axis = aligned(found) if aligns else by_time(found)
    if svg is not None:
        with whole(svg, lambda: TextFile(svg)) as file:
            file.write(draw(found, axis).splitlines())
    if as_json:
        click.echo(json.dumps(values(found, axis.kind, axis.note)))
    else:
        sys.stdout.writelines(line + "\n" for line in lines(found, axis.note))
