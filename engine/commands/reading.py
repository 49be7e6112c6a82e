"""Captures -> frames, packets and connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from connectors.files.bpf import FilterError, FrameFilter
from connectors.files.frames import FrameBlock
from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from engine.config import Config
from engine.connections.bounds import SPARE
from engine.connections.layout import CONNECTION, SIDE
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.errors import ConfigError, InputError
from engine.headers.decode import decode
from engine.sensor.tally import Tally
from engine.types import Packets, Rows, join_rows, rows_at

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes read, total bytes if known


@dataclass(frozen=True)
class Choice:
    """The packets of captures to read, and where they are counted."""

    expression: str = ""  # filter in tcpdump's language; empty: all packets
    link_layer: bool = False  # whether frames that are not IP have connection records, too
    tally: Tally = field(default_factory=Tally)


def check_captures(paths: Sequence[Path], output: Path | None = None, config: Path | None = None) -> None:
    """Raise InputError for a missing capture, ConfigError for an output that is an input.

    Called before anything is read or written.
    """
    for path in paths:
        if str(path) != "-" and not path.exists():
            raise InputError(f"{path}: No such file or directory")
    if output is not None and (output.is_file() or output.is_fifo()):
        for path in (*paths, *([config] if config else [])):
            if str(path) != "-" and path.samefile(output):
                what = "the configuration" if path is config else "one of the captures"
                raise ConfigError(f"{output}: this is {what} and would be overwritten: give another file")


def frames(
    paths: Sequence[Path], block: int, progress: Progress | None = None, choice: Choice | None = None
) -> Iterator[FrameBlock]:
    """The frames of captures, one capture after the other; a block without frames tells of a loss.

    choice: its filter is applied, and its tally gets the files' counts. Raises InputError naming file and byte,
    ConfigError for a filter that cannot be compiled.
    """
    choice = choice or Choice()
    chosen = FrameFilter(choice.expression) if choice.expression.strip() else None
    counts = choice.tally.files
    done = 0
    sizes = [path.stat().st_size if path.is_file() else None for path in paths]
    total = sum(s for s in sizes if s is not None) if None not in sizes else None
    for number, path in enumerate(paths):
        logger.info("reading capture=%s", path)
        try:
            with CaptureFile(path, frames_per_block=block, counts=counts) as capture:
                for frame_block in capture:
                    passed = frame_block if chosen is None else chosen.apply(frame_block)
                    counts.filtered += len(frame_block) - len(passed)
                    if len(passed) or passed.dropped:
                        yield passed
                    if progress is not None:
                        progress(done + capture.position, total)
                done += capture.position
        except CaptureError as error:
            raise _damaged(error, path, len(paths) - number - 1) from error
        except FilterError as error:
            raise ConfigError(str(error)) from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error


def _damaged(error: CaptureError, path: Path, rest: int) -> InputError:
    """The error of a capture after which ``rest`` more were to be read."""
    cause = error.__cause__
    if isinstance(cause, OSError) and error.offset == 0:
        return InputError(f"{path}: {cause.strerror or cause}")
    more = f"; {rest} more {'captures were' if rest > 1 else 'capture was'} not read" if rest else ""
    return InputError(f"{error}{more}")


def read_packets(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None,
    choice: Choice | None = None,
) -> Iterator[Packets]:  # fmt: skip
    """Decoded packets of captures, block by block; counted in the choice's tally."""
    return (p for p, _ in _read(paths, config or Config(), progress, choice or Choice()) if p.ts.size)


def _read(
    paths: Sequence[Path], config: Config, progress: Progress | None, choice: Choice
) -> Iterator[tuple[Packets, int]]:
    """Decoded packets, and number of packets that were lost before them."""
    for frame_block in frames(paths, 4096, progress, choice):
        p = decode(frame_block, config.decode)
        choice.tally.take(frame_block, p)
        yield p, frame_block.dropped


def read_connection_tables(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None,
    choice: Choice | None = None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Connection records of captures in the order of their ends; counted in the choice's tally.

    Raises InputError for a damaged capture, after the connections before the damage.
    """
    config, choice = config or Config(), choice or Choice()
    tracker = Tracker(config.connections, SPARE)
    waiting: list[tuple[Rows, Rows]] = []
    count = 0
    problem: InputError | None = None
    try:
        for p, dropped in _read(paths, config, progress, choice):
            if dropped:
                tracker.mark_loss()
            for tracked in tracker.track(p):
                for slots in (tracked.going_on(), tracked.closed):
                    if slots.size:
                        waiting.append(tracker.rows(slots))
                        count += slots.size
            if count >= SPARE:
                yield _records(waiting, choice)
                waiting, count = [], 0
    except InputError as error:
        problem = error
    waiting.extend(tracker.rows(slots) for slots in tracker.flush())
    choice.tally.follow([tracker.counters])
    yield _records(waiting, choice)
    if problem is not None:
        raise problem


def _records(parts: list[tuple[Rows, Rows]], choice: Choice) -> pa.Table:
    if not parts:
        return connection_table(np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE))
    rows, sides = (join_rows(list(columns)) for columns in zip(*parts))
    shown = np.ones(rows.size, bool) if choice.link_layer else rows["ethertype"] == 0
    return connection_table(rows_at(rows, shown), rows_at(sides, shown))


def read_connections(paths: Sequence[Path], config: Config | None = None) -> pa.Table:
    """All connection records of captures as one table."""
    return pa.concat_tables(list(read_connection_tables(paths, config)))
