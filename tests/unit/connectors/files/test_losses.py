"""Losses that pcapng captures report: statistics of interfaces, and drop counts of packets."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.files.counts import FileCounts
from connectors.files.pcap import CaptureFile
from connectors.files.pcapng import EXACT, FRAMES
from connectors.files.window import CaptureError
from tests.support.capture_bytes import Record, block, enhanced, interface, option, section
from tests.support.capture_files import write

A: Record = (1_700_000_000_000_000, b"abcde", 5)


def counter(code: int, n: int, order: str = "<") -> bytes:
    return option(code, struct.pack(order + "Q", n), order)


def statistics(interface: int, *options: bytes, order: str = "<") -> bytes:
    return block(5, struct.pack(order + "III", interface, 0, 0) + b"".join(options), order)


def packet(lost: int | None = None, interface: int = 0, order: str = "<", frame: bytes = b"abcde") -> bytes:
    options = (
        b""
        if lost is None
        else option(2, b"\0\0\0\1", order) + counter(4, lost, order) + option(0, b"", order)
    )
    return enhanced((A[0], frame, len(frame)), interface, order, options)


def losses(folder: Path, data: bytes, size: int = 4096) -> list[tuple[int, int]]:
    """Packets lost before each block, and frames in it; together they are what the file's counts say."""
    counts = FileCounts()
    with CaptureFile(write(folder, data), frames_per_block=size, counts=counts) as capture:
        found = [(b.dropped, len(b)) for b in capture]
    assert counts.lost == sum(lost for lost, _ in found)
    return found


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("order", ["<", ">"])
def test_statistics_count_from_the_capture_s_begin_for_each_interface(
    tmp_path: Path, order: str, pack: Callable[[bytes], bytes]
) -> None:
    data = section(order) + interface(order=order) * 2 + packet(order=order)
    data += statistics(0, counter(4, 900, order), counter(5, 3, order), counter(7, 4, order), order=order)
    data += packet(order=order) * 2
    data += statistics(1, counter(5, 10, order), order=order)  # another interface
    data += statistics(0, counter(5, 3, order), counter(7, 4, order), order=order)  # nothing new
    data += packet(order=order)
    data += statistics(0, counter(7, 5, order), counter(5, 5, order), order=order)
    assert losses(tmp_path, pack(data)) == [(0, 1), (7, 2), (10, 1), (3, 0)]


def test_a_filter_s_choice_and_other_counters_are_no_loss(tmp_path: Path) -> None:
    data = section() + interface() + packet()
    data += statistics(0, counter(4, 99), counter(6, 98), counter(8, 97), counter(2, 5))
    assert losses(tmp_path, data) == [(0, 1)]


def test_drop_counts_of_packets_are_losses_before_them(tmp_path: Path) -> None:
    data = (
        section()
        + interface()
        + packet()
        + packet(0)
        + packet(5)
        + packet()
        + packet(2)
        + packet(3)
        + packet()
    )
    assert losses(tmp_path, data) == [(0, 2), (5, 2), (2, 1), (3, 2)]
    assert losses(tmp_path, data, 1) == [(0, 1), (0, 1), (5, 1), (0, 1), (2, 1), (3, 1), (0, 1)]
    assert losses(tmp_path, data, 3) == [(0, 2), (5, 2), (2, 1), (3, 2)]


@pytest.mark.parametrize("size", range(9))
def test_drop_counts_are_found_behind_frames_of_any_length(tmp_path: Path, size: int) -> None:
    frame = b"\4\0\x08\0\xff\0\0\0"[:size]  # which looks like the option itself
    data = section() + interface() + packet(frame=frame) + packet(7, frame=frame) + packet(frame=frame)
    assert losses(tmp_path, data) == [(0, 1), (7, 2)]


def test_what_both_report_is_counted_once(tmp_path: Path) -> None:
    head = section() + interface()
    every = packet(2) + packet(3)
    assert losses(tmp_path, head + every + statistics(0, counter(5, 5))) == [(2, 1), (3, 1)]
    assert losses(tmp_path, head + every + statistics(0, counter(5, 9))) == [(2, 1), (3, 1), (4, 0)]
    first = packet() + statistics(0, counter(5, 6)) + packet(6)  # the packet repeats what was just reported
    assert losses(tmp_path, head + first + packet(4)) == [(0, 1), (6, 1), (4, 1)]
    assert losses(tmp_path, head + first + statistics(0, counter(5, 7))) == [(0, 1), (6, 1), (1, 0)]


def test_many_losses_do_not_cut_a_file_into_single_packets(tmp_path: Path) -> None:
    """Exact at first; then blocks are of some size, and each loss is reported at the next one."""
    n = EXACT + 10 * FRAMES
    data = section() + interface() + packet() + packet(1) * n
    found = losses(tmp_path, data)
    assert found[: EXACT + 1] == [(0, 1)] + [(1, 1)] * (EXACT - 1) + [(1, FRAMES)]
    assert all(frames == FRAMES for _, frames in found[EXACT:-1])
    assert sum(lost for lost, _ in found) == n
    assert sum(frames for _, frames in found) == n + 1
    each = packet() + b"".join(packet() + statistics(0, counter(5, k + 1)) for k in range(n))
    found = losses(tmp_path, section() + interface() + each)
    assert len(found) < EXACT + 20
    assert (sum(lost for lost, _ in found), sum(frames for _, frames in found)) == (n, n + 1)


def test_obsolete_packets_count_drops_too_unless_they_do_not_know(tmp_path: Path) -> None:
    def old(lost: int) -> bytes:
        head = struct.pack("<HHIIII", 0, lost, A[0] >> 32, A[0] & 0xFFFFFFFF, 5, 5)
        return block(2, head + b"abcde")

    data = section() + interface() + old(0) + old(0xFFFF) + old(9)
    assert losses(tmp_path, data) == [(0, 2), (9, 1)]


def test_a_new_section_counts_from_zero(tmp_path: Path) -> None:
    one = section() + interface() + packet() + statistics(0, counter(5, 5))
    assert losses(tmp_path, one + one + one) == [(0, 1), (5, 1), (5, 1), (5, 0)]
    other = section(">") + interface(order=">") + packet(order=">")
    other += statistics(0, counter(5, 6, ">"), order=">")
    assert losses(tmp_path, one + other) == [(0, 1), (5, 1), (6, 0)]


def test_odd_statistics_count_as_nothing_and_end_nothing(tmp_path: Path) -> None:
    head = section() + interface() + packet()
    for odd in (
        statistics(9, counter(5, 3)),  # no such interface
        block(5, b"stat"),
        block(5, b""),
        statistics(0, option(5, b"1234")),  # of another length
        statistics(0, struct.pack("<HH", 5, 60000)),  # beyond the block
        statistics(0, option(0, b""), counter(5, 3)),  # behind the end of options
    ):
        assert losses(tmp_path, head + odd + packet()) == [(0, 2)]
    absurd = losses(
        tmp_path, head + statistics(0, counter(5, 2**64 - 1), counter(7, 2**64 - 1)) + packet(2**64 - 1)
    )
    assert absurd == [(0, 1), (1 << 48, 1)]


def test_losses_before_damage_are_reported(tmp_path: Path) -> None:
    data = section() + interface() + packet() + statistics(0, counter(5, 5)) + b"\x06\0\0\0"
    found: list[tuple[int, int]] = []
    with CaptureFile(write(tmp_path, data)) as capture, pytest.raises(CaptureError):
        found.extend((b.dropped, len(b)) for b in capture)
    assert found == [(0, 1), (5, 0)]
