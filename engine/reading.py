"""Captures in, frames, packets and connections out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from connectors.frames import FrameBlock
from connectors.pcap import CaptureError, CaptureFile
from engine.config import Config
from engine.connections.layout import CONNECTION, SIDE
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.decode import decode
from engine.detector import SPARE
from engine.errors import InputError
from engine.types import Packets, Rows, join_rows

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]  # bytes read, bytes in all if known


def frames(paths: Sequence[Path], block: int, progress: Progress | None = None) -> Iterator[FrameBlock]:
    """All frames of some captures, one capture after the other. Raises InputError naming file and byte."""
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
            more = f"; {rest} more captures were not read" if rest else ""
            raise InputError(f"{error}{more}") from error
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error


def read_packets(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None
) -> Iterator[Packets]:
    """Decoded packets of some captures, block by block."""
    config = config or Config()
    for frame_block in frames(paths, 4096, progress):
        yield decode(frame_block, config.decode)


def read_connection_tables(
    paths: Sequence[Path], config: Config | None = None, progress: Progress | None = None
) -> Iterator[pa.Table]:
    """Connection records of some captures, in the order in which they ended.

    Raises InputError, after the connections of what came before the damage.
    """
    config = config or Config()
    tracker = Tracker(config.connections, SPARE)
    waiting: list[tuple[Rows, Rows]] = []
    count = 0
    problem: InputError | None = None
    try:
        for p in read_packets(paths, config, progress):
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
    yield _records(waiting)
    if problem is not None:
        raise problem


def _records(parts: list[tuple[Rows, Rows]]) -> pa.Table:
    if not parts:
        return connection_table(np.zeros(0, CONNECTION), np.zeros((0, 2), SIDE))
    return connection_table(*(join_rows(list(columns)) for columns in zip(*parts)))


def read_connections(paths: Sequence[Path], config: Config | None = None) -> pa.Table:
    """All connection records of some captures as one table."""
    return pa.concat_tables(list(read_connection_tables(paths, config)))
