"""`wiresonde lab import`: label files of other people's corpora."""

from __future__ import annotations

import click


@click.group("import")
def import_labels() -> None:
    """Label files for captures of other laboratories."""
