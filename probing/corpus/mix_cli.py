"""`wiresonde lab mix`: a corpus in a background capture."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.commands.console import say
from engine.commands.options import FILE

if TYPE_CHECKING:
    from probing.corpus.mapping import Hosts, Place


@click.command("mix")
@click.argument("background", type=FILE)
@click.argument("corpus", type=FILE)
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    required=True,
    help="Folder, or FOLDER/NAME, for capture, labels and manifest.",
)
@click.option(
    "--map-hosts", type=click.Choice(["none", "clients", "servers", "all"]), default="none", show_default=True,
    help="Hosts of the lab that get address and MAC of a host of the background.",
)  # fmt: skip
@click.option(
    "--place", type=click.Choice(["even", "random", "start"]), default="even", show_default=True,
    help="Times of the runs: spread evenly, drawn, or as they were from the begin of the window on.",
)  # fmt: skip
@click.option(
    "--begin",
    type=float,
    default=0.0,
    show_default=True,
    help="Begin of the window, s from the first packet.",
)
@click.option(
    "--end", type=float, help="End of the window, s from the first packet. [default: the background's]"
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of all choices.")
def mix_corpus(
    background: Path, corpus: Path, out: str, map_hosts: Hosts, place: Place, begin: float, end: float | None,
    seed: int,
) -> None:  # fmt: skip
    """Mix a corpus of the lab into a capture of other traffic.

    BACKGROUND: a pcap or pcapng file of Ethernet, also compressed. CORPUS: FOLDER/NAME of the lab's, or one of its
    files. Background packets stay as they are and in their order. Runs keep their internal times.
    """
    from probing.corpus.corpus import read_corpus
    from probing.corpus.mix import How, mix, stem_of

    given = read_corpus(corpus)
    target = stem_of(out, given.name)
    how = How(map_hosts, place, begin, end, seed)
    manifest = mix(background, given, target, how, shlex.join(["wiresonde", *sys.argv[1:]]))
    mixed = manifest["mixed"]
    say(f"{target.name}: {manifest['connections']:,} connections ({mixed['packets']:,} packets) in "
        f"{mixed['background']['packets']:,} packets of {background.name}; {len(mixed['hosts']):,} hosts mapped, "
        f"{len(mixed['ports']):,} ports changed: {target}.pcap.zst")  # fmt: skip
