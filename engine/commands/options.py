"""Options and arguments that commands share, and how the configuration is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Config
    from engine.scoring.trace import Selection


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


LEAST_LEARN = 10  # packets: 1 to map, 7 to learn, 2 to calibrate
LEARN = click.option(
    "--learn",
    type=int,
    help="Learn from the first N packets (of each partition): 80 %, of which Kitsune's map takes an eighth; "
    "calibrate with 20 %.",
)
MODELS = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Score with this bundle as it is, as model NAME [default: the bundle's kind]; may be repeated.",
)
TRACE = click.option(
    "--trace",
    multiple=True,
    metavar="SELECTOR",
    help="Write every packet of the chosen connections and each model's score of it: a uid, a "
    "community id, probe=N or label.NAME=VALUE; may be repeated. Needs --out.",
)


def learning(n: int | None, models: Sequence[str] = ()) -> int | None:
    """What --learn says, checked. Raises ConfigError."""
    if n is None:
        return None
    if models:
        raise ConfigError("--learn and --model exclude each other: a bundle is scored with as it is")
    if n < LEAST_LEARN:
        raise ConfigError(f"--learn {n}: at least {LEAST_LEARN} packets are needed")
    return n


def selection(trace: Sequence[str]) -> Selection | None:
    """What --trace says, None without it. Raises ConfigError."""
    from engine.scoring.trace import parse_selectors

    return parse_selectors(trace) if trace else None


def load_config(path: Path | None, learn: int | None = None, **changes: Any) -> Config:
    """The configuration of a file, with values of the command line in place of its own (``section__key``).

    learn: packets that its models shall learn and calibrate with, None: as it says.
    """
    from engine import config

    found = config.replace(
        config.load(path), "command line", {k.replace("__", "."): v for k, v in changes.items()}
    )
    return found if learn is None else config.with_learning(found, learn)
