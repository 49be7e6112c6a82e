"""The command line. stdout is data, stderr is talk; exit 0 done, 1 said why, 2 misuse."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import __version__
from engine.commands.console import Group, interrupts, progress_bar, write_tables
from engine.commands.kafka_cli import capture, detect, replay, scores, topics
from engine.commands.options import (
    CAPTURES,
    CONFIG,
    DURATION,
    FILE,
    FILTER,
    INTERFACE,
    Seconds,
    Speed,
    load_config,
)
from engine.errors import ConfigError, InputError

if TYPE_CHECKING:
    from engine.commands.reading import Read

LEAST_LEARN = 10  # packets: 1 to map, 7 to learn, 2 to calibrate


class Main(Group):
    """Has ``lab`` where the researcher's half is installed, and imports it when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in order."""
        more = ["lab"] if find_spec("probing") is not None else []
        return sorted({*super().list_commands(ctx), *more})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by name."""
        if cmd_name == "lab" and find_spec("probing") is not None:
            from probing.lab.cli import lab

            return lab
        return super().get_command(ctx, cmd_name)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wiresonde")
@click.option("--verbose", "-v", count=True, help="Log what happens (-vv: everything).")
def main(verbose: int) -> None:
    """Streaming network intrusion detection that can be examined while it runs."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    # kafka-python warns of what it retries, and logs passwords when it debugs
    logging.getLogger("kafka").setLevel((logging.CRITICAL, logging.WARNING, logging.INFO)[min(verbose, 2)])


