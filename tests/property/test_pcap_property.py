from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.frames import FrameBlock
from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from tests.support.capture_bytes import Record, enhanced, interface, obsolete, pcap, pcapng, section, simple

Frame = tuple[int, bytes, int]

RECORDS = st.lists(  # none of them is all zeros, as is what was never written
    st.tuples(st.integers(1, 2**31 * 10**6), st.binary(max_size=40), st.integers(0, 2**32 - 1)), max_size=8
)
MAKERS: list[Callable[[list[Record]], bytes]] = [
    pcap,
    lambda records: pcap(records, order=">", magic=0xA1B23C4D),
    pcapng,
    lambda records: pcapng(records, ">"),
]
PIECES = [
    section(),
    section(">"),
    interface(),
    interface(113, 5, order=">"),
    enhanced((5, b"abc", 9)),
    enhanced((5, b"abc", 9), 1, ">"),
    obsolete((5, b"abc", 9)),
    simple(b"abcd", 9),
    pcap(),
    pcap(order=">"),
    pcap([(5, b"abc", 9)])[24:],
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
]


def read(data: bytes, frames_per_block: int = 4096) -> tuple[list[Frame], CaptureError | None]:
    """Frames of a file with these bytes, and the damage after them."""
    found: list[Frame] = []
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        with CaptureFile(file.name, frames_per_block=frames_per_block) as capture:
            try:
                for b in capture:
                    assert 0 < len(b) <= frames_per_block
                    found += frames_of(b)
            except CaptureError as error:
                return found, error
    return found, None


def frames_of(b: FrameBlock) -> list[Frame]:
    assert (b.start >= 0).all()
    assert (b.start + b.captured <= b.buffer.size).all()
    assert (b.wire >= b.captured).all()
    ends = b.start + b.captured
    cut = [b.buffer[at:end].tobytes() for at, end in zip(b.start, ends, strict=True)]
    return list(zip(b.ts.tolist(), cut, b.wire.tolist(), strict=True))


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=30), max_size=12))
@settings(deadline=None, max_examples=300)
def test_any_bytes_end_in_frames_or_one_error_inside_the_file(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    found, error = read(data)
    assert sum(len(frame) for _, frame, _ in found) <= len(data)
    assert error is None or 0 <= error.offset <= len(data)


@given(RECORDS, st.sampled_from(MAKERS), st.data())
@settings(deadline=None, max_examples=200)
def test_a_file_cut_anywhere_gives_the_frames_before_the_cut(
    records: list[Record], make: Callable[[list[Record]], bytes], data: st.DataObject
) -> None:
    whole = make(records)
    complete, error = read(whole)
    assert error is None
    assert len(complete) == len(records)
    cut = data.draw(st.integers(0, len(whole)))
    found, error = read(whole[:cut])
    ends = [len(make(records[: n + 1])) for n in range(len(records))]
    assert found == complete[: sum(end <= cut for end in ends)]
    boundaries = {len(make([])), *ends} | ({len(section())} if make not in MAKERS[:2] else set())
    assert (error is None) == (cut in boundaries)


@given(RECORDS, st.sampled_from(MAKERS), st.integers(1, 9))
@settings(deadline=None, max_examples=100)
def test_blocks_of_any_size_hold_the_same_frames(
    records: list[Record], make: Callable[[list[Record]], bytes], size: int
) -> None:
    whole = make(records)
    assert read(whole, size) == read(whole)


@pytest.mark.parametrize("make", MAKERS)
def test_one_changed_byte_never_reaches_beyond_the_file(make: Callable[[list[Record]], bytes]) -> None:
    whole = make([(i, bytes([i]) * 5, 5) for i in range(4)])
    rng = np.random.default_rng(3)
    for at in range(len(whole)):
        for new in (0, 0x7F, 0xFF, int(rng.integers(256))):
            read(whole[:at] + bytes([new]) + whole[at + 1 :])
