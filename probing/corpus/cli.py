"""`wiresonde corpus`: commands about labelled traffic that is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from engine.commands.options import FILE
from engine.errors import ConfigError

EXIT_FAULT, EXIT_TOO_FEW = 1, 3


@click.group()
def corpus() -> None:
    """Examine labelled traffic."""


@corpus.command("check")
@click.argument("what", metavar="CORPUS", type=FILE)
@click.option("--labels", type=FILE, help="Label file, where CORPUS is a capture that the lab did not make.")
@click.option(
    "--parts", type=FILE, help="CSV file with columns run and part: the split to check. [default: own]"
)
@click.option(
    "--copies", type=click.FloatRange(0, 1), default=0.25, show_default=True,
    help="Largest share of an activity's connections that may have a near-duplicate in another part.",
)  # fmt: skip
@click.option(
    "--block", type=click.FloatRange(min=1), default=600, show_default=True,
    help="With --labels without a column run: seconds of a block; a source host in a block is a run.",
)  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of resampling.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def check_corpus(
    what: Path, labels: Path | None, parts: Path | None, copies: float, block: float, seed: int, as_json: bool
) -> None:
    """Check whether traffic is hard enough to learn from, or something trivial gives the attacks away.

    CORPUS: FOLDER/NAME of the lab's, or one of its files. Exit 1: a fault was found, and is named. Exit 3: no fault,
    but too few connections or runs to tell. Exit 0: nothing was found.
    """
    from probing.corpus.check import Settings, check
    from probing.corpus.check_text import lines
    from probing.corpus.corpus import is_of_lab, read_corpus
    from probing.corpus.labelled import of_capture, of_corpus

    if labels is None and what.is_file() and not is_of_lab(what):
        raise ConfigError(
            f"{what}: no manifest of the lab beside it: a capture of others needs --labels FILE"
        )
    known = of_corpus(read_corpus(what)) if labels is None else of_capture(what, labels, block)
    report = check(known, Settings(seed, copies, parts))
    click.echo(json.dumps(report.as_json(), default=str) if as_json else "\n".join(lines(report)))
    if report.outcome != "passed":
        sys.exit(EXIT_FAULT if report.outcome == "fault" else EXIT_TOO_FEW)
