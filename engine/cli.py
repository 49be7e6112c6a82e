"""The command line. stdout is data, stderr is talk; exit 0 done, 1 said why, 2 misuse."""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import __version__
from engine.console import Group, interrupts, progress_bar, whole, write_tables
from engine.errors import ConfigError, InputError, OutputError

if TYPE_CHECKING:
    from engine.config import Config

FILE = click.Path(path_type=Path, readable=False)  # click's own check would not say why
CAPTURES = click.argument("captures", nargs=-1, required=True, type=FILE, metavar="PCAP…")
CONFIG = click.option("--config", "-c", "config_file", type=FILE, help="YAML configuration.")

LEAST_LEARN = 10  # packets: 1 to map, 7 to learn, 2 to calibrate


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


def _load(path: Path | None, **changes: Any) -> Config:
    from engine import config

    return config.replace(
        config.load(path), "command line", {k.replace("__", "."): v for k, v in changes.items()}
    )


class Seconds(click.FloatRange):
    """A time, which NaN is not, although it lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class Speed(click.ParamType[float]):
    """max, 1x, 20x …"""

    name = "max|1x|Nx"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Times real time; 0 is as fast as it goes."""
        if isinstance(value, float):
            return value
        if value == "max":
            return 0.0
        try:
            factor = float(str(value).removesuffix("x"))
        except ValueError:
            factor = 0.0
        if not str(value).endswith("x") or not 1e-6 <= factor <= 1e6:
            self.fail(f"{value!r} is neither max nor a factor from 1e-6x to 1e6x, such as 20x", param, ctx)
        return factor


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
    config = _load(
        config_file, bus__partitions=partitions, metrics__port=metrics_port,
        output__directory=out, **_learning(learn),
    )  # fmt: skip
    from engine import app
    from engine.labels import read_labels
    from engine.summary import print_summary, shown_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    with progress_bar("scoring") as progress:
        scoring = app.Scoring(app.Job(captures, config, known, model, speed, progress, linger))
        with interrupts(scoring.stop):
            if scoring.server is not None:
                click.echo(f"metrics at {scoring.server.url}", err=True)
            summary = scoring.run()
    if as_json:
        click.echo(json.dumps(summary.as_json(), default=str))
    else:
        print_summary(summary, shown_labels(config.labels.slice, scoring.probes))
    if summary.interrupted:
        click.echo("interrupted: the captures were not read to their end", err=True)
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


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
def connections(captures: tuple[Path, ...], config_file: Path | None, kind: str, output: Path | None) -> None:
    """Write the connections of captures, with the field names of Zeek's conn.log."""
    config = _load(config_file)
    from engine import app
    from engine.connections.record import json_lines

    with progress_bar("reading") as progress:
        write_tables(app.read_connection_tables(captures, config, progress), kind, output, json_lines)


@main.command()
@CAPTURES
@CONFIG
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=FILE, help="File instead of stdout.")
def packets(captures: tuple[Path, ...], config_file: Path | None, kind: str, output: Path | None) -> None:
    """Write the decoded packets of captures, one row a frame, ts in ns."""
    config = _load(config_file)
    from engine import app
    from engine.packets import packet_lines, packet_table
    from engine.types import empty_packets

    with progress_bar("reading") as progress:
        blocks = chain(
            [empty_packets()], app.read_packets(captures, config, progress)
        )  # columns, even of no packet
        write_tables((packet_table(p) for p in blocks), kind, output, packet_lines)


BUS = click.option(
    "--bus", metavar="kafka://HOST:PORT,…", help="Kafka. [default: bus.url of the configuration]"
)


