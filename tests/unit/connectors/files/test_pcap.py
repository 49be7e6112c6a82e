"""Capture files: both formats, what is damaged, and what is no file."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from tests.support.capture_bytes import (
    INTERFACE,
    Record,
    block,
    enhanced,
    interface,
    obsolete,
    option,
    pcap,
    pcapng,
    section,
    simple,
)
from tests.support.capture_files import RECORDS, expected, place, read, rows, write

NO_ROOM = 262_145  # bytes of a frame, one above the limit


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_of_pcap_give_the_frames_that_were_written(tmp_path: Path, order: str) -> None:
    assert read(tmp_path, pcap(RECORDS, order=order, link_type=113)) == (expected(RECORDS, link_type=113), "")


@pytest.mark.parametrize("order", ["<", ">"])
def test_nanosecond_pcap_keeps_every_nanosecond(tmp_path: Path, order: str) -> None:
    records = [(1_700_000_000_123_456_789, b"x" * 60, 60)]
    assert read(tmp_path, pcap(records, order=order, magic=0xA1B23C4D)) == (expected(records, tick=1), "")


def test_the_modified_pcap_format_has_longer_record_headers(tmp_path: Path) -> None:
    assert read(tmp_path, pcap(RECORDS, magic=0xA1B2CD34)) == (expected(RECORDS), "")


def test_lengths_stand_the_other_way_round_before_version_2_3(tmp_path: Path) -> None:
    swapped = pcap([], version=(2, 2)) + struct.pack("<IIII", 1, 0, 100, 60) + b"x" * 60
    assert read(tmp_path, swapped) == ([(10**9, b"x" * 60, 100, 1)], "")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("version", "first", "second", "captured", "wire"),
    [
        ((2, 3), 60, 100, 60, 100),  # written as in 2.4
        ((2, 3), 100, 60, 60, 100),  # written as in 2.2
        ((2, 3), 60, 60, 60, 60),
        ((543, 0), 100, 60, 60, 100),
        ((2, 0), 100, 60, 60, 100),
        ((2, 4), 60, 100, 60, 100),
        ((2, 4), 100, 60, 100, 100),  # no longer taken for the other way round
        ((543, 0), 60, 100, 100, 100),
        ((2, 2), 60, 100, 100, 100),
    ],
)
def test_which_length_is_the_captured_one_is_told_by_the_version_and_in_2_3_by_the_smaller(
    tmp_path: Path, order: str, version: tuple[int, int], first: int, second: int, captured: int, wire: int
) -> None:
    record = struct.pack(order + "IIII", 1, 0, first, second) + b"x" * captured
    data = pcap([], order=order, version=version) + 2 * record
    assert read(tmp_path, data) == ([(10**9, b"x" * captured, wire, 1)] * 2, "")


def test_the_frame_check_sequence_beside_the_link_type_is_not_part_of_it(tmp_path: Path) -> None:
    assert read(tmp_path, pcap(RECORDS, link_type=0x24000001)) == (expected(RECORDS), "")


def test_the_wire_length_of_a_cut_frame_is_kept(tmp_path: Path) -> None:
    records = [(5, b"x" * 96, 1514)]
    assert read(tmp_path, pcap(records)) == (expected(records), "")


def test_a_wire_length_below_the_captured_one_is_raised_to_it(tmp_path: Path) -> None:
    for data in (pcap([(5, b"x" * 60, 10)]), pcapng([(5, b"x" * 60, 10)])):
        assert read(tmp_path, data) == (expected([(5, b"x" * 60, 60)]), "")


def test_blocks_hold_no_more_frames_than_asked_for_and_use_the_file_in_place(tmp_path: Path) -> None:
    path = write(tmp_path, pcap(RECORDS))
    with CaptureFile(path, frames_per_block=4) as capture:
        blocks = list(capture)
    assert [len(b) for b in blocks] == [4, 4, 2]
    assert all(b.buffer.size == path.stat().st_size and not b.buffer.flags.writeable for b in blocks)
    assert rows(blocks) == expected(RECORDS)  # the map outlives the file
    with pytest.raises(ValueError, match="frames_per_block 0 must be >= 1"):
        CaptureFile(path, frames_per_block=0)


def test_position_goes_up_to_the_size_of_the_file(tmp_path: Path) -> None:
    for data in (pcap(RECORDS), gzip.compress(pcap(RECORDS)), pcapng(RECORDS)):
        path = write(tmp_path, data)
        with CaptureFile(path, frames_per_block=3) as capture:
            assert capture.size == len(data)
            positions = [capture.position for _ in capture]
            assert positions == sorted(positions)
            assert capture.position == capture.size


def test_a_pcap_file_without_packets_is_no_error(tmp_path: Path) -> None:
    assert read(tmp_path, pcap()) == ([], "")
    assert read(tmp_path, section()) == ([], "")


@pytest.mark.parametrize("order", ["<", ">"])
def test_all_packet_blocks_of_pcapng_are_read_in_both_byte_orders(tmp_path: Path, order: str) -> None:
    frame = (7, b"abcde", 50)
    data = section(order) + interface(order=order) + enhanced(frame, order=order)
    data += obsolete(frame, order=order) + simple(b"abcdefg", 7, order) + block(5, b"stat", order)
    assert read(tmp_path, data) == (expected([frame, frame, (0, b"abcdefg", 7)]), "")


def test_a_simple_packet_is_as_long_as_the_snaplen_lets_it(tmp_path: Path) -> None:
    data = section() + interface(snaplen=5) + simple(b"abcde", 1000)
    assert read(tmp_path, data) == ([(0, b"abcde", 1000, 1)], "")


def test_each_interface_has_its_own_link_type_and_clock(tmp_path: Path) -> None:
    nanoseconds = option(9, b"\x09") + option(14, struct.pack("<q", 1_000_000))
    binary = option(9, bytes([0x80 | 10]))
    data = section() + interface(1) + interface(113, options=nanoseconds) + interface(276, options=binary)
    data += enhanced((5, b"a", 1), 0) + enhanced((7, b"b", 1), 1) + enhanced((1024 + 512, b"c", 1), 2)
    assert read(tmp_path, data) == (
        [(5000, b"a", 1, 1), (10**15 + 7, b"b", 1, 113), (1_500_000_000, b"c", 1, 276)],
        "",
    )


def test_a_new_section_forgets_interfaces_and_byte_order(tmp_path: Path) -> None:
    data = pcapng(RECORDS[:1]) + section(">") + interface(101, order=">") + enhanced(RECORDS[1], order=">")
    assert read(tmp_path, data) == (expected(RECORDS[:1]) + expected(RECORDS[1:2], link_type=101), "")
    rows, error = read(tmp_path, pcapng(RECORDS[:1]) + section() + enhanced(RECORDS[1]))
    assert rows == expected(RECORDS[:1])
    assert error.endswith("packet block names interface 0, which has no description in this section")


@pytest.mark.parametrize(
    ("resolution", "offset", "ticks", "want"),
    [
        (0, 0, 3, 3 * 10**9),
        (12, 0, 12_345_678, 12_345),
        (28, 0, 2**64 - 1, 1),
        (127, 0, 2**64 - 1, 0),
        (6, 0, 2**64 - 1, 2**63 - 1),
        (0x80, 0, 3, 3 * 10**9),
        (0x80 | 32, 0, 2**32 + 2**31, 1_500_000_000),
        (0x80 | 40, 0, 2**40 + 2**39, 1_500_000_000),
        (0x80 | 64, 0, 2**63, 500_000_000),
        (0x80 | 127, 0, 2**64 - 1, 0),
        (0x80, 0, 2**64 - 1, 2**63 - 1),
        (0x80, 0, 9_223_372_036, 9_223_372_036 * 10**9),
        (6, 2**63 - 1, 5, 2**63 - 1),
        (6, -(2**63), 5, -(2**63) + 1 + 5000),
        (9, 9_223_372_036, 2**63 - 1, 2**63 - 1),
    ],
)
def test_clocks_of_any_resolution_and_offset_stay_within_int64(
    tmp_path: Path, resolution: int, offset: int, ticks: int, want: int
) -> None:
    options = option(9, bytes([resolution])) + option(14, struct.pack("<q", offset)) + option(0, b"")
    data = section() + interface(options=options) + enhanced((ticks, b"x", 1))
    assert read(tmp_path, data) == ([(want, b"x", 1, 1)], "")


def test_many_interfaces_do_not_cut_blocks(tmp_path: Path) -> None:
    data = section()
    for i in range(300):
        data += interface(i) + enhanced((i, b"x", 1), i)
    path = write(tmp_path, data)
    with CaptureFile(path) as capture:
        (frames,) = capture
    assert frames.link_type.tolist() == list(range(300))


DAMAGES: dict[str, tuple[bytes, str]] = {
    "pcap record header cut": (b"x" * 7, "packet record needs 16 bytes, the file has 7 more"),
    "pcap record cut": (
        struct.pack("<IIII", 1, 2, 60, 60) + b"x" * 59,
        "packet record needs 76 bytes, the file has 75 more",
    ),
    "pcap absurd length": (
        struct.pack("<IIII", 1, 2, 2**32 - 1, 60) + b"x" * 99,
        "packet record claims 4294967295 bytes, limit 262144",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_in_pcap_comes_after_every_whole_frame(tmp_path: Path, name: str) -> None:
    tail, problem = DAMAGES[name]
    good = pcap(RECORDS)
    for pack in (bytes, gzip.compress):
        assert read(tmp_path, pack(good + tail)) == (expected(RECORDS), place(len(good), pack) + problem)


PCAPNG_DAMAGES: dict[str, tuple[bytes, int, str]] = {
    "block header cut": (b"\x06\0\0\0", 0, "block needs 12 bytes, the file has 4 more"),
    "block cut": (enhanced(RECORDS[0])[:-3], 0, "block needs 92 bytes, the file has 89 more"),
    "length too small": (struct.pack("<III", 6, 8, 8), 0, "block claims 8 bytes, must be"),
    "length odd": (struct.pack("<IIII", 6, 14, 0, 0), 0, "block claims 14 bytes, must be"),
    "length absurd": (struct.pack("<III", 6, 2**32 - 4, 0), 0, "block claims 4294967292 bytes, must be"),
    "trailer": (
        enhanced(RECORDS[0])[:-4] + struct.pack("<I", 60),
        0,
        "the length at the block's end differs from that at its start: 60",
    ),
    "no room for a header": (block(6, b""), 0, "block claims 12 bytes, must be"),
    "unknown interface": (enhanced(RECORDS[0], 1), 0, "packet block names interface 1"),
    "captured beyond block": (
        block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + b"12345678"),
        0,
        "packet record claims 9 bytes, more than its block holds",
    ),
    "captured beyond limit": (
        enhanced((0, b"x" * NO_ROOM, NO_ROOM)),
        0,
        "packet record claims 262145 bytes",
    ),
    "magic": (b"\n\r\r\n" + b"\x1c\0\0\0" + b"\1\2\3\4" + b"\0" * 20, 8, "byte-order magic is 01 02 03 04"),
    "version": (section(version=(2, 0)), 12, "pcapng version 2.0 is not 1.0"),
    "section cut": (section()[:20], 0, "block needs 28 bytes, the file has 20 more"),
    "section absurd": (
        section()[:4] + b"\xfc\xff\xff\xff" + section()[8:],
        0,
        "section header claims 4294967292 bytes",
    ),
    "section trailer": (
        section()[:-4] + b"\0\0\0\1",
        0,
        "the length at the block's end differs from that at its start: 16777216",
    ),
    "interface short": (block(INTERFACE, b"1234"), 0, "interface description claims 16 bytes, minimum 20"),
    "option absurd": (
        interface(options=struct.pack("<HHI", 9, 60000, 0)),
        16,
        "option 9 claims 60000 bytes, 4 left",
    ),
}


@pytest.mark.parametrize("name", PCAPNG_DAMAGES)
def test_damage_in_pcapng_comes_after_every_whole_frame(tmp_path: Path, name: str) -> None:
    tail, offset, problem = PCAPNG_DAMAGES[name]
    good = pcapng(RECORDS)
    for pack in (bytes, gzip.compress):
        found, error = read(tmp_path, pack(good + tail))
        assert found == expected(RECORDS)
        assert error.startswith(place(len(good) + offset, pack))
        assert problem in error


def test_a_section_may_not_describe_interfaces_without_end(tmp_path: Path) -> None:
    found, error = read(tmp_path, section() + interface() * 65_537)
    assert found == []
    assert error.endswith("section describes more than 65536 interfaces")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "byte 0: the file is empty"),
        (b"\xd4\xc3", "byte 0: not a pcap or pcapng file: begins with d4 c3"),
        (b"hello world", "byte 0: not a pcap or pcapng file: begins with 68 65 6c 6c 6f 20 77 6f"),
        (b"snoop\0\0\0" + b"\0" * 30, "(a Solaris snoop file)"),
        (b"BZh9" + b"\0" * 30, "(compressed with bzip2)"),
        (
            struct.pack("<IIBBHHH", 5, 1_700_000_000, 2, 4, 0x5000, 0, 0x3C00) + b"\0" * 80,
            "(perhaps an Endace ERF file, which has no magic number)",
        ),
        (gzip.compress(gzip.compress(pcap(RECORDS))), "(compressed with gzip once more)"),
        (pcap()[:20], "byte 0: pcap file header needs 24 bytes, the file has 20"),
        (pcap(version=(1, 4)), "byte 4: pcap version 1.4 is not 2.0 to 2.4"),
        (pcap(link_type=0x00010001), "byte 20: link type 0x00010001 has reserved bits set"),
    ],
)
def test_what_is_no_capture_is_named_by_its_first_bytes(tmp_path: Path, data: bytes, problem: str) -> None:
    found, error = read(tmp_path, data)
    assert found == []
    assert error.endswith(problem)


def test_a_path_that_cannot_be_opened_is_a_capture_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"none\.pcap: byte 0: No such file or directory"):
        CaptureFile(tmp_path / "none.pcap")
    with pytest.raises(CaptureError, match="Is a directory"), CaptureFile(tmp_path) as capture:
        list(capture)


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_file_that_is_cut_while_it_is_read_ends_with_an_error(
    make: Callable[[list[Record]], bytes], tmp_path: Path
) -> None:
    path = write(tmp_path, make([(i, b"x" * 1000, 1000) for i in range(100)]))
    with CaptureFile(path, frames_per_block=10) as capture:
        blocks = iter(capture)
        assert len(next(blocks)) == 10
        os.truncate(path, 5000)
        with pytest.raises(CaptureError, match=r"byte 10\d\d\d: the file was truncated while it was read"):
            next(blocks)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("make", [pcap, pcapng])
def test_a_pipe_gives_frames_as_soon_as_they_are_whole(
    tmp_path: Path, make: Callable[[list[Record]], bytes], pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = pack(make(RECORDS))

    def trickle() -> None:
        with path.open("wb", buffering=0) as pipe:
            for i in range(0, len(data), 5):
                pipe.write(data[i : i + 5])

    writer = threading.Thread(target=trickle)
    writer.start()
    with CaptureFile(path) as capture:
        assert capture.size is None
        blocks = list(capture)
        assert capture.position == len(data)
    writer.join()
    assert rows(blocks) == expected(RECORDS)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_a_file_that_says_it_is_empty_and_is_not_is_read_as_a_stream() -> None:
    data = pcap(RECORDS) + b"\0"  # the command line of a process is its arguments, a zero byte behind each
    with subprocess.Popen(data[:-1].split(b"\0"), executable="yes", stdout=subprocess.PIPE) as process:
        path = Path(f"/proc/{process.pid}/cmdline")
        try:
            assert process.stdout is not None
            assert process.stdout.read(1)  # it runs, and will say more than anybody reads
            assert path.stat().st_size == 0
            assert path.read_bytes() == data
            with CaptureFile(path) as capture:
                frames = iter(capture)
                assert rows([next(frames)]) == expected(RECORDS)
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_file_that_says_it_is_empty_and_holds_no_capture_is_named_by_its_first_bytes() -> None:
    with (
        CaptureFile("/proc/self/status") as capture,
        pytest.raises(CaptureError, match=r"begins with 4e 61 6d 65"),
    ):
        list(capture)


def test_the_first_frames_of_a_pipe_do_not_wait_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)  # the pipe never ends
    os.write(keep, pcap(RECORDS))
    with CaptureFile(path) as capture:
        assert rows([next(iter(capture))]) == expected(RECORDS)
    os.close(keep)


def test_a_dash_is_standard_input() -> None:
    program = "from connectors.files.pcap import CaptureFile; print(sum(len(b) for b in CaptureFile('-')))"
    for data in (pcap(RECORDS), lzma.compress(pcapng(RECORDS))):
        run = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
        assert run.stdout.strip() == b"10"
