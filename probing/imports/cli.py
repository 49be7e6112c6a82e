"""`wiresonde lab import`: commands that write label files for other people's corpora."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.commands.console import say
from engine.commands.options import FILE
from engine.errors import InputError

if TYPE_CHECKING:
    from probing.imports.cicids import Windows
    from probing.imports.detgen import Per

OUTPUT = click.option(
    "-o", "--output", type=FILE, required=True, help="Label file to write: NAME.parquet or NAME.csv."
)


@click.group("import")
def import_labels() -> None:
    """Write label files for captures that others made."""


@import_labels.command("detgen")
@click.argument("folder", type=FILE)
@OUTPUT
@click.option(
    "--per", type=click.Choice(["capture", "connection"]), default="capture", show_default=True,
    help="One row for each capture, which labels all packets of its time (and for each connection of an attack), or "
    "one for each connection.",
)  # fmt: skip
def import_detgen(folder: Path, output: Path, per: Per) -> None:
    """Label the captures of DetGen below FOLDER, from their names and the label files there.

    What cannot be used is reported on stderr, one line for all files with the same problem.
    """
    from probing.imports.detgen import MEASURED, import_folder, problem_lines
    from probing.imports.label_files import label_table, write_labels

    found = import_folder(folder, per)
    for line in problem_lines(found.problems):
        say(line)
    if not found.rows:
        raise InputError(f"{folder}: no capture could be labelled; the lines above say why")
    write_labels(label_table(found.rows, MEASURED), output)
    attacks = sum(row["attack"] == 1 for row in found.rows)
    of = f", {attacks:,} of them for connections of attacks" if attacks else ""
    say(f"{output}: {len(found.rows):,} rows for {found.captures:,} captures{of}")


@import_labels.command("cicids2017")
@OUTPUT
@click.option(
    "--windows", type=click.Choice(["published", "corrected"]), default="published", show_default=True,
    help="Times of the attacks: those on the dataset's page, or those that Liu et al. (2022) found in the captures.",
)  # fmt: skip
@click.option("--benign", is_flag=True, help="Add a row for all other traffic of each day, with attack 0.")
def import_cicids2017(output: Path, windows: Windows, benign: bool) -> None:
    """Write the attacks of CIC-IDS2017: who attacked whom, and when. Needs no capture."""
    from probing.imports.cicids import label_rows
    from probing.imports.label_files import label_table, write_labels

    rows = label_rows(windows, benign)
    write_labels(label_table(rows), output)
    say(f"{output}: {len(rows)} rows")
