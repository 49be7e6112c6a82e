"""The command line. Data go to stdout, messages to stderr. Exit codes: 0 done, 1 failed (with a message), 2 misuse."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import click

from engine import __version__
from engine.commands.compiling import progress_lines
from engine.commands.console import Formatter, Group, interrupts, is_unicode, progress_bar, say, write_tables
from engine.commands.kafka_cli import capture, detect, replay, scores, topics
from engine.commands.options import (
    CAPTURES,
    CONFIG,
    DURATION,
    FILE,
    FILTER,
    INTERFACE,
    LEARN,
    MAX_GAP,
    MODELS,
    TRACE,
    Seconds,
    Speed,
    check_pipes,
    learning,
    load_config,
    paced,
    selection,
)
from engine.errors import ConfigError, InputError


class Main(Group):
    """The top group; has the commands of the researcher's half if it is installed, and imports them on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, sorted."""
        more = ["corpus", "lab", "trace"] if find_spec("probing") is not None else []
        return sorted({*super().list_commands(ctx), *more})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        if cmd_name == "lab" and find_spec("probing") is not None:
            from probing.lab.cli import lab

            return lab
        if cmd_name == "corpus" and find_spec("probing") is not None:
            from probing.corpus.cli import corpus

            return corpus
        if cmd_name == "trace" and find_spec("probing") is not None:
            from probing.trace.cli import trace

            return trace
        return super().get_command(ctx, cmd_name)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wiresonde")
@click.option("--verbose", "-v", count=True, help="Log what happens (-vv: everything).")
def main(verbose: int) -> None:
    """Streaming network intrusion detection that can be examined while it runs."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    # kafka-python warns of every retry, and logs passwords at level DEBUG
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
    help="Seconds that /metrics stays up after the last packet.",
)
@click.option("--partitions", type=int, help="Partitions of the embedded bus. [default: 1]")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Replay speed.")
@MAX_GAP
@FILTER
@LEARN
@MODELS
@TRACE
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def score(
    captures: tuple[Path, ...], config_file: Path | None, out: str | None, labels: Path | None,
    metrics_port: int | None, linger: float, partitions: int | None, speed: float, max_gap: float,
    expression: str | None, learn: int | None, models: tuple[str, ...], trace: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Score the connections of captures (- is stdin) with an online Kitsune, or the models of the configuration.

    PCAP: a file, a folder, or a pattern in quotes.
    """
    check_pipes(*captures, config_file, labels)
    config = load_config(
        config_file, learning(learn, models), bus__partitions=partitions, metrics__port=metrics_port,
        output__directory=out,
    )  # fmt: skip
    from engine.commands.inputs import gather
    from engine.commands.models import chosen_models
    from engine.commands.notes import told
    from engine.commands.reading import Choice
    from engine.commands.score import Job, Scoring
    from engine.commands.summary import print_summary, shown_labels
    from engine.labels.file import read_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    choice, max_gap = Choice(expression or ""), paced(speed, max_gap)
    captures = gather(captures)
    with told(choice.tally, summarised=not as_json), ExitStack() as whole, ExitStack() as reading:
        specs, chosen = chosen_models(config, models), selection(trace)
        progress = reading.enter_context(progress_bar("scoring"))
        job = Job(
            captures,
            config,
            known,
            specs,
            speed,
            progress,
            linger,
            trace=chosen,
            choice=choice,
            max_gap=max_gap,
        )
        scoring = Scoring(job)
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


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
@FILTER
@click.option(
    "--link-layer", is_flag=True, help="Add records of frames that are not IP, such as ARP, by MACs."
)
def connections(
    captures: tuple[Path, ...],
    config_file: Path | None,
    kind: str,
    output: Path | None,
    expression: str | None,
    link_layer: bool,
) -> None:
    """Write the connections of captures, with the field names of Zeek's conn.log.

    PCAP: a file, a folder, or a pattern in quotes.
    """
    check_pipes(*captures, config_file)
    config = load_config(config_file)
    from engine.commands.inputs import gather
    from engine.commands.notes import told
    from engine.commands.reading import Choice, check_captures, read_connection_tables
    from engine.connections.record import json_lines

    captures, choice = gather(captures), Choice(expression or "", link_layer)
    check_captures(captures, output, config_file)
    with told(choice.tally), progress_bar("reading") as progress:
        write_tables(read_connection_tables(captures, config, progress, choice), kind, output, json_lines)


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
@FILTER
def packets(
    captures: tuple[Path, ...],
    config_file: Path | None,
    kind: str,
    output: Path | None,
    expression: str | None,
) -> None:
    """Write the decoded packets of captures, one row for each frame, ts in ns.

    PCAP: a file, a folder, or a pattern in quotes.
    """
    check_pipes(*captures, config_file)
    config = load_config(config_file)
    from engine.commands.inputs import gather
    from engine.commands.notes import told
    from engine.commands.packets import packet_lines, packet_table
    from engine.commands.reading import Choice, check_captures, read_packets
    from engine.types import empty_packets

    captures, choice = gather(captures), Choice(expression or "")
    check_captures(captures, output, config_file)
    with told(choice.tally), progress_bar("reading") as progress:
        # columns, even without a packet
        blocks = chain([empty_packets()], read_packets(captures, config, progress, choice))
        write_tables((packet_table(p) for p in blocks), kind, output, packet_lines)


