"""Headers that captures and radios put before packets, as bytes."""

from __future__ import annotations

import struct

SNAP4, SNAP6 = bytes.fromhex("aaaa030000000800"), bytes.fromhex("aaaa0300000086dd")
AP, STATION, OTHER = b"\2\0\0\0\0\3", b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"  # OTHER is the support's DST_MAC


def tlv(kind: int, value: bytes, order: str = "<") -> bytes:
    """An attribute of NFLOG, padded to four bytes."""
    return struct.pack(order + "HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nflog(packet: bytes, family: int = 2, order: str = "<", before: bytes = b"", what: int = 0x0800) -> bytes:
    """A record of NFLOG: family, version, group, then the attributes."""
    head = tlv(1, struct.pack(">HBB", what, 1, 0), order)
    return struct.pack(">BBH", family, 0, 5) + head + before + tlv(9, packet, order)


def pflog(packet: bytes, length: int = 61, family: int = 2) -> bytes:
    """A record of pf's log whose header says that it has this length."""
    return (struct.pack(">BBBB", length, family, 0, 0) + b"em0" + b"\0" * 93)[: (length + 3) // 4 * 4].ljust(
        (length + 3) // 4 * 4, b"\0"
    ) + packet


def pktap(packet: bytes, link_type: int = 1, order: str = "<", kind: int = 1, length: int = 108) -> bytes:
    """A record of Apple's PKTAP."""
    return (struct.pack(order + "III", length, kind, link_type) + b"en0").ljust(length, b"\0") + packet


def radiotap(frame: bytes, flags: int | None = None, time: bool = False, words: int = 1) -> bytes:
    """A radiotap header with some fields; ``words`` of presence bits."""
    present = int(time) | (0 if flags is None else 2)
    masks = [present | (1 << 31 if words > 1 else 0), *([1 << 31] * (words - 2)), *([0] if words > 1 else [])]
    out = b"".join(struct.pack("<I", mask) for mask in masks)
    if time:
        out += b"\0" * (-(4 + len(out)) % 8) + b"\x55" * 8
    if flags is not None:
        out += bytes((flags,))
    return struct.pack("<BBH", 0, 0, 4 + len(out)) + out + frame


def ppi(frame: bytes, link_type: int = 105, flags: int | None = None) -> bytes:
    """A PPI header, with the field of 802.11 if there are flags."""
    fields = b"" if flags is None else struct.pack("<HHQHHHHBBbb", 2, 20, 0, flags, 0, 0, 0, 0, 0, 0, 0)
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link_type) + fields + frame


def avs(frame: bytes) -> bytes:
    return struct.pack(">II", 0x80211001, 64).ljust(64, b"\0") + frame


def prism(frame: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "II", 0x44, 144).ljust(144, b"\0") + frame


def wifi(
    payload: bytes, *, ds: int = 1, subtype: int = 0, flags: int = 0, qos: bytes = b"", sequence: int = 0,
    pad: bool = False,
) -> bytes:  # fmt: skip
    """A data frame from STATION to OTHER. ds: 1 to the distribution system, 2 from it, 3 both, 0 neither."""
    a1, a2, a3, a4 = {
        0: (OTHER, STATION, AP, b""),
        1: (AP, STATION, OTHER, b""),
        2: (OTHER, AP, STATION, b""),
        3: (AP, AP, OTHER, STATION),
    }[ds]
    head = struct.pack("<BBH", 0x08 | subtype << 4, ds | flags, 0) + a1 + a2 + a3
    head += struct.pack("<H", sequence) + a4 + qos
    return head + (b"\0" * (-len(head) % 4) if pad else b"") + payload


def subframe(payload: bytes, dst: bytes = OTHER, src: bytes = STATION, last: bool = True) -> bytes:
    """One packet of an A-MSDU."""
    out = dst + src + struct.pack(">H", len(payload)) + payload
    return out if last else out + b"\0" * (-len(out) % 4)
