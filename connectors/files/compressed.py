"""gzip, zstd and xz, unpacked in pieces: a small file that unpacks to a huge one costs no memory."""

from __future__ import annotations

import contextlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from connectors.files.window import DamagedStreamError

PIECE = 1 << 16  # bytes unpacked in a step
SMALL_PIECE = 1 << 8  # the same for xz near damage: the bytes of the step that breaks are lost
GATHERED = 1 << 20  # bytes given at once
MAX_MEMORY = 1 << 27  # bytes of zstd's window and xz's dictionary: the most that the tools accept by default
FEED = 1 << 14  # compressed bytes of a step
ZSTD_FEED = 1 << 10  # the same for zstd: it has no output limit, and 4 bytes can give 128 KiB

SKIPPABLE = b"\x2a\x4d\x18"  # after 0x50..0x5f: a zstd frame of something else (RFC 8878, 3.1.2)
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "xz": b"\xfd7zXZ\x00"}


def compression(head: bytes) -> str | None:
    """The format of a file that begins with `head` (6 bytes); None: not compressed."""
    if len(head) >= 4 and head[1:4] == SKIPPABLE and head[0] & 0xF0 == 0x50:
        return "zstd"
    return next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)


class _Decoder(Protocol):
    """One member of a gzip file, frame of a zstd file or stream of an xz file."""

    @property
    def eof(self) -> bool: ...

    @property
    def wants(self) -> bool:
        """Whether it has used all its input."""

    def feed(self, data: bytes, piece: int) -> tuple[bytes, int]:
        """Unpacked bytes, up to ``piece`` if the format has a limit, and how many bytes at the end of all input it has
        not used.
        """


class _Gzip:
    wants = True

    def __init__(self) -> None:
        self._z = zlib.decompressobj(wbits=31)
        self._broken: zlib.error | None = None

    def feed(self, data: bytes, piece: int) -> tuple[bytes, int]:
        if self._broken is not None:
            raise self._broken
        before = self._z.copy()
        try:
            out = self._z.decompress(data, piece)
        except zlib.error as error:
            self._broken = error
            return self._rescued(before, data), 0
        return out, len(self._z.unconsumed_tail or self._z.unused_data)

    @staticmethod
    def _rescued(z: Any, data: bytes) -> bytes:
        """The bytes that can be rescued from a broken step, in ever shorter pieces until a single byte breaks."""
        out, size = b"", PIECE // 2
        while size:
            before = z.copy()
            try:
                part = z.decompress(data, size)
            except zlib.error:
                z, size = before, size // 2
                continue
            if not part:
                break
            out, data = out + part, z.unconsumed_tail
        return out

    @property
    def eof(self) -> bool:
        return self._z.eof


class _Zstd:
    wants = True

    def __init__(self) -> None:
        self._z = zstandard.ZstdDecompressor(max_window_size=MAX_MEMORY).decompressobj()

    def feed(self, data: bytes, piece: int) -> tuple[bytes, int]:  # noqa: ARG002 -- no limit of output
        return self._z.decompress(data), len(self._z.unused_data)

    @property
    def eof(self) -> bool:
        return self._z.eof


class _Xz:
    def __init__(self) -> None:
        self._z = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY)

    @property
    def wants(self) -> bool:
        return self._z.needs_input

    def feed(self, data: bytes, piece: int) -> tuple[bytes, int]:
        return self._z.decompress(data, piece), len(self._z.unused_data)

    @property
    def eof(self) -> bool:
        return self._z.eof


_DECODERS: dict[str, Callable[[], _Decoder]] = {"gzip": _Gzip, "zstd": _Zstd, "xz": _Xz}


class Unpacked:
    """The unpacked bytes of a compressed stream; several members in a row are one stream.

    name: of MAGIC. read: gives compressed bytes, none at the end. again: starts over at the first byte and gives
    another ``read``; None where that is impossible.
    """

    def __init__(
        self, name: str, read: Callable[[], bytes], again: Callable[[], Callable[[], bytes]] | None = None
    ) -> None:
        self._name = name
        self._read_packed = read
        self._again = again
        self._piece = PIECE if again or name != "xz" else SMALL_PIECE
        self._most = ZSTD_FEED if name == "zstd" else FEED
        self._taken = 0  # compressed bytes that the decoder has used
        self._latest = 0  # the same before its latest input
        self._careful = 1 << 62  # compressed bytes after which it gets single bytes: never
        self._decoder = _DECODERS[name]()
        self._data = b""  # read so far; the decoder has used it up to _at
        self._at = 0
        self._given = 0  # bytes unpacked so far
        self._damage: DamagedStreamError | None = None

    def read(self) -> bytes:
        """Some bytes; none at the end.

        Raises DamagedStreamError where the stream breaks, after giving all bytes before.
        """
        parts: list[bytes] = []
        size = 0
        while size < GATHERED and self._damage is None:
            try:
                part = self._step()
            except DamagedStreamError as damage:
                self._damage = damage
                part = self._rescued()
            if not part:
                break
            parts.append(part)
            size += len(part)
        if self._damage and not parts:
            raise self._damage
        return b"".join(parts)

    def _step(self) -> bytes:
        """The next piece that is not empty; an empty one at the end."""
        while True:
            if self._decoder.eof:
                if not self._next_member():
                    return b""
                self._decoder = _DECODERS[self._name]()
            wants = self._decoder.wants
            at_end = wants and self._at == len(self._data) and not self._more()
            most = min(self._most, self._careful - self._taken) if self._taken < self._careful else 1
            data = self._data[self._at : self._at + most] if wants else b""
            self._latest = self._taken if data else self._latest
            try:
                out, back = self._decoder.feed(data, self._piece)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
                raise DamagedStreamError(f"{self._name} data is damaged: {error}") from error
            self._at += len(data) - back
            self._taken += len(data) - back
            self._given += len(out)
            if out:
                return out
            if at_end and not self._decoder.eof:
                raise DamagedStreamError(f"{self._name} data ends too early")

    def _rescued(self) -> bytes:
        """The bytes of an xz stream before the damage, one by one, unpacked again from the start: its decoder cannot be
        copied, and does not give what it holds when it breaks.
        """
        if self._name != "xz" or self._again is None:
            return b""
        fresh = Unpacked(self._name, self._again())
        fresh._careful = self._latest
        while fresh._given < self._given:
            fresh._piece = min(PIECE, self._given - fresh._given)
            fresh._step()
        fresh._piece = 1
        out = bytearray()
        with contextlib.suppress(DamagedStreamError):
            while part := fresh._step():
                out += part
        return bytes(out)

    def _more(self) -> bool:
        part = self._read_packed()
        self._data, self._at = self._data[self._at :] + part, 0
        return bool(part)

    def _next_member(self) -> bool:
        """Skip padding after a member; whether another member follows."""
        while True:
            if self._data.startswith(b"\0", self._at):
                self._data, self._at = self._data[self._at :].lstrip(b"\0"), 0
            if len(self._data) - self._at >= 6 or not self._more():
                break
        head = self._data[self._at : self._at + 6].lstrip(b"\0")
        if not head:
            return False
        if compression(head) == self._name:
            return True
        raise DamagedStreamError(
            f"the bytes after the {self._name} data are not {self._name}: {head.hex(' ')}"
        )