@main.command()
@INTERFACE
@CONFIG
@DURATION
@FILTER
@click.option(
    "--out",
    type=click.Path(readable=False),
    help="Directory for alerts.jsonl, and for a folder with the scores of this run.",
)
@click.option("--labels", type=FILE, help="Probe labels, CSV or Parquet.")
@click.option("--metrics-port", type=int, help="Serve /metrics on this port (0: any).")
@LEARN
@MODELS
def watch(
    interface: str, config_file: Path | None, duration: float | None, expression: str | None, out: str | None,
    labels: Path | None, metrics_port: int | None, learn: int | None, models: tuple[str, ...],
) -> None:  # fmt: skip
    """Score the traffic of an interface, in one process, with a live view on a terminal.

    Ends with a summary; if stdout is not a terminal, with the counters as JSON.
    """
    from connectors.live.privileges import stay_single

    stay_single()  # before libraries start threads, which would keep privileges
    check_pipes(config_file, labels)
    config = load_config(
        config_file, learning(learn, models), capture__filter=expression, metrics__port=metrics_port,
        output__directory=out,
    )  # fmt: skip
    from rich.console import Console

    from engine.commands.models import chosen_models
    from engine.commands.notes import notes_of, say
    from engine.commands.summary import print_summary, shown_labels
    from engine.commands.watch import Watch, WatchJob, view
    from engine.labels.file import read_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    with progress_lines():
        process = Watch(WatchJob(interface, config, known, chosen_models(config, models), duration))
    console = Console(stderr=True)
    with interrupts(process.stop):
        if process.scoring.server is not None:
            click.echo(f"metrics at {process.scoring.server.url}", err=True)
        with view(process, console) if console.is_terminal else nullcontext():
            report, summary = process.run()
    if sys.stdout.isatty():
        summary.losses |= {f"dropped ({where})": n for where, n in report.dropped.items() if n}
        print_summary(summary, shown_labels(config.labels.slice, process.scoring.probes))
    else:
        click.echo(json.dumps({**summary.as_json(), **report.as_json()}, default=str))
    say(notes_of(process.tap.tally), summarised=True)
    if report.problem is not None:
        raise InputError(report.problem)


class Kinds(click.Group):
    """A command for each kind of model; that of a kind that needs labels is in the researcher's half."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the kinds, sorted."""
        from engine.scoring.kinds import KINDS

        return sorted({*KINDS, *(["sequence"] if find_spec("probing") is not None else [])})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a kind; one that does not exist is refused when it is run."""
        if cmd_name == "sequence" and find_spec("probing") is not None:
            from probing.training.cli import train_sequence

            return train_sequence
        assert train_online.callback is not None
        return click.Command(
            cmd_name, callback=partial(train_online.callback, cmd_name), params=train_online.params,
            help=train_online.help,
        )  # fmt: skip


@main.group(cls=Kinds)
def train() -> None:
    """Train a model and write it as a bundle."""


@click.command()
@CAPTURES
@CONFIG
@click.option("-o", "--output", type=FILE, required=True, help="Bundle to write.")
@click.option(
    "--learn", type=int, help="Packets to use [default: all]: learn from 80 %, calibrate with 20 %."
)
@FILTER
@click.option("--force", is_flag=True, help="Write the bundle even if there is too little to learn from.")
def train_online(
    kind: str, captures: tuple[Path, ...], config_file: Path | None, output: Path, learn: int | None,
    expression: str | None, force: bool,
) -> None:  # fmt: skip
    """Train a model on captures without attacks and write it as a bundle.

    PCAP: a file, a folder, or a pattern in quotes.
    """
    check_pipes(*captures, config_file)
    config = load_config(config_file)
    from engine.commands.inputs import gather
    from engine.commands.models import spec_to_train
    from engine.commands.notes import told
    from engine.commands.reading import Choice, check_captures
    from engine.commands.summary import print_summary
    from engine.commands.train import Place, count_packets
    from engine.commands.train import train as learn_model
    from engine.scoring.building import check_bundle_place

    spec_to_train(config, kind)
    if str(output) == "-":
        raise ConfigError("-o -: a bundle cannot go to stdout: give a file")
    captures = gather(captures)
    check_captures(captures, output, config_file)
    check_bundle_place(output)
    if learn is None:
        for path in captures:
            if not (path.is_file() or path.is_dir()):  # a directory is refused where it is opened
                name = "stdin" if str(path) == "-" else f"{path} is not a regular file and"
                raise ConfigError(
                    f"{name} can be read only once: give --learn N, the number of packets to use"
                )
        learn = count_packets(captures, config, expression or "")
    choice = Choice(expression or "")
    spec = spec_to_train(config, kind, learning(learn))
    with told(choice.tally, summarised=True), progress_bar("learning") as progress:
        summary = learn_model(spec, captures, config, Place(output, force), progress, choice)
        print_summary(summary)


@main.group()
def config() -> None:
    """Check and show configurations."""


@config.command("check")
@click.argument("file", type=FILE)
def config_check(file: Path) -> None:
    """Check a configuration file; exit 2 with the problem if it is invalid."""
    config = load_config(file)
    from engine.commands.models import chosen_models

    chosen_models(config)
    say(f"{file}: ok")


@config.command("show")
@CONFIG
def config_show(config_file: Path | None) -> None:
    """Print the complete configuration as YAML, defaults included."""
    from engine.config import show

    click.echo(show(load_config(config_file), unicode=is_unicode(sys.stdout)), nl=False)


for command in (replay, capture, detect, topics, scores):
    main.add_command(command)


if __name__ == "__main__":
    main()
