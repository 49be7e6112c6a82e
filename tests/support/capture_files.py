"""Captures written and read back, frame by frame."""

from __future__ import annotations

from pathlib import Path

from connectors.files.frames import FrameBlock
from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from tests.support.capture_bytes import Record

RECORDS: list[Record] = [(1_700_000_000_000_000 + i, bytes([i]) * (60 + i), 60 + i) for i in range(10)]

Row = tuple[int, bytes, int, int]  # ns, frame, wire, link type


def write(folder: Path, data: bytes, name: str = "x.pcap") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def rows(blocks: list[FrameBlock]) -> list[Row]:
    found = []
    for b in blocks:
        for ts, start, size, wire, link in zip(b.ts, b.start, b.captured, b.wire, b.link_type, strict=True):
            frame = b.buffer[start : start + size].tobytes()
            found.append((int(ts), frame, int(wire), int(link)))
    return found


def read(folder: Path, data: bytes, frames_per_block: int = 4096) -> tuple[list[Row], str]:
    """Frames of the file and the error after them, its path left out."""
    path = write(folder, data)
    blocks: list[FrameBlock] = []
    damage = None
    with CaptureFile(path, frames_per_block=frames_per_block) as capture:
        try:
            blocks.extend(capture)
        except CaptureError as error:
            damage = error
    if damage is None:
        return rows(blocks), ""
    assert damage.path == str(path)
    assert str(damage).startswith((f"{path}: byte {damage.offset}: ", f"{path}: byte {damage.offset} of the"))
    return rows(blocks), str(damage).removeprefix(f"{path}: ")


def place(offset: int, pack: object) -> str:
    """How an error begins that is at a byte of what was packed."""
    return f"byte {offset}: " if pack is bytes else f"byte {offset} of the unpacked data: "


def expected(records: list[Record], tick: int = 1000, link_type: int = 1) -> list[Row]:
    return [(ticks * tick, frame, wire, link_type) for ticks, frame, wire in records]
