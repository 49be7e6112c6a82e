"""What several tests of the ring send and compare with."""

from __future__ import annotations

import struct
from pathlib import Path

from connectors.files.pcap import CaptureFile
from engine.headers.decode import decode
from engine.types import Packets, concatenate


def of_file(path: Path) -> Packets:
    with CaptureFile(path) as capture:
        return concatenate([decode(frames) for frames in capture])


def tagged(*tags: tuple[int, int]) -> bytes:
    """A UDP datagram under VLAN tags (TPID, TCI)."""
    ip = bytes.fromhex("4500001c000100004011000a0a0000010a000002") + struct.pack(">HHHH", 5000, 53, 8, 0)
    stack = b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in tags)
    return bytes.fromhex("020000000002020000000001") + stack + b"\x08\x00" + ip + bytes(18)
