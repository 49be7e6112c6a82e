"""The blocks of a TPACKET_V3 ring: the kernel's layout of packets in shared memory, and reading them.

Layout and status bits: linux/if_packet.h. The kernel fills a block and marks it the user's; the reader marks it the
kernel's again. Byte order is the machine's.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.files.window import Bytes, Columns
from connectors.kernels import kernel
from connectors.live.netdev import EACH, ETHERNET, RAW_IP

Words = NDArray[np.uint32]

KERNEL, USER = 0, 1  # owner of a block
STATUS, COUNT, FIRST = 8, 12, 16  # offsets in a block: status, number of packets, offset of the first packet
RESERVED = 8  # bytes kept free before each frame: room for a VLAN tag, and alignment

_NEXT, _SEC, _NSEC, _SNAP, _LEN, _STAT = range(0, 24, 4)  # offsets in a packet's header
_MAC, _TCI, _TPID, _HARDWARE_TYPE, _TYPE = 24, 32, 36, 56, 58
_VLAN, _VLAN_TPID = 1 << 4, 1 << 6
_HARDWARE = 1 << 31
OUTGOING = 4  # packet type in sockaddr_ll
LOOPBACK = 772  # hardware type in sockaddr_ll
UNKNOWN = 0xFFFF  # link type of an interface whose frames have no decoder


class Geometry(NamedTuple):
    """Size of a ring."""

    block: int  # bytes, a power of two and a multiple of the page
    blocks: int

    def request(self, retire: int) -> bytes:
        """struct tpacket_req3. ``retire``: ms after which a block that is not full is given to the user."""
        frame = 2048  # meaningless in version 3, but checked
        frames = self.block // frame * self.blocks
        return struct.pack("@7I", self.block, self.blocks, frame, frames, retire, 0, 0)


class Wanted(NamedTuple):
    """The packets of the ring to keep."""

    link_type: int  # of all packets; EACH: of the interface that each came from
    incoming: bool
    outgoing: bool


class Walked(NamedTuple):
    """Counts of a walk, besides the rows."""

    rows: int
    skipped: int  # packets in the other direction, and copies of what came in by loopback
    software: int  # packets without a hardware time stamp


@kernel
def _u16(data: Bytes, at: int) -> int:
    return int(np.int64(data[at])) | int(np.int64(data[at + 1])) << 8


@kernel
def _link_type(hardware: int) -> int:
    """Link type of an interface's hardware type, as netdev.LINK_TYPES has it."""
    if hardware == 1 or hardware == LOOPBACK:
        return ETHERNET
    if hardware == 65534 or hardware == 768 or hardware == 776:
        return RAW_IP
    return UNKNOWN


@kernel
def ready(words: Words, first: int, geometry: Geometry, most: int) -> tuple[int, int]:
    """Blocks from ``first`` that are the user's, and their packets: at least one block, then up to ``most``."""
    n = packets = 0
    size = geometry.block // 4
    while n < geometry.blocks:
        at = (first + n) % geometry.blocks * size
        if words[at + STATUS // 4] & USER == 0:
            break
        count = int(np.int64(words[at + COUNT // 4]))
        if n and packets + count > most:
            break
        packets += count
        n += 1
    return n, packets


@kernel
def walk(
    data: Bytes, words: Words, first: int, blocks: int, geometry: Geometry, wanted: Wanted, rows: Columns
) -> Walked:
    """Fill rows with the packets of some blocks, in order; puts back VLAN tags that the kernel removed.

    data, words: the same ring as bytes and as words of 4. rows: as many as ``ready`` counted.
    """
    n = skipped = software = 0
    for k in range(blocks):
        base = (first + k) % geometry.blocks * geometry.block
        at = base + int(np.int64(words[(base + FIRST) // 4]))
        for _ in range(int(np.int64(words[(base + COUNT) // 4]))):
            word = at // 4
            status = int(np.int64(words[word + _STAT // 4]))
            out = data[at + _TYPE] == OUTGOING
            ts = int(np.int64(words[word + _SEC // 4])) * 1_000_000_000
            ts += int(np.int64(words[word + _NSEC // 4]))
            link_type, copy = wanted.link_type, False
            if link_type == EACH:
                hardware = _u16(data, at + _HARDWARE_TYPE)
                link_type = _link_type(hardware)
                copy = out and hardware == LOOPBACK  # it comes in as well
            if copy or (out and not wanted.outgoing) or (not out and not wanted.incoming):
                skipped += 1
            else:
                start = at + _u16(data, at + _MAC)
                captured = int(np.int64(words[word + _SNAP // 4]))
                wire = int(np.int64(words[word + _LEN // 4]))
                if status & _VLAN and link_type == ETHERNET and captured >= 12:
                    for b in range(12):
                        data[start + b - 4] = data[start + b]
                    start -= 4
                    captured, wire = captured + 4, wire + 4
                    tpid = _u16(data, at + _TPID) if status & _VLAN_TPID else 0x8100
                    tci = _u16(data, at + _TCI)
                    data[start + 12], data[start + 13] = np.uint8(tpid >> 8), np.uint8(tpid & 255)
                    data[start + 14], data[start + 15] = np.uint8(tci >> 8), np.uint8(tci & 255)
                if not status & _HARDWARE:
                    software += 1
                rows.start[n] = start
                rows.captured[n] = captured
                rows.wire[n] = max(captured, wire)
                rows.ts[n] = ts
                rows.link_type[n] = link_type
                n += 1
            at += int(np.int64(words[word + _NEXT // 4]))
    return Walked(n, skipped, software)


def release(words: Words, first: int, blocks: int, geometry: Geometry) -> None:
    """Give blocks back to the kernel."""
    size = geometry.block // 4
    for k in range(blocks):
        words[(first + k) % geometry.blocks * size + STATUS // 4] = KERNEL
