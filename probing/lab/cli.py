"""`wiresonde lab`: commands that make labelled traffic."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.commands.console import interrupts
from engine.errors import ConfigError
from probing.corpus.mix_cli import mix_corpus
from probing.imports.cli import import_labels

if TYPE_CHECKING:
    from probing.lab.campaign import Campaign, Progress

LINE_S = 60.0  # seconds between lines of progress where there is no terminal
WORDS = click.argument("what", nargs=-1, required=True, metavar="SCENARIO|CORPUS…")


@click.group()
def lab() -> None:
    """Make real traffic under controlled conditions, with labels."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


lab.add_command(import_labels)
lab.add_command(mix_corpus)


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_all(as_json: bool) -> None:
    """List scenarios and corpora."""
    from probing.lab import catalog

    if as_json:
        known = {
            "scenarios": {name: given.model_dump(mode="json") for name, given in catalog.scenarios().items()},
            "corpora": {name: catalog.find(name).model_dump(mode="json") for name in catalog.corpora()},
        }
        click.echo(json.dumps(known))
        return
    for name, given in catalog.scenarios().items():
        click.echo(f"{name}: {_line(given.about)}")
        click.echo(f"  servers     {', '.join(given.servers)}")
        click.echo(f"  clients     {', '.join(given.clients)}")
        for activity, does in given.activities.items():
            attack = f" [attack: {does.attack_kind}]" if does.attack else ""
            click.echo(f"  {activity:<22}{_line(does.about)}{attack}")
    click.echo("")
    for name in catalog.corpora():
        corpus = catalog.find(name)
        runs = catalog.expand(corpus)
        click.echo(
            f"{name}: {_line(corpus.about)} ({len(runs):,} runs, {sum(r.samples for r in runs):,} samples)"
        )


