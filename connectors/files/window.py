"""The bytes of a capture as a moving window: a mapped file in full, or what a stream has given.

The readers of pcap and pcapng see `data` only, and ask for more when a record reaches beyond it. So they need not
know whether a file, a pipe or a decompressor is behind it. Their requests bound the memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from connectors.kernels import kernel

MAX_CAPTURED = 262_144  # bytes of a frame; the limit of libpcap and Wireshark

Bytes = NDArray[np.uint8]


class CaptureError(Exception):
    """A capture cannot be read further. Every complete packet before `offset` has been given already."""

    def __init__(self, path: str, offset: int, problem: str, *, unpacked: bool = False) -> None:
        where = "byte {} of the unpacked data" if unpacked else "byte {}"
        super().__init__(f"{path}: {where.format(offset)}: {problem}")
        self.path = path
        self.offset = offset  # in the file; in the unpacked bytes if the file is compressed
        self.problem = problem


def zeros(begin: int, end: int) -> str:
    """The problem of a file with nothing but zeros from byte ``begin`` to its end."""
    return (
        f"zeros from byte {begin} to the end, {end - begin:,} of them: what should be there was never written"
    )


class DamagedStreamError(Exception):
    """A compressed stream ends too early or is broken."""


class Window(Protocol):
    """Bytes of a capture from `base`. Read-only; views of `data` stay valid when the window moves."""

    data: Bytes
    base: int

    def grow(self, at: int, need: int) -> int:
        """Get at least `need` bytes from index `at`, if they exist; gives the new index of the same byte."""

    def hold(self, path: str, at: int) -> None:
        """Raise CaptureError if bytes have gone: touching them would end the process (SIGBUS)."""


class Mapped:
    """A mapped file; nothing comes after its end."""

    def __init__(self, file: int) -> None:
        self._map = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        self.data: Bytes = np.frombuffer(self._map, np.uint8)
        self.base = 0

    def grow(self, at: int, need: int) -> int:  # noqa: ARG002
        return at

    def hold(self, path: str, at: int) -> None:
        if self._map.size() < self.data.size:  # size of the file now
            raise CaptureError(path, at, "the file was truncated while it was read")


class Streamed:
    """The data of a pipe or a decompressor that the readers still need."""

    def __init__(self, read: Callable[[], bytes], path: str) -> None:
        self.data: Bytes = np.frombuffer(b"", np.uint8)
        self.base = 0
        self._read = read  # some bytes, none at the end
        self._path = path

    def hold(self, path: str, at: int) -> None:
        """Does nothing: bytes that were read stay."""

    def grow(self, at: int, need: int) -> int:
        parts = [self.data[at:].tobytes()]
        size = len(parts[0])
        self.base += at
        try:
            while size < need and (part := self._read()):
                parts.append(part)
                size += len(part)
        except DamagedStreamError as damage:
            raise CaptureError(self._path, self.base + size, str(damage)) from damage
        self.data = np.frombuffer(b"".join(parts), np.uint8)
        return 0


class Columns(NamedTuple):
    """The columns of a FrameBlock, for a kernel to fill."""

    start: NDArray[np.int64]
    captured: NDArray[np.uint32]
    wire: NDArray[np.uint32]
    ts: NDArray[np.int64]
    link_type: NDArray[np.uint16]


def columns(n: int) -> Columns:
    """n rows, not yet filled."""
    return Columns(
        np.empty(n, np.int64),
        np.empty(n, np.uint32),
        np.empty(n, np.uint32),
        np.empty(n, np.int64),
        np.empty(n, np.uint16),
    )


def block(data: Bytes, rows: Columns, n: int, dropped: int = 0) -> FrameBlock:
    """The first n rows as a block over `data`. dropped: packets lost before them."""
    return FrameBlock(
        data, rows.start[:n], rows.captured[:n], rows.wire[:n], rows.ts[:n], rows.link_type[:n], dropped
    )


@kernel
def u16(data: Bytes, at: int, big: bool) -> int:
    a, b = int(np.int64(data[at])), int(np.int64(data[at + 1]))
    return a << 8 | b if big else b << 8 | a


@kernel
def u32(data: Bytes, at: int, big: bool) -> int:
    a, b = u16(data, at, big), u16(data, at + 2, big)
    return a << 16 | b if big else b << 16 | a
