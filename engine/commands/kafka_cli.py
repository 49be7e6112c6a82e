"""The commands over Kafka, and ``scores``: replay, capture, detect, topics, scores."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.commands.compiling import progress_lines
from engine.commands.console import interrupts, json_for_stdout, progress_bar, whole
from engine.commands.options import (
    BUS,
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
    Speed,
    check_pipes,
    learning,
    load_config,
    paced,
    selection,
)
from engine.errors import ConfigError, InputError, OutputError

if TYPE_CHECKING:
    from engine.config import Config


@click.command()
@CAPTURES
@BUS
@CONFIG
@click.option("--labels", type=FILE, help="Probe labels, CSV or Parquet.")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Replay speed.")
@MAX_GAP
@FILTER
@click.option(
    "--loop", type=click.IntRange(1, 1 << 20), default=1, show_default=True, help="Number of rounds."
)
@click.option("--epoch", type=int, help="Number of this run; by default the same for the same captures.")
def replay(
    captures: tuple[Path, ...], bus: str | None, config_file: Path | None, labels: Path | None,
    speed: float, max_gap: float, expression: str | None, loop: int, epoch: int | None,
) -> None:  # fmt: skip
    """Publish captures (files, folders, patterns in quotes; - is stdin) to Kafka.

    Detectors recognise a capture that is published again and skip packets they have seen, so an interrupted replay can
    be repeated. To have it treated as new traffic, give another --epoch.
    """
    check_pipes(*captures, config_file, labels)
    config = load_config(config_file, bus__url=bus, sensor__epoch=epoch)
    from engine.commands.inputs import gather
    from engine.commands.notes import pauses_note, told
    from engine.commands.reading import Choice
    from engine.commands.replay import Replay, ReplayJob
    from engine.labels.file import read_labels

    known = read_labels(labels, config.labels.max_probes) if labels else None
    choice, max_gap, captures = Choice(expression or ""), paced(speed, max_gap), gather(captures)
    with told(choice.tally), progress_bar("publishing") as progress:
        job = Replay(ReplayJob(captures, config, known, speed, loop, progress, choice, max_gap))
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
    if report.drift.gaps:
        click.echo(f"pauses       {pauses_note(report.drift.gaps, report.drift.skipped)}")
    if report.interrupted:
        click.echo("interrupted: the captures were not published to their end", err=True)


def again(file: Path | None, read: Callable[[], Config]) -> Config:
    """The configuration, read again. ConfigError for a pipe: it is empty by now, or would be waited for."""
    if file is not None and file.exists() and not file.is_file():
        raise ConfigError(f"{file}: not a regular file, so it can be read only once")
    return read()


@click.command()
@INTERFACE
@BUS
@CONFIG
@DURATION
@FILTER
@click.option("--fanout", type=int, help="Group number: processes with the same number share the packets.")
@click.option("--metrics-port", type=int, help="Serve /metrics, /healthz and /readyz on this port (0: any).")
def capture(
    interface: str, bus: str | None, config_file: Path | None, duration: float | None, expression: str | None,
    fanout: int | None, metrics_port: int | None,
) -> None:  # fmt: skip
    """Publish the traffic of an interface to Kafka.

    While Kafka is unavailable, packets wait in memory, then on disk; then the oldest are dropped. Every loss is
    counted. Ends with the counters as JSON. SIGHUP reads the configuration again.
    """
    from connectors.live.privileges import stay_single

    stay_single()  # before libraries start threads, which would keep privileges
    read = functools.partial(
        load_config,
        config_file,
        bus__url=bus,
        metrics__port=metrics_port,
        capture__filter=expression,
        capture__fanout=fanout,
    )
    from engine.commands.capture import Capture, CaptureJob
    from engine.commands.notes import notes_of, say

    sensor = Capture(CaptureJob(interface, read(), duration, lambda: again(config_file, read)))
    if sensor.server is not None:
        click.echo(f"metrics at {sensor.server.url}", err=True)
    with interrupts(sensor.stop, sensor.reload if config_file else None):
        report = sensor.run()
    click.echo(json.dumps(report.as_json()))
    say(notes_of(sensor.tally))
    if report.problem is not None:
        raise InputError(report.problem)


@click.command()
@BUS
@click.option("--group", required=True, help="Consumer group; its members share the partitions.")
@click.option(
    "--state",
    required=True,
    metavar="DIR|URL",
    help="Snapshots: a directory that all members share, or a URL.",
)
@CONFIG
@click.option(
    "--out", type=click.Path(readable=False), help="Directory for scores-*.parquet and alerts.jsonl."
)
@click.option("--metrics-port", type=int, help="Serve /metrics, /healthz and /readyz on this port (0: any).")
@LEARN
@MODELS
@TRACE
@click.option("--instance", help="Name of this process in the group (static membership).")
@click.option("--stop-at-end", is_flag=True, help="End after the last message of the topic.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def detect(
    bus: str | None, group: str, state: str, config_file: Path | None, out: str | None, metrics_port: int | None,
    learn: int | None, models: tuple[str, ...], trace: tuple[str, ...], instance: str | None, stop_at_end: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Detect from Kafka, as a member of a consumer group whose state survives crashes."""
    config = load_config(
        config_file, learning(learn, models), bus__url=bus, metrics__port=metrics_port, output__directory=out
    )
    from engine.commands.detect import Detect, DetectJob
    from engine.commands.models import chosen_models
    from engine.commands.notes import notes_of, say
    from engine.commands.summary import print_report, shown_labels

    job = DetectJob(
        config, group, state, chosen_models(config, models), instance, stop_at_end, selection(trace)
    )
    with progress_lines():
        process = Detect(job)
    if process.server is not None:
        click.echo(f"metrics at {process.server.url}", err=True)
    with interrupts(process.stop):
        report = process.run()
    print_report(report, shown_labels(config.labels.slice, process.probes), as_json)
    say(notes_of(process.tally), summarised=not as_json)


