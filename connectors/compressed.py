"""gzip, zstd and xz, unpacked piece by piece: a small file that unpacks to a huge one costs no memory."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from connectors.window import DamagedStreamError

PIECE = 1 << 16  # bytes unpacked in a step; where a stream breaks, the step's own bytes are lost
GATHERED = 1 << 20  # bytes given at once
MAX_MEMORY = 1 << 27  # of zstd's window and xz' dictionary: what the tools accept without being asked to
ZSTD_FEED = 1 << 10  # zstd takes no output limit; 4 bytes can mean 128 KiB, so a step gives <= 32 MiB

SKIPPABLE = b"\x2a\x4d\x18"  # behind 0x50..0x5f: a zstd frame of something else (RFC 8878, 3.1.2)
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\x00"}


def compression(head: bytes) -> str | None:
    """The format of a file that begins with `head` (6 bytes); None: not compressed."""
    if len(head) >= 4 and head[1:4] == SKIPPABLE and head[0] & 0xF0 == 0x50:
        return "zstd"
    return next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)


class _Decoder(Protocol):
    """One member of a gzip file, frame of a zstd file or stream of an xz file."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Bytes unpacked, and the part of `data` not taken yet."""

    @property
    def eof(self) -> bool: ...


class _Gzip:
    def __init__(self) -> None:
        self._z = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return self._z.decompress(data, PIECE), self._z.unconsumed_tail or self._z.unused_data

    @property
    def eof(self) -> bool:
        return self._z.eof


class _Zstd:
    def __init__(self) -> None:
        self._z = zstandard.ZstdDecompressor(max_window_size=MAX_MEMORY).decompressobj()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        out = self._z.decompress(data[:ZSTD_FEED])
        return out, self._z.unused_data + data[ZSTD_FEED:]

    @property
    def eof(self) -> bool:
        return self._z.eof


class _Xz:
    def __init__(self) -> None:
        self._z = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if not self._z.needs_input:  # it keeps what it took, so nothing more until that is used up
            return self._z.decompress(b"", PIECE), self._z.unused_data + data
        return self._z.decompress(data, PIECE), self._z.unused_data

    @property
    def eof(self) -> bool:
        return self._z.eof


_DECODERS: dict[str, Callable[[], _Decoder]] = {"gzip": _Gzip, "zstd": _Zstd, "xz": _Xz}


class Unpacked:
    """The bytes behind a compressed stream; several members in a row are one stream.

    name: of MAGIC. read: some compressed bytes, none at the end.
    """

    def __init__(self, name: str, read: Callable[[], bytes]) -> None:
        self._name = name
        self._read_packed = read
        self._decoder = _DECODERS[name]()
        self._waiting = b""  # read, not yet taken by the decoder
        self._damage: DamagedStreamError | None = None

    def read(self) -> bytes:
        """Some bytes; none at the end.

        DamagedStreamError where it breaks, after what came before was given.
        """
        parts: list[bytes] = []
        size = 0
        while size < GATHERED and self._damage is None:
            try:
                part = self._step()
            except DamagedStreamError as damage:
                self._damage = damage
                break
            if not part:
                break
            parts.append(part)
            size += len(part)
        if self._damage and not parts:
            raise self._damage
        return b"".join(parts)

    def _step(self) -> bytes:
        """The next piece that is not empty; none at the end."""
        while True:
            if self._decoder.eof:
                if not self._next_member():
                    return b""
                self._decoder = _DECODERS[self._name]()
            at_end = not self._waiting and not self._more()
            try:
                out, self._waiting = self._decoder.feed(self._waiting)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise DamagedStreamError(f"{self._name} data is damaged: {error}") from error
            if out:
                return out
            if at_end and not self._decoder.eof:
                raise DamagedStreamError(f"{self._name} data ends early")

    def _more(self) -> bool:
        part = self._read_packed()
        self._waiting += part
        return bool(part)

    def _next_member(self) -> bool:
        """Skip padding after a member; whether another one follows."""
        while True:
            self._waiting = self._waiting.lstrip(b"\0")
            if len(self._waiting) >= 6 or not self._more():
                break
        if not self._waiting:
            return False
        skippable = self._name == "zstd" and self._waiting[1:4] == b"\x2a\x4d\x18"
        if self._waiting.startswith(MAGIC[self._name]) or skippable:
            return True
        begins = self._waiting[:6].hex(" ")
        raise DamagedStreamError(f"what follows the {self._name} data is not {self._name}: {begins}")