@main.command()
@CAPTURES
@CONFIG
@click.option(
    "--out",
    type=click.Path(readable=False),
    help="Directory for scores.parquet, alerts.jsonl and metrics.prom.",
)
@click.option("--labels", type=FILE, help="Probe labels, CSV or Parquet.")
@click.option("--metrics-port", type=int, help="Serve /metrics on this port (0: any).")
@click.option(
    "--linger",
    type=Seconds(0, 1e6),
    default=0.0,
    help="Seconds /metrics stays up after the last packet.",
)
@click.option("--partitions", type=int, help="Partitions of the embedded bus. [default: 1]")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Replay speed.")
@click.option(
    "--learn",
    type=int,
    help="Learn from the first N packets (of each partition): map 10 %, learn 70 %, calibrate 20 %.",
)
@click.option("--model", type=FILE, help="Score with this bundle, learn nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def score(
    captures: tuple[Path, ...], config_file: Path | None, out: str | None, labels: Path | None,
    metrics_port: int | None, linger: float, partitions: int | None, speed: float, learn: int | None,
    model: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score the connections of captures (- is stdin) with an online Kitsune."""
    if learn is not None and model is not None:
        raise ConfigError("--learn and --model exclude each other: a bundle is scored with as it is")
    config = load_config(
        config_file, bus__partitions=partitions, metrics__port=metrics_port,
        output__directory=out, **_learning(learn),
    )  # fmt: skip
    from engine.commands import score as app
    from engine.commands.summary import print_summary, shown_labels
    from engine.labels.file import read_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    with ExitStack() as whole, ExitStack() as reading:
        progress = reading.enter_context(progress_bar("scoring"))
        scoring = app.Scoring(app.Job(captures, config, known, model, speed, progress, linger))
        whole.enter_context(interrupts(scoring.stop))
        if scoring.server is not None:
            click.echo(f"metrics at {scoring.server.url}", err=True)
        summary = scoring.run()
        reading.close()
        if as_json:
            click.echo(json.dumps(summary.as_json(), default=str))
        else:
            print_summary(summary, shown_labels(config.labels.slice, scoring.probes))
        if summary.interrupted:
            click.echo("interrupted: the captures were not read to their end", err=True)
        scoring.leave()
    if summary.problem is not None:
        raise InputError(summary.problem)


def _learning(n: int | None) -> dict[str, Any]:
    if n is None:
        return {}
    if n < LEAST_LEARN:
        raise ConfigError(f"--learn {n}: at least {LEAST_LEARN} packets are needed")
    return {
        "kitsune__kitnet__map_samples": n // 10,
        "kitsune__kitnet__learn_samples": n * 7 // 10,
        "kitsune__scorer__calibrate_packets": n - n // 10 - n * 7 // 10,
    }


@contextmanager
def told(read: Read) -> Iterator[None]:
    """Say what was not read; also of a damaged capture, but not when nobody reads on."""
    problem: InputError | None = None
    try:
        yield
    except InputError as error:
        problem = error
    for note in read.notes():
        click.echo(note, err=True)
    if problem is not None:
        raise problem


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
def connections(captures: tuple[Path, ...], config_file: Path | None, kind: str, output: Path | None) -> None:
    """Write the connections of captures, with the field names of Zeek's conn.log."""
    config = load_config(config_file)
    from engine.commands.reading import Read, check_captures, read_connection_tables
    from engine.connections.record import json_lines

    check_captures(captures, output, config_file)
    read = Read()
    with told(read), progress_bar("reading") as progress:
        write_tables(read_connection_tables(captures, config, progress, read), kind, output, json_lines)


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
def packets(captures: tuple[Path, ...], config_file: Path | None, kind: str, output: Path | None) -> None:
    """Write the decoded packets of captures, one row a frame, ts in ns."""
    config = load_config(config_file)
    from engine.commands.packets import packet_lines, packet_table
    from engine.commands.reading import Read, check_captures, read_packets
    from engine.types import empty_packets

    check_captures(captures, output, config_file)
    read = Read()
    with told(read), progress_bar("reading") as progress:
        # columns, even of no packet
        blocks = chain([empty_packets()], read_packets(captures, config, progress, read))
        write_tables((packet_table(p) for p in blocks), kind, output, packet_lines)


@main.command()
@INTERFACE
@CONFIG
@DURATION
@FILTER
@click.option(
    "--out",
    type=click.Path(readable=False),
    help="Directory for alerts.jsonl, and a folder of scores of this run.",
)
@click.option("--labels", type=FILE, help="Probe labels, CSV or Parquet.")
@click.option("--metrics-port", type=int, help="Serve /metrics on this port (0: any).")
@click.option(
    "--learn",
    type=int,
    help="Learn from the first N packets (of each partition): map 10 %, learn 70 %, calibrate 20 %.",
)
@click.option("--model", type=FILE, help="Score with this bundle, learn nothing.")
def watch(
    interface: str, config_file: Path | None, duration: float | None, expression: str | None, out: str | None,
    labels: Path | None, metrics_port: int | None, learn: int | None, model: Path | None,
) -> None:  # fmt: skip
    """Score what passes an interface, in one process, with a view of it on a terminal.

    Ends with the counters as JSON.
    """
    from connectors.live.privileges import stay_single

    stay_single()  # before libraries start threads, which would keep privileges
    if learn is not None and model is not None:
        raise ConfigError("--learn and --model exclude each other: a bundle is scored with as it is")
    config = load_config(
        config_file,
        capture__filter=expression,
        metrics__port=metrics_port,
        output__directory=out,
        **_learning(learn),
    )
    from rich.console import Console

    from engine.commands.watch import Watch, WatchJob, view
    from engine.labels.file import read_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    process = Watch(WatchJob(interface, config, known, model, duration))
    console = Console(stderr=True)
    with interrupts(process.stop):
        if process.scoring.server is not None:
            click.echo(f"metrics at {process.scoring.server.url}", err=True)
        with view(process, console) if console.is_terminal else nullcontext():
            report, summary = process.run()
    click.echo(json.dumps({**summary.as_json(), **report.as_json()}, default=str))
    if report.problem is not None:
        raise InputError(report.problem)


@main.group()
def train() -> None:
    """Fit models to captures of normal traffic."""


@train.command("kitsune")
@CAPTURES
@CONFIG
@click.option("-o", "--output", type=FILE, required=True, help="Bundle to write.")
@click.option(
    "--learn", type=int, help="Packets to use [default: all]: map 10 %, learn 70 %, calibrate 20 %."
)
def train_kitsune(
    captures: tuple[Path, ...], config_file: Path | None, output: Path, learn: int | None
) -> None:
    """Learn a Kitsune from captures without attacks and write it as a bundle."""
    config = load_config(config_file)
    from engine.commands import score as app
    from engine.commands.bundles import check_bundle_place
    from engine.commands.reading import check_captures, read_packets
    from engine.commands.summary import print_summary

    if str(output) == "-":
        raise ConfigError("-o -: a bundle needs a file")
    check_captures(captures, output, config_file)
    check_bundle_place(output)
    if learn is None:
        if Path("-") in captures:
            raise ConfigError("stdin can be read only once: say with --learn N how many packets to use")
        learn = sum(p.ts.size for p in read_packets(captures, config))
        if learn < LEAST_LEARN:
            raise InputError(f"{captures[0]}: {learn} packets in all; at least {LEAST_LEARN} are needed")
    config = load_config(config_file, **_learning(learn))
    with progress_bar("learning") as progress:
        summary = app.train_kitsune(captures, config, output, progress)
    print_summary(summary)


@main.group()
def config() -> None:
    """Check and show configurations."""


@config.command("check")
@click.argument("file", type=FILE)
def config_check(file: Path) -> None:
    """Check a configuration file; exit 2 names what is wrong."""
    load_config(file)
    click.echo(f"{file}: ok", err=True)


@config.command("show")
@CONFIG
def config_show(config_file: Path | None) -> None:
    """Print the whole configuration as YAML, defaults included."""
    from engine.config import show

    click.echo(show(load_config(config_file)), nl=False)


for command in (replay, capture, detect, topics, scores):
    main.add_command(command)


if __name__ == "__main__":
    main()