@main.command()
@CAPTURES
@BUS
@CONFIG
@click.option("--labels", type=FILE, help="Probe labels, CSV or Parquet.")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Replay speed.")
@click.option(
    "--loop", type=click.IntRange(1, 1 << 20), default=1, show_default=True, help="Times to publish."
)
@click.option("--epoch", type=int, help="Number of this run; by default the same for the same captures.")
def replay(
    captures: tuple[Path, ...], bus: str | None, config_file: Path | None, labels: Path | None,
    speed: float, loop: int, epoch: int | None,
) -> None:  # fmt: skip
    """Publish captures (- is stdin) to Kafka.

    A capture that is published again is recognised by the detectors, which skip what they have seen; so a replay that
    was interrupted can be given again. To have it taken for new traffic, give another --epoch.
    """
    config = _load(config_file, bus__url=bus, sensor__epoch=epoch)
    from engine.labels import read_labels
    from engine.replay import Replay, ReplayJob

    known = read_labels(labels, config.labels.max_probes) if labels else None
    with progress_bar("publishing") as progress:
        job = Replay(ReplayJob(captures, config, known, speed, loop, progress))
        with interrupts(job.stop):
            report = job.run()
    rate = report.packets / report.seconds if report.seconds else 0.0
    click.echo(
        f"published    {report.packets:,} packets in {report.messages:,} messages, {report.seconds:.2f} s "
        f"({rate:,.0f} packets a second)"
    )
    if report.drift.pieces:
        click.echo(
            f"pacing       late by {report.drift.mean * 1e3:.1f} ms on average, {report.drift.worst * 1e3:.1f} at worst"
        )
    if report.interrupted:
        click.echo("interrupted: the captures were not published to their end", err=True)


INTERFACE = click.option("--interface", "-i", required=True, help="Network interface to capture from.")

DURATION = click.option("--duration", type=Seconds(0, 1e9, min_open=True), help="Seconds, then end.")
FILTER = click.option("--filter", "expression", help="Capture filter, as tcpdump takes it.")


@main.command()
@INTERFACE
@BUS
@CONFIG
@DURATION
@FILTER
@click.option("--fanout", type=int, help="Number that several processes give to share the packets.")
@click.option("--metrics-port", type=int, help="Serve /metrics, /healthz and /readyz on this port (0: any).")
def capture(
    interface: str, bus: str | None, config_file: Path | None, duration: float | None, expression: str | None,
    fanout: int | None, metrics_port: int | None,
) -> None:  # fmt: skip
    """Publish what passes an interface to Kafka.

    While Kafka does not take packets they wait in memory, then on disk, then the oldest are dropped; whatever is lost,
    anywhere, is counted. Ends with the counters as JSON. SIGHUP reads the configuration again.
    """
    from connectors.privileges import stay_single

    stay_single()  # before libraries start threads, which would keep privileges
    read = functools.partial(
        _load,
        config_file,
        bus__url=bus,
        metrics__port=metrics_port,
        capture__filter=expression,
        capture__fanout=fanout,
    )
    from engine.capture import Capture, CaptureJob

    sensor = Capture(CaptureJob(interface, read(), duration, read))
    if sensor.server is not None:
        click.echo(f"metrics at {sensor.server.url}", err=True)
    with interrupts(sensor.stop, sensor.reload if config_file else None):
        report = sensor.run()
    click.echo(json.dumps(report.as_json()))
    if report.problem is not None:
        raise InputError(report.problem)


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
    from connectors.privileges import stay_single

    stay_single()  # before libraries start threads, which would keep privileges
    if learn is not None and model is not None:
        raise ConfigError("--learn and --model exclude each other: a bundle is scored with as it is")
    config = _load(
        config_file,
        capture__filter=expression,
        metrics__port=metrics_port,
        output__directory=out,
        **_learning(learn),
    )
    from rich.console import Console

    from engine.labels import read_labels
    from engine.watch import Watch, WatchJob, view

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


@main.command()
@BUS
@click.option("--group", required=True, help="Consumer group; its members share the partitions.")
@click.option(
    "--state", required=True, metavar="DIR|URL", help="Snapshots: a folder all members reach, or a URL."
)
@CONFIG
@click.option(
    "--out", type=click.Path(readable=False), help="Directory for scores-*.parquet and alerts.jsonl."
)
@click.option("--metrics-port", type=int, help="Serve /metrics, /healthz and /readyz on this port (0: any).")
@click.option("--model", type=FILE, help="Score with this bundle, learn nothing.")
@click.option("--instance", help="Name of this process in the group (static membership).")
@click.option("--stop-at-end", is_flag=True, help="Process what the topic holds, then end.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def detect(
    bus: str | None, group: str, state: str, config_file: Path | None, out: str | None, metrics_port: int | None,
    model: Path | None, instance: str | None, stop_at_end: bool, as_json: bool,
) -> None:  # fmt: skip
    """Detect from Kafka, as a member of a consumer group whose state survives crashes."""
    config = _load(config_file, bus__url=bus, metrics__port=metrics_port, output__directory=out)
    from engine.detect import Detect, DetectJob
    from engine.summary import print_report

    process = Detect(DetectJob(config, group, state, model, instance, stop_at_end))
    if process.server is not None:
        click.echo(f"metrics at {process.server.url}", err=True)
    with interrupts(process.stop):
        report = process.run()
    print_report(report, config.labels.slice, as_json)


