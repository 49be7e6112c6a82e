"""Capture files as blocks of frames: pcap here, pcapng in pcapng.py, both also compressed or from a pipe.

Formats: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html and the same group's pcapng draft.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from connectors.files import pcapng
from connectors.files.compressed import Unpacked, compression
from connectors.files.frames import FrameBlock
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
)
from connectors.kernels import kernel

CHUNK = 1 << 16  # bytes of one read from a pipe or a compressed file

# magic, most significant byte first -> (nanoseconds of a tick, bytes of a record header)
MAGIC = {0xA1B2C3D4: (1000, 16), 0xA1B23C4D: (1, 16), 0xA1B2CD34: (1000, 24)}
OTHERS = {
    b"snoop\0\0\0": "a Solaris snoop file",
    b"\x54\x52\x53\x4e": "a Sniffer file",
    b"\x47\x4d\x42\x55": "a Microsoft Network Monitor file",
    b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
}


class CaptureFile:
    """The frames of a capture, once, in file order, at most `frames_per_block` a block.

    path: pcap or pcapng of either byte order, plain or gzip, zstd or xz; '-' is stdin. A plain file is mapped
    and its frames are not copied; the map lives as long as any block. From a pipe, blocks come as soon as
    complete frames are there. A damaged file gives all complete frames before the damage, then raises CaptureError.
    """

    def __init__(self, path: str | Path, *, frames_per_block: int = 4096) -> None:
        if frames_per_block < 1:
            raise ValueError(f"frames_per_block {frames_per_block} must be >= 1")
        self.path = "stdin" if str(path) == "-" else str(path)
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
        at = window.grow(0, 4)
        magic = window.data[at : at + 4].tobytes()
        if magic == pcapng.MAGIC:
            blocks = pcapng.read(window, self.path, self._limit)
        else:
            blocks = _read(window, self.path, self._limit)
        for frames in blocks:
            if isinstance(window, Mapped):
                self.position = int(frames.start[-1]) + int(frames.captured[-1])
            yield frames
        if isinstance(window, Mapped):
            self.position = window.data.size

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


_WHOLE, _MORE, _LONG = range(3)  # why _index stopped: columns full, bytes missing, absurd length


def _read(window: Window, path: str, limit: int) -> Iterator[FrameBlock]:
    """The frames of a pcap file whose header the window begins with."""
    form, link_type = _header(window, path)
    at = window.grow(0, 24) + 24
    while True:
        rows = columns(limit)
        window.hold(path, at)
        n, at, problem, need = _index(window.data, at, form, rows)
        if n:
            rows.link_type[:n] = link_type
            yield block(window.data, rows, n)
        if problem == _LONG:
            raise CaptureError(
                path, window.base + at, f"packet record claims {need} bytes, limit {MAX_CAPTURED}"
            )
        if problem == _MORE:
            at = window.grow(at, need)
            left = window.data.size - at
            if left == 0:
                return
            if left < need:
                raise CaptureError(
                    path, window.base + at, f"packet record needs {need} bytes, the file has {left} more"
                )


def _header(window: Window, path: str) -> tuple[_Format, int]:
    """Format and link type of a pcap file."""
    at = window.grow(0, 24)
    head = window.data[at : at + 24].tobytes()
    order: Literal["big", "little"] = "big" if int.from_bytes(head[:4], "big") in MAGIC else "little"
    if int.from_bytes(head[:4], order) not in MAGIC:
        raise CaptureError(path, 0, _not_a_capture(head))
    if len(head) < 24:
        raise CaptureError(path, 0, f"pcap file header needs 24 bytes, the file has {len(head)}")
    tick, size = MAGIC[int.from_bytes(head[:4], order)]
    major, minor = int.from_bytes(head[4:6], order), int.from_bytes(head[6:8], order)
    if (major, minor) != (543, 0) and (major != 2 or minor > 4):
        raise CaptureError(path, 4, f"pcap version {major}.{minor} is not 2.0 to 2.4")
    network = int.from_bytes(head[20:24], order)
    if network & 0x03FF0000:
        raise CaptureError(path, 20, f"link type {network:#010x} has reserved bits set")
    always = major == 543 or minor < 3
    return _Format(order == "big", tick, size, always, major == 543 or minor <= 3), network & 0xFFFF


def _not_a_capture(head: bytes) -> str:
    known = next((name for magic, name in OTHERS.items() if head.startswith(magic)), "")
    if packed := compression(head):
        known = f"compressed with {packed} once more"
    elif len(head) == 24 and 1 <= head[8] & 0x7F <= 48 and 16 <= int.from_bytes(head[10:12], "big") <= 4096:
        known = known or "perhaps an Endace ERF file, which has no magic number"
    return f"not a pcap or pcapng file: begins with {head[:8].hex(' ')}" + (f" ({known})" if known else "")


@kernel
def _index(data: Bytes, at: int, form: _Format, rows: Columns) -> tuple[int, int, int, int]:
    """Find records from `at` until rows are full: (rows, next index, why it stopped, bytes it claims)."""
    tick, header, big = form.tick, form.header, form.big
    for i in range(rows.start.size):
        left = data.size - at
        if left < header:
            return i, at, _MORE, header
        captured, wire = u32(data, at + 8, big), u32(data, at + 12, big)
        if form.swapped and (form.always or captured > wire):
            captured, wire = wire, captured
        if captured > MAX_CAPTURED:
            return i, at, _LONG, captured
        if left < header + captured:
            return i, at, _MORE, header + captured
        rows.start[i] = at + header
        rows.captured[i] = captured
        rows.wire[i] = max(captured, wire)
        rows.ts[i] = u32(data, at, big) * 1_000_000_000 + u32(data, at + 4, big) * tick
        at += header + captured
    return rows.start.size, at, _WHOLE, 0
