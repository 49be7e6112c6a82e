"""Compressed captures: whole, cut, damaged, in several members."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from connectors.files.compressed import Unpacked
from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError, DamagedStreamError
from tests.support.capture_bytes import pcap
from tests.support.capture_files import RECORDS, expected, read, write

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", PACKERS)
def test_compressed_files_give_the_same_frames_in_one_or_several_members(tmp_path: Path, name: str) -> None:
    pack = PACKERS[name]
    data = pcap(RECORDS)
    assert read(tmp_path, pack(data)) == (expected(RECORDS), "")
    assert read(tmp_path, pack(data[:100]) + pack(b"") + pack(data[100:])) == (expected(RECORDS), "")
    assert read(tmp_path, pack(data) + b"\0" * 64) == (expected(RECORDS), "")


@pytest.mark.parametrize("magic", [0x50, 0x5A, 0x5F])
def test_a_zstd_file_may_hold_skippable_frames_also_at_its_beginning(tmp_path: Path, magic: int) -> None:
    data, pack = pcap(RECORDS), PACKERS["zstd"]
    skipped = struct.pack("<BBBBI", magic, 0x2A, 0x4D, 0x18, 300) + b"\x28\xb5\x2f\xfd" * 75
    empty = struct.pack("<BBBBI", magic, 0x2A, 0x4D, 0x18, 0)
    assert read(tmp_path, skipped + pack(data)) == (expected(RECORDS), "")
    assert read(tmp_path, empty + skipped + pack(data[:100]) + skipped + pack(data[100:]) + empty) == (
        expected(RECORDS), "",
    )  # fmt: skip
    head = struct.pack("<BBBBI", magic ^ 0x10, 0x2A, 0x4D, 0x18, 300)
    assert read(tmp_path, head + pack(data))[1].startswith("byte 0: not a pcap or pcapng file: begins with 4")


def unpacked_one_by_one(name: str, packed: bytes) -> bytes:
    """All that the library gives, asked for byte after byte."""
    out = bytearray()
    try:
        if name == "gzip":
            z = zlib.decompressobj(wbits=31)
            while not z.eof and (part := z.decompress(packed, 1)):
                out, packed = out + part, z.unconsumed_tail
        else:
            x = lzma.LZMADecompressor()
            while not x.eof:
                byte, packed = (packed[:1], packed[1:]) if x.needs_input else (b"", packed)
                out += x.decompress(byte, 1)
    except (zlib.error, lzma.LZMAError):
        pass
    return bytes(out)


@pytest.mark.parametrize("chunk", [100, 1 << 16])
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("name", ["gzip", "xz"])
@pytest.mark.parametrize("at", [0.01, 0.2, 0.5, 0.77, 0.99, -7, -5, -1])
def test_what_can_be_unpacked_before_the_damage_is_given(
    name: str, again: bool, at: float, chunk: int
) -> None:
    data = np.random.default_rng(1).integers(0, 64, 100_000, np.uint8).tobytes()
    packed = bytearray(PACKERS[name](data))
    packed[round(at * len(packed)) if at > 0 else int(at)] ^= 0xFF
    first = PACKERS[name](data[:5000])  # a whole member, then the one with the damage
    known = data[:5000] + unpacked_one_by_one(name, bytes(packed))
    file = io.BytesIO(first + packed)

    def begin() -> Callable[[], bytes]:
        file.seek(0)
        return lambda: file.read(chunk)

    unpacked = Unpacked(name, begin(), begin if again else None)
    parts: list[bytes] = []
    with pytest.raises(DamagedStreamError, match=f"{name} data is damaged: "):
        parts.extend(iter(unpacked.read, b""))
    found = b"".join(parts)
    assert known.startswith(found)
    assert len(known) - len(found) < (256 if name == "xz" and not again else 1)


def test_frames_before_the_damage_of_an_xz_file_are_given_to_the_last(tmp_path: Path) -> None:
    records = [(i, np.random.default_rng(i).bytes(14), 14) for i in range(5000)]
    packed = bytearray(lzma.compress(pcap(records)))
    packed[-20] ^= 0xFF  # in the index, behind all data
    found, error = read(tmp_path, bytes(packed))
    assert found == expected(records)
    assert "xz data is damaged: " in error


def test_a_disk_that_fails_is_named_at_the_byte_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gzip.compress(pcap([(i, np.random.default_rng(i).bytes(1000), 1000) for i in range(200)]))
    path = write(tmp_path, data)
    read_file, left = os.read, [6, 65536]

    def failing(file: int, size: int) -> bytes:
        if not left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_file(file, min(size, left.pop(0)))

    monkeypatch.setattr(os, "read", failing)
    with CaptureFile(path) as capture, pytest.raises(CaptureError) as ended:
        list(capture)
    assert str(ended.value) == f"{path}: byte 65542: Input/output error"


@pytest.mark.parametrize("name", PACKERS)
def test_a_cut_compressed_file_gives_its_frames_then_says_it_ends_early(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    records = [(i, rng.bytes(1000), 1000) for i in range(400)]
    packed = PACKERS[name](pcap(records))
    found, error = read(tmp_path, packed[: len(packed) // 2])
    assert 100 < len(found) < 201
    assert found == expected(records)[: len(found)]
    assert error.endswith(f"{name} data ends too early")


@pytest.mark.parametrize("name", PACKERS)
def test_a_damaged_compressed_file_gives_frames_then_says_so(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(1)
    records = [(i, rng.bytes(1000), 1000) for i in range(400)]
    packed = bytearray(PACKERS[name](pcap(records)))
    packed[-6] ^= 0xFF
    found, error = read(tmp_path, bytes(packed))
    assert 300 < len(found) <= 400
    assert found == expected(records)[: len(found)]
    assert f"{name} data is damaged: " in error


def test_garbage_after_compressed_data_is_named(tmp_path: Path) -> None:
    found, error = read(tmp_path, gzip.compress(pcap(RECORDS)) + b"garbage")
    assert found == expected(RECORDS)
    assert error.endswith("the bytes after the gzip data are not gzip: 67 61 72 62 61 67")


@pytest.mark.parametrize("name", PACKERS)
def test_a_decompression_bomb_costs_no_memory(tmp_path: Path, name: str) -> None:
    record = pcap([(0, b"\0" * 262_000, 262_000)])[24:]
    bomb = PACKERS[name](pcap() + record * 500 + struct.pack("<IIII", 0, 0, 2**31, 0) + b"\0" * 10**8)
    path = write(tmp_path, bomb)
    counts: list[int] = []
    tracemalloc.start()
    with CaptureFile(path) as capture, pytest.raises(CaptureError, match="claims 2147483648 bytes"):
        counts.extend(map(len, capture))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(counts) == 500
    assert peak < 64 << 20