@main.group()
def topics() -> None:
    """Make and describe the topics of a Kafka cluster."""


@topics.command("create")
@BUS
@CONFIG
@click.option(
    "--partitions", type=click.IntRange(1, 1024), default=4, show_default=True, help="Of packets and scores."
)
@click.option(
    "--replication", type=click.IntRange(1, 16), default=1, show_default=True, help="Copies of each."
)
@click.option("--retention", type=click.FloatRange(1, 87600), default=24.0, show_default=True, help="Hours.")
def topics_create(
    bus: str | None, config_file: Path | None, partitions: int, replication: int, retention: float
) -> None:
    """Make the topics that are not there, with the settings that recovery needs."""
    config = _load(config_file, bus__url=bus)
    from connectors.kafka_topics import TOPICS, Admin
    from engine.replay import kafka_errors, settings_of

    with kafka_errors(), Admin(settings_of(config)) as admin:
        made = admin.create(partitions, replication, retention)
    for name in TOPICS:
        full = config.bus.kafka.prefix + name
        click.echo(f"{full}: {'made' if full in made else 'was there'}")


@topics.command("describe")
@BUS
@CONFIG
def topics_describe(bus: str | None, config_file: Path | None) -> None:
    """Say how the topics are set; exit 1 when something breaks recovery."""
    config = _load(config_file, bus__url=bus)
    from connectors.kafka_topics import TOPICS, Admin, describe
    from engine.replay import kafka_errors, settings_of

    with kafka_errors(), Admin(settings_of(config)) as admin:
        found = {t.name: t for t in admin.describe()}
    bad = []
    for kind in TOPICS:
        lines, broken = describe(kind, found.get(config.bus.kafka.prefix + kind), config.bus.kafka.prefix)
        click.echo("\n".join(lines))
        bad += broken
    if bad:
        raise OutputError(bad[0])


@main.command()
@click.argument("directories", nargs=-1, required=True, type=FILE, metavar="DIR…")
@click.option("-o", "--output", type=FILE, required=True, help="Parquet file.")
def scores(directories: tuple[Path, ...], output: Path) -> None:
    """Put the scores-*.parquet of detectors into one file: repeats dropped, what is missing named."""
    from connectors.parquet import ParquetFile
    from engine.segments import merge

    merged = merge(directories)
    with whole(output, lambda: ParquetFile(output, merged.table.schema)) as file:
        file.write(merged.table)
    click.echo(
        f"{merged.table.num_rows:,} rows; {merged.repeated:,} came again and were equal, "
        f"{merged.superseded:,} were provisional ends"
    )
    if merged.gaps:
        where = "; ".join(
            f"partition {p}: " + ", ".join(f"{a}..{b - 1}" for a, b in g) for p, g in merged.gaps.items()
        )
        raise InputError(f"offsets that no file covers: {where}")


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
    config = _load(config_file)
    from engine import app
    from engine.summary import print_summary

    app.check_bundle_place(output)
    if learn is None:
        if Path("-") in captures:
            raise ConfigError("stdin can be read only once: say with --learn N how many packets to use")
        learn = sum(p.ts.size for p in app.read_packets(captures, config))
        if learn < LEAST_LEARN:
            raise InputError(f"{captures[0]}: {learn} packets in all; at least {LEAST_LEARN} are needed")
    config = _load(config_file, **_learning(learn))
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
    _load(file)
    click.echo(f"{file}: ok", err=True)


@config.command("show")
@CONFIG
def config_show(config_file: Path | None) -> None:
    """Print the whole configuration as YAML, defaults included."""
    from engine.config import show

    click.echo(show(_load(config_file)), nl=False)


if __name__ == "__main__":
    main()
