"""Options and arguments that commands share, and how the configuration is loaded."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Config
    from engine.scoring.trace import Selection


class FilePath(click.ParamType[Path]):
    """A path. The code that opens it reports whether it can be read."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path of an argument; an empty one, which would be the current directory, is refused."""
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
    """A number of seconds in a range; refuses NaN, which passes every range check."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class Speed(click.ParamType[float]):
    """A replay speed: max, 1x, 20x, …"""

    name = "max|1x|Nx"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The multiple of real time; 0: as fast as possible."""
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


INTERFACE = click.option(
    "--interface", "-i", required=True, help="Network interface to capture from; any: all."
)

DURATION = click.option("--duration", type=Seconds(0, 1e9, min_open=True), help="Seconds until the end.")
FILTER = click.option("--filter", "expression", help="Filter in tcpdump's language.")


MAX_GAP = click.option(
    "--max-gap",
    type=Seconds(0, 1e9),
    default=0.0,
    help="With --speed: the longest pause between packets, in seconds of the capture; a longer one is "
    "shortened to it. [default: no limit]",
)


def paced(speed: float, max_gap: float) -> float:
    """The checked value of --max-gap. Raises ConfigError."""
    if max_gap and not speed:
        raise ConfigError("--max-gap needs --speed 1x, 20x, …: at full speed, replay waits for no pause")
    return max_gap


LEAST_LEARN = 10  # fewest packets for --learn: 1 to map, 7 to learn, 2 to calibrate
LEARN = click.option(
    "--learn",
    type=int,
    help="Use the first N packets of each partition: learn from 80 % (Kitsune's map takes an eighth of these), "
    "calibrate with 20 %.",
)
MODELS = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Score with this bundle, unchanged, as model NAME [default: the bundle's kind]; may be repeated.",
)
TRACE = click.option(
    "--trace",
    multiple=True,
    metavar="SELECTOR",
    help="Write the packets of chosen connections with every model's scores. SELECTOR: a uid, a community "
    "id, probe=N or label.NAME=VALUE; may be repeated. Needs --out.",
)


def learning(n: int | None, models: Sequence[str] = ()) -> int | None:
    """The checked value of --learn. Raises ConfigError."""
    if n is None:
        return None
    if models:
        raise ConfigError("--learn and --model exclude each other: a bundle does not learn")
    if n < LEAST_LEARN:
        raise ConfigError(f"--learn {n}: at least {LEAST_LEARN} packets are needed")
    return n


def selection(trace: Sequence[str]) -> Selection | None:
    """The selection of --trace, None without it. Raises ConfigError."""
    from engine.scoring.trace import parse_selectors

    return parse_selectors(trace) if trace else None


def check_pipes(*inputs: Path | None) -> None:
    """Raise ConfigError when a pipe is given for two inputs: the second would get nothing, or wait for ever."""
    seen: set[tuple[int, int] | str] = set()
    for path in inputs:
        if path is None:
            continue
        stdin = str(path) == "-"
        try:
            state = os.fstat(0) if stdin else path.stat()
        except OSError:  # whoever opens it says so
            continue
        is_pipe = stat.S_ISFIFO(state.st_mode) or stat.S_ISSOCK(state.st_mode)
        identity = (state.st_dev, state.st_ino) if is_pipe else str(path) if stdin else None
        if identity in seen:
            raise ConfigError(f"{'stdin (-)' if stdin else path} can be read only once, but is given twice")
        if identity is not None:
            seen.add(identity)


def load_config(path: Path | None, learn: int | None = None, **changes: Any) -> Config:
    """The configuration of a file, overridden by values of the command line (``section__key``).

    learn: number of packets for its models to learn and calibrate with; None: as configured.
    """
    from engine import config

    found = config.replace(
        config.load(path), "command line", {k.replace("__", "."): v for k, v in changes.items()}
    )
    return found if learn is None else config.with_learning(found, learn)
