"""Capture files as blocks of frames: pcap here, pcapng in pcapng.py, both also compressed or from a pipe.

Formats: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html and the same group's pcapng draft.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from connectors.files import pcapng
from connectors.files.compressed import Unpacked, compression
from connectors.files.counts import FileCounts
from connectors.files.frames import FrameBlock
from connectors.files.magic import (
    MICROSECONDS,
    MODIFIED,
    NANOSECONDS,
    begins_pcap,
    begins_pcapng,
    not_a_capture,
    zeros_end,
)
from connectors.files.window import (
    MAX_CAPTURED,
    Bytes,
    CaptureError,
    Columns,
    Mapped,
    Streamed,
    Window,
    block,
    columns,
    u32,
    zeros,
)
from connectors.kernels import kernel

CHUNK = 1 << 16  # bytes of one read from a pipe or a compressed file

# magic, most significant byte first -> (nanoseconds of a tick, bytes of a record header)
MAGIC = {MICROSECONDS: (1000, 16), NANOSECONDS: (1, 16), MODIFIED: (1000, 24)}


class CaptureFile:
    """The frames of a capture, once, in file order, at most `frames_per_block` a block.

    path: pcap or pcapng of either byte order, plain or gzip, zstd or xz; '-' is stdin. A plain file is mapped
    and its frames are not copied; the map lives as long as any block. From a pipe, blocks come as soon as
    complete frames are there. A damaged file gives all complete frames before the damage, then raises CaptureError.
    Captures that were joined into one file, as by `cat`, are read one after the other.

    A block begins where the file reports a loss, and has its `dropped`; it may hold no frame if that is at the end.
    counts: receives what the file reports of itself.
    """

    def __init__(
        self, path: str | Path, *, frames_per_block: int = 4096, counts: FileCounts | None = None
    ) -> None:
        if frames_per_block < 1:
            raise ValueError(f"frames_per_block {frames_per_block} must be >= 1")
        self.path = "stdin" if str(path) == "-" else str(path)
        self.counts = FileCounts() if counts is None else counts
        self._limit = frames_per_block
        try:
            self._file = _stdin() if str(path) == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._own = str(path) != "-"
            state = os.fstat(self._file)
        except OSError as error:
            raise CaptureError(self.path, 0, error.strerror or str(error)) from error
        regular = stat.S_ISREG(state.st_mode)
        self.size: int | None = state.st_size if regular else None  # bytes of the file on disk
        self.position = 0  # bytes of the file used so far
        self._regular = regular and self._own
        self._mappable = self._regular and state.st_size > 0  # /proc gives its files size 0
        self._head = b""  # bytes read to recognise the file, still to be passed on

    def __iter__(self) -> Iterator[FrameBlock]:
        packed = self._recognise()
        try:
            yield from self._blocks(packed)
        except CaptureError as error:
            if packed is None or isinstance(error.__cause__, OSError):  # that names a byte of the file itself
                raise
            raise CaptureError(self.path, error.offset, error.problem, unpacked=True) from error.__cause__

    def _blocks(self, packed: str | None) -> Iterator[FrameBlock]:
        window = self._window(packed)
        at: int | None = window.grow(0, 4)
        if packed is not None and not window.data.size:
            raise CaptureError(self.path, 0, "the unpacked file is empty")
        while at is not None:
            at = window.grow(at, 4)
            read = pcapng.read if window.data[at : at + 4].tobytes() == pcapng.MAGIC else _read
            at = yield from self._following(window, read(window, at, self.path, self._limit, self.counts))
            if at is not None:
                self.counts.join(self.path, window.base + at)
        if isinstance(window, Mapped):
            self.position = window.data.size

    def _following(
        self, window: Window, blocks: Generator[FrameBlock, None, int | None]
    ) -> Generator[FrameBlock, None, int | None]:
        """The blocks of one capture, keeping the position up to date."""
        while True:
            try:
                frames = next(blocks)
            except StopIteration as ended:
                return ended.value  # type: ignore[no-any-return]
            if isinstance(window, Mapped) and len(frames):
                self.position = int(frames.start[-1]) + int(frames.captured[-1])
            yield frames

    def close(self) -> None:
        """Close the file. Blocks stay valid."""
        if self._own:
            self._own = False
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recognise(self) -> str | None:
        """The compression of the file, from its first bytes; reads no further."""
        while len(self._head) < 6 and (part := self._read_raw(6 - len(self._head))):
            self._head += part
        if not self._head:
            raise CaptureError(self.path, 0, "the file is empty")
        return compression(self._head)

    def _window(self, packed: str | None) -> Window:
        if packed is not None:
            return Streamed(
                Unpacked(packed, self._read, self._rewound if self._regular else None).read, self.path
            )
        if self._mappable:
            return Mapped(self._file)
        return Streamed(self._read, self.path)

    def _rewound(self) -> Callable[[], bytes]:
        os.lseek(self._file, 0, os.SEEK_SET)
        return self._read

    def _read(self) -> bytes:
        head, self._head = self._head, b""
        return head or self._read_raw(CHUNK)

    def _read_raw(self, size: int) -> bytes:
        try:
            part = os.read(self._file, size)
        except OSError as error:
            raise CaptureError(self.path, self.position, error.strerror or str(error)) from error
        self.position += len(part)
        return part


def _stdin() -> int:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "stdin is closed")
    return sys.stdin.fileno()


class _Format(NamedTuple):
    """Facts about the records from the file header."""

    big: bool
    tick: int  # ns
    header: int  # bytes of a record's header
    always: bool  # whether the two lengths of a record are swapped
    swapped: bool  # whether they may be: in version 2.3 the smaller one is the captured length


# why _index stopped: columns full, bytes missing, absurd length, a record of zeros, another capture's header
_WHOLE, _MORE, _LONG, _ZEROS, _JOINED = range(5)


def _read(
    window: Window, at: int, path: str, limit: int, counts: FileCounts
) -> Generator[FrameBlock, None, int | None]:
    """The frames of the pcap file whose header is at index ``at``; returns the index of a capture behind it."""
    at = window.grow(at, 24)
    form, link_type = _header(window, at, path)
    at += 24
    real = 0  # byte of the file up to which zeros are records: other bytes follow
    while True:
        rows = columns(limit)
        window.hold(path, at)
        n, at, problem, need, over = _index(window.data, at, form, rows, real - window.base)
        _count_over(counts, form.tick, over)
        if n:
            rows.link_type[:n] = link_type
            yield block(window.data, rows, n)
        if problem == _LONG:
            raise CaptureError(
                path, window.base + at, f"packet record claims {need} bytes, limit {MAX_CAPTURED}"
            )
        if problem == _JOINED:
            return at
        if problem == _ZEROS:
            begin = window.base + at
            at, skipped = _skip_zeros(window, at, form.header)
            real = window.base + zeros_end(window.data, at)
            if real == window.base + window.data.size:
                raise CaptureError(path, begin, zeros(begin, real))
            yield from _empty(window, skipped, limit, link_type)
        if problem == _MORE:
            at = window.grow(at, need)
            left = window.data.size - at
            if left == 0:
                return None
            if left < need:
                begin, end = window.base + at, window.base + window.data.size
                if need == form.header and zeros_end(window.data, at) == window.data.size:
                    raise CaptureError(path, begin, zeros(begin, end))
                raise CaptureError(path, begin, f"packet record needs {need} bytes, the file has {left} more")


def _count_over(counts: FileCounts, tick: int, over: int) -> None:
    if tick == 1:
        counts.over_ns += over
    else:
        counts.over_us += over


def _skip_zeros(window: Window, at: int, header: int) -> tuple[int, int]:
    """Go over zero bytes that fill the window to its end, in whole records: (next index, records passed over)."""
    skipped = 0
    while (end := zeros_end(window.data, at)) == window.data.size:
        here = window.base + end
        passed = (end - at) // header
        at = window.grow(at + passed * header, end - at - passed * header + 1)
        if window.base + window.data.size == here:
            return at, skipped
        skipped += passed
    return at, skipped


def _empty(window: Window, n: int, limit: int, link_type: int) -> Iterator[FrameBlock]:
    """n frames without a byte, at time 0, whose records of zeros have left the window."""
    for begin in range(0, n, limit):
        rows = columns(limit)
        for column in rows:
            column[:] = 0
        rows.link_type[:] = link_type
        yield block(window.data, rows, min(limit, n - begin))


def _header(window: Window, at: int, path: str) -> tuple[_Format, int]:
    """Format and link type of the pcap file whose header is at index ``at``."""
    head, begin = window.data[at : at + 24].tobytes(), window.base + at
    order: Literal["big", "little"] = "big" if int.from_bytes(head[:4], "big") in MAGIC else "little"
    if int.from_bytes(head[:4], order) not in MAGIC:
        raise CaptureError(path, begin, not_a_capture(head))
    if len(head) < 24:
        raise CaptureError(path, begin, f"pcap file header needs 24 bytes, the file has {len(head)}")
    tick, size = MAGIC[int.from_bytes(head[:4], order)]
    major, minor = int.from_bytes(head[4:6], order), int.from_bytes(head[6:8], order)
    if (major, minor) != (543, 0) and (major != 2 or minor > 4):
        raise CaptureError(path, begin + 4, f"pcap version {major}.{minor} is not 2.0 to 2.4")
    network = int.from_bytes(head[20:24], order)
    if network & 0x03FF0000:
        raise CaptureError(path, begin + 20, f"link type {network:#010x} has reserved bits set")
    always = major == 543 or minor < 3
    return _Format(order == "big", tick, size, always, major == 543 or minor <= 3), network & 0xFFFF


@kernel
def _index(data: Bytes, at: int, form: _Format, rows: Columns, real: int) -> tuple[int, int, int, int, int]:
    """Find records from `at` until rows are full: (rows, next index, why it stopped, bytes it claims, fractions that
    are a second or more). real: index before which a record of zeros is a packet.
    """
    tick, header, big = form.tick, form.header, form.big
    second = 1_000_000_000 // tick
    over = 0
    for i in range(rows.start.size):
        left = data.size - at
        if left < header:
            return i, at, _MORE, header, over
        captured, wire = u32(data, at + 8, big), u32(data, at + 12, big)
        if captured == 0 or wire == 0 or captured > MAX_CAPTURED:
            # in a file header the place of the wire length holds sigfigs, which is 0
            if (wire == 0 and begins_pcap(data, at)) or begins_pcapng(data, at):
                return i, at, _JOINED, 0, over
            if at >= real and captured == 0 and zeros_end(data, at) >= at + header:
                return i, at, _ZEROS, 0, over
        if form.swapped and (form.always or captured > wire):
            captured, wire = wire, captured
        if captured > MAX_CAPTURED:
            return i, at, _LONG, captured, over
        if left < header + captured:
            return i, at, _MORE, header + captured, over
        part = u32(data, at + 4, big)
        over += part >= second
        rows.start[i] = at + header
        rows.captured[i] = captured
        rows.wire[i] = max(captured, wire)
        rows.ts[i] = u32(data, at, big) * 1_000_000_000 + part * tick
        at += header + captured
    return rows.start.size, at, _WHOLE, 0, over
