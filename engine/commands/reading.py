"""Captures -> frames, packets and connections."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

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
from engine.headers.link_types import link_type_name
from engine.types import NO_LOSS, Packets, Reason, Rows, count_unread, join_rows, unopened_tunnels

logger = logging.getLogger(__name__)

LATE_SHARE = 0.01  # share of late packets above which a note is made

Progress = Callable[[int, int | None], None]  # bytes read, total bytes if known


@dataclass
class Read:
    """Counts made while reading captures."""

    packets: int = 0
    unread: Counter[str] = field(default_factory=Counter)  # packets not fully read, by reason
    link_types: Counter[int] = field(default_factory=Counter)  # packets by link type without a decoder
    evicted: int = 0  # connections ended early because the table was full
    late: int = 0  # packets older than ones before them

    def take(self, frame_block: FrameBlock, p: Packets) -> None:
        """Count a block."""
        self.packets += p.ts.size
        if unread := count_unread(p):
            self.unread.update(unread)
            self.link_types.update(frame_block.link_type[p.reason == Reason.LINK_TYPE].tolist())

    def notes(self) -> list[str]:
        """Notes for the user, one line each."""
        notes = []
        if n := self.unread["link_type"]:
            names = ", ".join(link_type_name(number) for number in sorted(self.link_types))
            notes.append(f"{n:,} packets not read: no decoder for link type {names}")
        if reasons := {k: n for k, n in self.unread.items() if k != "link_type" and k not in NO_LOSS}:
            shown = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
            notes.append(f"{sum(reasons.values()):,} packets whose headers could not all be read: {shown}")
        if tunnels := unopened_tunnels(self.unread):
            names, n = ", ".join(sorted(tunnels)), sum(tunnels.values())
            notes.append(f"{n:,} packets carry tunnels ({names}) that decode.tunnels does not name")
        if self.evicted:
            notes.append(
                f"{self.evicted:,} connections ended early, the table was full: raise connections.capacity"
            )
        if late := late_note(self.late, self.packets):
            notes.append(late)
        return notes


def late_note(late: int, packets: int) -> str | None:
    """A note on late packets if they are many, else None."""
    if late <= LATE_SHARE * packets:
        return None
    return f"{late:,} packets are older than earlier ones: are the captures in order of time?"


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


def frames(paths: Sequence[Path], block: int, progress: Progress | None = None) -> Iterator[FrameBlock]:
    """All frames of captures, one capture after the other. Raises InputError naming file and byte."""
    done = 0
    sizes = [path.stat().st_size if path.is_file() else None for path in paths]
    total = sum(s for s in sizes if s is not None) if None not in sizes else None
    for path in paths:
        logger.info("reading capture=%s", path)
        try:
            with CaptureFile(path, frames_per_block=block) as capture:
                for frame_block in capture:
                    yield frame_block
                    if progress is not None:
                        progress(done + capture.position, total)
                done += capture.position
        except CaptureError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and error.offset == 0:
                raise InputError(f"{path}: {cause.strerror or cause}") from error
            rest = len(paths) - paths.index(path) - 1
            more = f"; {rest} more {'captures were' if rest > 1 else 'capture was'} not read" if rest else ""
            raise InputError(f"{error}{more}") from error
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error


def read_packets(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None,
    read: Read | None = None,
) -> Iterator[Packets]:  # fmt: skip
    """Decoded packets of captures, block by block; counted in ``read``."""
    config, read = config or Config(), read or Read()
    for frame_block in frames(paths, 4096, progress):
        p = decode(frame_block, config.decode)
        read.take(frame_block, p)
        yield p


def read_connection_tables(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None,
    read: Read | None = None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Connection records of captures in the order of their ends; counted in ``read``.

    Raises InputError for a damaged capture, after the connections before the damage.
    """
    config, read = config or Config(), read or Read()
    tracker = Tracker(config.connections, SPARE)
    waiting: list[tuple[Rows, Rows]] = []
    count = 0
    problem: InputError | None = None
    try:
        for p in read_packets(paths, config, progress, read):
            for tracked in tracker.track(p):
                if tracked.closed.size:
                    waiting.append(tracker.rows(tracked.closed))
                    count += tracked.closed.size
            if count >= SPARE:
                yield _records(waiting)
                waiting, count = [], 0
    except InputError as error:
        problem = error
    waiting.extend(tracker.rows(slots) for slots in tracker.flush())
    read.evicted, read.late = tracker.counters["evicted"], tracker.counters["late_packets"]
    yield _records(waiting)
    if problem is not None:
        raise problem


def _records(parts: list[tuple[Rows, Rows]]) -> pa.Table:
    if not parts:
        return connection_table(np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE))
    return connection_table(*(join_rows(list(columns)) for columns in zip(*parts)))


def read_connections(paths: Sequence[Path], config: Config | None = None) -> pa.Table:
    """All connection records of captures as one table."""
    return pa.concat_tables(list(read_connection_tables(paths, config)))
