"""Options and arguments that commands share, and how the configuration is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from engine.config import Config


class FilePath(click.ParamType[Path]):
    """A path; whether it can be read is said where it is opened, with the reason."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Refuse what would be the current directory by mistake."""
        if str(value) == "":
            self.fail("a path cannot be empty", param, ctx)
        return Path(value)


FILE = FilePath()
CAPTURES = click.argument("captures", nargs=-1, required=True, type=FILE, metavar="PCAP…")
CONFIG = click.option("--config", "-c", "config_file", type=FILE, help="YAML configuration.")
BUS = click.option(
    "--bus", metavar="kafka://HOST:PORT,…", help="Kafka. [default: bus.url of the configuration]"
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


INTERFACE = click.option("--interface", "-i", required=True, help="Network interface to capture from.")

DURATION = click.option("--duration", type=Seconds(0, 1e9, min_open=True), help="Seconds, then end.")
FILTER = click.option("--filter", "expression", help="Capture filter, as tcpdump takes it.")


def load_config(path: Path | None, **changes: Any) -> Config:
    """The configuration of a file, with values of the command line in place of its own (``section__key``)."""
    from engine import config

    return config.replace(
        config.load(path), "command line", {k.replace("__", "."): v for k, v in changes.items()}
    )
