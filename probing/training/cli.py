"""`wiresonde train sequence`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from engine.commands.console import counting_bar, interrupts, say
from engine.commands.options import CONFIG, FILE, load_config
from engine.errors import ConfigError

EXIT_INTERRUPTED = 130
POLICIES = ("keep", "no-acks", "drop-duplicates", "drop-late", "drop-episodes", "bytes", "stream")


@click.command("sequence")
@click.argument("corpora", metavar="CORPUS…", nargs=-1, required=True, type=FILE)
@CONFIG
@click.option("-o", "--output", type=FILE, required=True, help="Bundle to write.")
@click.option(
    "--background", type=FILE, help="Capture of general traffic to learn from, too; needs --labels."
)
@click.option("--labels", type=FILE, help="Label file of --background.")
@click.option(
    "--policy", type=click.Choice(POLICIES), default="stream", show_default=True,
    help="Packets that the model is given.",
)  # fmt: skip
@click.option(
    "--encoder", type=click.Choice(["sizes", "header"]), default="sizes", show_default=True,
    help="What it is given of each.",
)  # fmt: skip
@click.option("--identity", is_flag=True, help="With --encoder header: also bytes that identify hosts.")
@click.option("--hidden", type=int, default=64, show_default=True, help="Units of a layer.")
@click.option("--layers", type=int, default=1, show_default=True, help="Layers, 1 to 3.")
@click.option("--steps", type=int, default=4000, show_default=True, help="Most batches.")
@click.option("--rate", type=float, default=3e-3, show_default=True, help="Highest learning rate.")
@click.option(
    "--patience", type=int, default=2000, show_default=True,
    help="Steps without a better validation after which training stops.",
)  # fmt: skip
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the first weights and the order."
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True,
    help="Number of networks; bundles get -1, -2 … before the suffix.",
)  # fmt: skip
@click.option(
    "--false-positive-rate", "false_positives", type=float, default=0.01, show_default=True,
    help="Share of benign connections above the threshold.",
)  # fmt: skip
@click.option(
    "--aggregate", type=click.Choice(["last", "mean", "max"]), default="last", show_default=True,
    help="Statistic of packet scores that scores a connection.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--force", is_flag=True, help="Learn from a corpus even if `corpus check` finds fault with it.")
def train_sequence(
    corpora: tuple[Path, ...], config_file: Path | None, output: Path, background: Path | None,
    labels: Path | None, policy: str, encoder: str, identity: bool, hidden: int, layers: int, steps: int,
    rate: float, patience: int, seed: int, seeds: int, false_positives: float,
    aggregate: str, device: str, force: bool,
) -> None:  # fmt: skip
    """Train an LSTM over the packets of connections on labelled corpora, and write it as a bundle.

    CORPUS: FOLDER/NAME of the lab's, or one of its files. Runs of part train are learned from, those of part calibrate
    give the threshold; a corpus without parts is split as `corpus check` does. Needs the extra train. An interrupted
    training goes on when the command is repeated.
    """
    if (background is None) != (labels is None):
        raise ConfigError("--background and --labels belong together: give both or neither")
    if str(output) == "-":
        raise ConfigError("-o -: a bundle cannot go to stdout: give a file")
    config = load_config(config_file)
    from engine.features.tokens import TokenConfig
    from models.threshold import ThresholdConfig
    from probing.training.job import Job, Source, run
    from probing.training.recipe import Recipe

    sources = [Source(path) for path in corpora]
    if background is not None:
        sources.append(Source(background, labels))
    try:
        threshold = ThresholdConfig(false_positive_rate=false_positives)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    recipe = Recipe(hidden=hidden, layers=layers, steps=steps, rate=rate, patience=patience, seed=seed)
    tokens = TokenConfig(policy=policy, encoder=encoder, identity=identity)  # type: ignore[arg-type]
    job = Job(
        sources, output, tokens, recipe, threshold, config.connections, seeds, device, force, aggregate,  # type: ignore[arg-type]
    )  # fmt: skip
    asked: list[bool] = []
    with interrupts(lambda: asked.append(True)):
        finished = run(job, say, counting_bar, lambda: bool(asked))
    if not finished:
        sys.exit(EXIT_INTERRUPTED)