def _line(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


@lab.command("check")
@click.argument("what", nargs=-1, metavar="[SCENARIO|CORPUS]…")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def check_machine(what: tuple[str, ...], as_json: bool) -> None:
    """Report what is missing here, and what the lab does to the machine. Exit 1 when something needed is missing.

    For a corpus also: labels that always go together in its runs, the fewest runs of a level, and the least effect that
    these can show (80 % power at 5 % over all labels, in standard deviations of runs).
    """
    from probing.lab import catalog, check, confounding

    found = check.report(what)
    designs = {corpus.name: confounding.examine(catalog.expand(corpus)) for corpus in map(catalog.find, what)}
    if as_json:
        parts = {name: [confounding.as_dict(one) for one in parts] for name, parts in designs.items()}
        click.echo(json.dumps(found | {"designs": parts}))
    else:
        for ability in found["abilities"]:
            state = "yes" if ability["there"] else "NO" if ability["needed"] else "no"
            click.echo(f"{ability['name']:<12}{state:<5}{ability['says']}".rstrip())
        for program, there in found["programs"].items():
            click.echo(
                f"{program:<12}{'yes' if there else 'NO  for ' + ', '.join(found['missing'][program])}"
            )
        for where, line in found["install"].items():
            click.echo(f"{where}: {line}")
        click.echo("What a run does to this machine:")
        for line in found["may"]:
            click.echo(f"  {line}")
        for name, examined in designs.items():
            click.echo(f"What {name} can tell apart:")
            for line in confounding.told(examined):
                click.echo(f"  {line}")
    if found["missing"] or any(a["needed"] and not a["there"] for a in found["abilities"]):
        sys.exit(1)


@lab.command("run")
@WORDS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for captures and labels.")
@click.option(
    "--jobs", "-j", type=click.IntRange(1, 64), help="Number of runs at the same time. [default: processors]"
)
@click.option("--seed", type=int, help="Seed of all choices. [default: the corpus's]")
@click.option(
    "--vantage", type=click.Choice(["client", "server", "both"]),
    help="End of the link at which to capture. [default: the corpus's]",
)  # fmt: skip
@click.option(
    "--share", type=float, default=1.0, help="Share of each run's samples to do, at least one sample."
)
@click.option("--headers", is_flag=True, help="Keep headers only: frames are cut behind TCP, UDP or IP.")
@click.option(
    "--link", type=click.Choice(["auto", "user", "netem"]), default="auto", show_default=True,
    help="Link that delays packets: user is this program's, netem the kernel's. auto is user, and an error where it "
    "gets no real-time priority.",
)  # fmt: skip
@click.option(
    "--keep", is_flag=True, help="Keep the folder of runs, with each run's captures, logs and account."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
def run_all(
    what: tuple[str, ...], out: Path, jobs: int | None, seed: int | None, vantage: str | None, share: float,
    headers: bool,
    link: str, keep: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Make corpora, each a capture with labels and a manifest. Continues where it was stopped."""
    from probing.lab import catalog, check
    from probing.lab.campaign import Campaign
    from probing.lab.errors import LabError
    from probing.lab.run import How
    from probing.lab.vantage import FULL, HEADERS

    if not dry_run and (problem := check.require(what)):
        raise LabError(f"{problem}; for more run: wiresonde lab check {' '.join(what)}")
    changes: dict[str, Any] = {} if seed is None else {"seed": seed}
    if vantage is not None:
        changes["vantage"] = ("client", "server") if vantage == "both" else (vantage,)
    campaigns = []
    for word in what:
        corpus = catalog.thinned(catalog.find(word).model_copy(update=changes), share)
        how = How(HEADERS if headers else FULL, check.link(link) if not dry_run else "user")
        campaigns.append(Campaign(corpus, catalog.expand(corpus), out, jobs or os.cpu_count() or 1, how))
    if len({campaign.corpus.name for campaign in campaigns}) < len(campaigns):
        raise ConfigError("two corpora of the same name would overwrite each other: make them one at a time")
    if dry_run:
        for campaign in campaigns:
            _announce(campaign)
        return
    for campaign in campaigns:
        _make(campaign, keep)


def _announce(campaign: Campaign) -> None:
    """Print what a campaign would do."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    samples: Counter[tuple[str, str, str, str]] = Counter()
    for run in campaign.runs:
        key = run.scenario, run.activity, run.server, run.client
        counts[key] += 1
        samples[key] += run.samples
    click.echo(
        f"{campaign.corpus.name}: {len(campaign.runs):,} runs, {samples.total():,} samples, into {campaign.out}"
    )
    for key, n in sorted(counts.items()):
        click.echo(f"  {' '.join(key):<60}{n:>6,} runs {samples[key]:>8,} samples")


def _make(campaign: Campaign, keep: bool) -> None:
    """Make one corpus, and report how it ended."""
    from probing.lab.errors import LabError

    name, runs = campaign.corpus.name, len(campaign.runs)
    command = shlex.join(["wiresonde", *sys.argv[1:]])
    with _progress(name) as progress, interrupts(campaign.stop):
        outcome = campaign.make(command, progress, keep=keep)
    if outcome.discarded:
        click.echo(
            f"{name}: removed {outcome.discarded:,} finished runs that the corpus no longer has", err=True
        )
    if outcome.problems:
        run, problem = next(iter(outcome.problems.items()))
        raise LabError(
            f"{name}: {len(outcome.problems)} of {runs} runs failed; the others are kept, and the same command tries "
            f"again; {run}: {problem.splitlines()[-1]} (logs in {campaign.folder / run}.part)"
        )
    if outcome.interrupted or outcome.manifest is None:
        click.echo(
            f"interrupted: {outcome.done:,} of {runs:,} runs are done; the same command continues", err=True
        )
        sys.exit(130)
    if not outcome.made:
        click.echo(f"{name}: exists already: {campaign.out / name}.manifest.json", err=True)
        return
    manifest = outcome.manifest
    packets = next(iter(manifest["captures"].values()))["packets"]
    failed = sum(run["failed_samples"] for run in manifest["runs"])
    note = f", {failed} failed samples (column problem)" if failed else ""
    click.echo(
        f"{name}: {manifest['connections']:,} connections, {packets:,} packets in {manifest['seconds']:.0f} s{note}: "
        f"{campaign.out / name}.pcap.zst",
        err=True,
    )


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """Show the finished runs: on a terminal a bar with the time left, elsewhere a line a minute."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Progress:
    """Print once a minute how many runs are done."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > LINE_S:
            said = time.monotonic()
            click.echo(f"{what}: {done:,} of {total:,} runs", err=True)

    return progress