@click.group()
def topics() -> None:
    """Create and describe the topics of a Kafka cluster."""


@topics.command("create")
@BUS
@CONFIG
@click.option(
    "--partitions", type=click.IntRange(1, 1024), default=4, show_default=True, help="For packets and scores."
)
@click.option(
    "--replication", type=click.IntRange(1, 16), default=1, show_default=True, help="Copies of each."
)
@click.option("--retention", type=click.FloatRange(1, 87600), default=24.0, show_default=True, help="Hours.")
def topics_create(
    bus: str | None, config_file: Path | None, partitions: int, replication: int, retention: float
) -> None:
    """Create missing topics with the settings that recovery needs."""
    config = load_config(config_file, bus__url=bus)
    from connectors.bus.kafka_topics import TOPICS, Admin
    from engine.commands.cluster import kafka_errors, settings_of

    with kafka_errors(), Admin(settings_of(config)) as admin:
        made = admin.create(partitions, replication, retention)
    for name in TOPICS:
        full = config.bus.kafka.prefix + name
        click.echo(f"{full}: {'created' if full in made else 'existed'}")


@topics.command("describe")
@BUS
@CONFIG
def topics_describe(bus: str | None, config_file: Path | None) -> None:
    """Print the settings of the topics; exit 1 if one of them breaks recovery."""
    config = load_config(config_file, bus__url=bus)
    from connectors.bus.kafka_topics import TOPICS, Admin, describe
    from engine.commands.cluster import kafka_errors, settings_of

    with kafka_errors(), Admin(settings_of(config)) as admin:
        found = {t.name: t for t in admin.describe()}
    bad = []
    for kind in TOPICS:
        lines, broken = describe(kind, found.get(config.bus.kafka.prefix + kind), config.bus.kafka.prefix)
        click.echo("\n".join(lines))
        bad += broken
    if bad:
        raise OutputError(bad[0])


@click.command()
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="PATH…")
@click.option("-o", "--output", type=FILE, help="Parquet file to write.")
@click.option(
    "--by", metavar="LABEL[,LABEL]", help="Print connections and alarms by label: hits and false alarms."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def scores(paths: tuple[Path, ...], output: Path | None, by: str | None, as_json: bool) -> None:
    """Print scores of files or of detectors' directories as JSON lines, count them by label, or merge them.

    Repeated rows in directories are dropped, and missing offsets are reported.
    """
    from connectors.files.parquet import ParquetFile
    from engine.commands.scores import by_label, gather, json_lines
    from engine.commands.summary import print_by_label

    merged = gather(paths)
    if by is not None:
        names = by.split(",")
        if "" in names or len(set(names)) < len(names):
            raise ConfigError(f"--by {by}: give each label once, separated by commas")
        print_by_label(by_label(merged.table, names, str(paths[0])), as_json)
    if output is None and by is None:
        for line in json_lines(merged.table):
            click.echo(json_for_stdout(line))
    if output is not None:
        with whole(output, lambda: ParquetFile(output, merged.table.schema)) as file:
            file.write(merged.table)
        click.echo(
            f"{merged.table.num_rows:,} rows; dropped {merged.repeated:,} equal repeats and "
            f"{merged.superseded:,} provisional ends",
            err=as_json,
        )
    if merged.gaps:
        where = "; ".join(
            f"partition {p}: " + ", ".join(f"{a}..{b - 1}" for a, b in g) for p, g in merged.gaps.items()
        )
        raise InputError(f"missing offsets, covered by no file: {where}")
