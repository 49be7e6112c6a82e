"""Ends and joins of capture files: zeros that were never written, captures behind captures, nothing at all."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from connectors.files.counts import FileCounts
from connectors.files.pcap import CaptureFile
from tests.support.capture_bytes import Record, enhanced, interface, option, pcap, pcapng, section, simple
from tests.support.capture_files import RECORDS, Row, expected, place, read, rows, write

NOTHING: Record = (0, b"", 0)  # a record of zeros
PACKS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, lzma.compress, zstandard.compress]


def counted(folder: Path, data: bytes, size: int = 4096) -> tuple[list[Row], FileCounts]:
    """Frames of an intact file, and what it reports."""
    counts = FileCounts()
    with CaptureFile(write(folder, data), frames_per_block=size, counts=counts) as capture:
        return rows(list(capture)), counts


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("size", [1, 8, 16, 17, 24, 4096, 3_000_000])
@pytest.mark.parametrize(
    "form",
    [{}, {"order": ">"}, {"magic": 0xA1B23C4D}, {"magic": 0xA1B2CD34}, {"version": (2, 3)}],
    ids=str,
)
def test_zeros_at_the_end_of_pcap_are_no_packets(
    tmp_path: Path, form: dict[str, object], size: int, pack: Callable[[bytes], bytes]
) -> None:
    good = pcap(RECORDS, **form)  # type: ignore[arg-type]
    found, error = read(tmp_path, pack(good + bytes(size)))
    tick = 1 if form.get("magic") == 0xA1B23C4D else 1000
    seconds = 1000 if tick == 1 else 1  # the ticks of RECORDS are then nanoseconds
    assert len(found) == len(RECORDS)
    assert [row[1:3] for row in found] == [row[1:3] for row in expected(RECORDS)]
    assert found[0][0] == RECORDS[0][0] * 1000 // seconds
    begin = len(good)
    assert error.startswith(f"{place(begin, pack)}zeros from byte {begin} to the end, {size:,} of them")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("size", [12, 100, 4096, 3_000_000])
@pytest.mark.parametrize("order", ["<", ">"])
def test_zeros_at_the_end_of_pcapng_are_named(
    tmp_path: Path, order: str, size: int, pack: Callable[[bytes], bytes]
) -> None:
    good = pcapng(RECORDS, order)
    found, error = read(tmp_path, pack(good + bytes(size)))
    assert found == expected(RECORDS)
    assert error.startswith(
        f"{place(len(good), pack)}zeros from byte {len(good)} to the end, {size:,} of them"
    )


def test_zeros_before_other_bytes_of_pcapng_are_damage_as_ever(tmp_path: Path) -> None:
    found, error = read(tmp_path, pcapng(RECORDS) + bytes(64) + enhanced(RECORDS[0]))
    assert found == expected(RECORDS)
    assert "block claims 0 bytes" in error


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("n", [1, 3, 9000, 70_000])
@pytest.mark.parametrize("limit", [1000, 4096])
def test_empty_packets_at_time_zero_before_others_are_packets(
    tmp_path: Path, limit: int, n: int, pack: Callable[[bytes], bytes]
) -> None:
    records = [RECORDS[0], *[NOTHING] * n, *RECORDS[1:], NOTHING, RECORDS[2]]
    found, error = read(tmp_path, pack(pcap(records)), limit)
    assert error == ""
    assert found == expected(records)


def test_a_file_of_zeros_is_said_to_be_one(tmp_path: Path) -> None:
    error = read(tmp_path, bytes(5000))[1]
    assert error.endswith("begins with 00 00 00 00 00 00 00 00 (zeros: perhaps it was never written)")
    assert read(tmp_path, pcap() + bytes(5000))[1].startswith("byte 24: zeros from byte 24 to the end")


OLD = pcap([], version=(2, 2)) + struct.pack("<IIII", 1, 0, 100, 60) + b"x" * 60
SECOND: dict[str, tuple[bytes, list[Row]]] = {
    "the same": (pcap(RECORDS), expected(RECORDS)),
    "other byte order": (pcap(RECORDS, order=">"), expected(RECORDS)),
    "other link type": (pcap(RECORDS, link_type=113), expected(RECORDS, link_type=113)),
    "nanoseconds": (pcap(RECORDS, magic=0xA1B23C4D), expected(RECORDS, tick=1)),
    "longer headers": (pcap(RECORDS, magic=0xA1B2CD34, order=">"), expected(RECORDS)),
    "version 2.2": (OLD, [(10**9, b"x" * 60, 100, 1)]),
    "pcapng": (pcapng(RECORDS), expected(RECORDS)),
    "pcapng, other byte order": (pcapng(RECORDS, ">"), expected(RECORDS)),
    "no packets": (pcap(), []),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("name", SECOND)
@pytest.mark.parametrize(
    "first",
    [pcap(RECORDS), pcap(RECORDS, order=">"), pcapng(RECORDS), pcapng(RECORDS, ">")],
    ids=["<", ">", "ng<", "ng>"],
)
def test_captures_joined_into_one_file_are_read_one_after_the_other(
    tmp_path: Path, first: bytes, name: str, pack: Callable[[bytes], bytes]
) -> None:
    data, more = SECOND[name]
    path = write(tmp_path, pack(first) + pack(data))  # members of an archive, joined too
    assert read(tmp_path, path.read_bytes()) == (expected(RECORDS) + more, "")
    found, counts = counted(tmp_path, pack(first + data + first))
    assert found == expected(RECORDS) + more + expected(RECORDS)
    both_pcapng = first[:4] == data[:4] == section()[:4]  # a further section is no further capture
    assert counts.joined == (0 if both_pcapng else 2)
    if not both_pcapng:
        assert counts.joined_at == f"byte {len(first)} of {path}"


def test_damage_behind_a_join_is_named_by_its_byte_in_the_file(tmp_path: Path) -> None:
    first = pcap(RECORDS)
    for second, offset, problem in (
        (pcap(RECORDS)[:-1], len(pcap(RECORDS[:-1])), "packet record needs 85 bytes, the file has 84 more"),
        (pcap(link_type=0x00010001), 20, "link type 0x00010001 has reserved bits set"),
        (pcap()[:20], 0, "pcap file header needs 24 bytes, the file has 20"),
        (pcapng(RECORDS)[:-1], len(pcapng(RECORDS[:-1])), "block needs 104 bytes, the file has 103 more"),
        (
            bytes(48),
            0,
            f"zeros from byte {len(first)} to the end, 48 of them: what should be there was never written",
        ),
    ):
        found, error = read(tmp_path, first + second)
        assert found[: len(RECORDS)] == expected(RECORDS)
        assert error == f"byte {len(first) + offset}: {problem}"


def test_a_packet_of_the_second_that_reads_like_a_magic_number_is_a_packet(tmp_path: Path) -> None:
    for second in (0xA1B2C3D4, 0xD4C3B2A1, 0x0A0D0D0A):
        records = [(second * 10**6 + 262_146, b"", 0 if second == 0x0A0D0D0A else 60), *RECORDS]
        assert counted(tmp_path, pcap(records))[0] == expected(records)


@pytest.mark.parametrize("pack", PACKS[1:])
def test_an_archive_of_nothing_is_said_to_be_empty(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    for data in (pack(b""), pack(b"") * 3):
        assert read(tmp_path, data) == ([], "byte 0 of the unpacked data: the unpacked file is empty")
    assert read(tmp_path, pack(b"") + pack(pcap(RECORDS)) + pack(b"")) == (expected(RECORDS), "")


@pytest.mark.parametrize("order", ["<", ">"])
def test_fractions_of_a_second_or_more_are_counted_and_kept(tmp_path: Path, order: str) -> None:
    for magic, second, tick in ((0xA1B2C3D4, 10**6, 1000), (0xA1B23C4D, 10**9, 1), (0xA1B2CD34, 10**6, 1000)):
        parts = [0, second - 1, second, 2**32 - 1]
        data = pcap(order=order, magic=magic)
        for part in parts:
            data += struct.pack(order + "IIII", 7, part, 1, 1) + bytes(8 if magic == 0xA1B2CD34 else 0) + b"x"
        found, counts = counted(tmp_path, data)
        assert [row[0] for row in found] == [7 * 10**9 + part * tick for part in parts]
        assert (counts.over_us, counts.over_ns) == ((0, 2) if tick == 1 else (2, 0))


def test_packets_without_a_time_and_times_out_of_range_are_counted(tmp_path: Path) -> None:
    early, late = (option(14, struct.pack("<q", seconds)) for seconds in (-100, 2**62))
    data = section() + interface() + interface(options=early) + interface(options=late)
    data += (
        simple(b"abcd", 4) * 3
        + enhanced(RECORDS[0])
        + enhanced((5, b"x", 1), 1) * 2
        + enhanced((5, b"x", 1), 2)
    )
    found, counts = counted(tmp_path, data, 2)
    assert (counts.untimed, counts.before, counts.beyond) == (3, 2, 1)
    assert [row[0] for row in found] == [0] * 3 + [RECORDS[0][0] * 1000] + [5000 - 100 * 10**9] * 2 + [
        2**63 - 1
    ]


def test_a_damaged_archive_within_zeros_is_an_error_there(tmp_path: Path) -> None:
    packed = gzip.compress(pcap(RECORDS) + bytes(3_000_000))
    path = write(tmp_path, packed[: len(packed) // 2])
    found, error = read(tmp_path, path.read_bytes())
    assert found == expected(RECORDS)
    assert error.endswith("gzip data ends too early")
