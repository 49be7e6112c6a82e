"""802.11 frames, and what a radio puts before them: radiotap, PPI, Prism, AVS."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    DONE,
    K_LINK,
    R_CORRUPT,
    R_ENCAPSULATION,
    R_ENCRYPTED,
    R_LINK_PARTIAL,
    R_LINK_PROTOCOL,
    R_LINK_TRUNCATED,
    TO_LLC,
    TO_WIFI,
    Bytes,
    fail,
    forget,
    le16,
    le32,
    u8,
    u16,
    u32,
    u48,
)
from engine.headers.link import wrapped
from engine.kernels import kernel

TO_DS, FROM_DS, PROTECTED, ORDER = 0x01, 0x02, 0x40, 0x80  # bits of the second byte of frame control
QOS, NO_DATA = 0x80, 0x40  # bits of the subtype, in the first byte
PADDED, FCS, BAD_FCS = 0x20, 0x10, 0x40  # bits of radiotap's flags


@kernel
def header_size(data: Bytes, c: Any, row: Any) -> int:
    """Size of a radiotap or PPI header, which begin alike: version 0, a byte, the length; DONE: a failure."""
    have = c["end"] - c["at"]
    if have < 8:
        return fail(row, R_LINK_TRUNCATED)
    size = le16(data, c["at"] + 2)
    if u8(data, c["at"]) != 0 or size < 8:
        return fail(row, R_ENCAPSULATION)
    if have < size:
        return fail(row, R_LINK_TRUNCATED)
    return size


@kernel
def radiotap(data: Bytes, c: Any, row: Any) -> int:
    """https://www.radiotap.org: version, length, words of presence bits, and of the fields only the flags."""
    at = c["at"]
    size = header_size(data, c, row)
    if size == DONE:
        return DONE
    present = le32(data, at + 4)
    field = at + 8
    word = present
    while word >> 31 == 1:
        if field + 4 > at + size:
            return fail(row, R_ENCAPSULATION)
        word = le32(data, field)
        field += 4
    if present & 1:  # time, aligned to its size
        field = at + (field - at + 7) // 8 * 8 + 8
    flags = 0
    if present & 2:
        if field + 1 > at + size:
            return fail(row, R_ENCAPSULATION)
        flags = u8(data, field)
    c["at"] = at + size
    return radio_frame(c, row, flags)


@kernel
def radio_frame(c: Any, row: Any, flags: int) -> int:
    """The 802.11 frame behind a radio's header, without its check sequence; flags: PADDED, FCS, BAD_FCS."""
    if flags & FCS:
        c["wire_end"] = max(c["at"], c["wire_end"] - 4)
        c["end"] = min(c["end"], c["wire_end"])
    if flags & BAD_FCS:
        return fail(row, R_CORRUPT)
    c["depth"] += 1
    c["what"] = int(flags & PADDED != 0)
    return TO_WIFI


@kernel
def ppi(data: Bytes, c: Any, row: Any) -> int:
    """Per-Packet Information, version 1.0.10: length, the link type inside, fields; that of 802.11 has the flags."""
    at = c["at"]
    size = header_size(data, c, row)
    if size == DONE:
        return DONE
    aligned = u8(data, at + 1) & 1
    link_type = le32(data, at + 4)
    flags = 0
    field = at + 8
    while at + size - field >= 4:
        length = le16(data, field + 2)
        if le16(data, field) == 2 and length >= 10 and at + size - field >= 14:  # 802.11-Common: time, flags
            bits = le16(data, field + 12)
            flags = (FCS if bits & 1 else 0) | (BAD_FCS if bits & 4 else 0)
        field += 4 + length
        if aligned:
            field = at + (field - at + 3) // 4 * 4
    c["at"] = at + size
    if link_type == 105:
        return radio_frame(c, row, flags)
    return wrapped(c, row, link_type)


@kernel
def prism(data: Bytes, c: Any, row: Any) -> int:
    """Prism's header (message code, length; in either byte order) or AVS's (version 0x8021100x, length)."""
    at = c["at"]
    have = c["end"] - at
    if have < 8:
        return fail(row, R_LINK_TRUNCATED)
    size = u32(data, at + 4)
    if u32(data, at) & 0xFFFFFFF0 != 0x80211000 and size > 0xFFFF:
        size = le32(data, at + 4)
    if size < 24 or size > 0xFFFF:
        return fail(row, R_ENCAPSULATION)
    if have < size:
        return fail(row, R_LINK_TRUNCATED)
    c["at"] = at + size
    return radio_frame(c, row, 0)


@kernel
def wifi(data: Bytes, c: Any, row: Any) -> int:
    """IEEE 802.11-2020 section 9.3: data frames are read on; management frames give their addresses."""
    at = c["at"]
    have = c["end"] - at
    if have < 2:
        return fail(row, R_LINK_TRUNCATED)
    control, flags = u8(data, at), u8(data, at + 1)
    kind = control >> 2 & 3
    if control & 3:  # another version of the protocol
        return fail(row, R_ENCAPSULATION)
    if kind & 1:  # control frames have one address or two, extensions other headers
        return fail(row, R_LINK_PROTOCOL)
    four = kind == 2 and flags & TO_DS and flags & FROM_DS
    size = 30 if four else 24
    if have < size:
        return fail(row, R_LINK_TRUNCATED)
    forget(row)
    row["kind"] = K_LINK | c["inner"]
    row["vlan"] = 0
    row["ethertype"] = 0
    to_ds, from_ds = kind == 2 and flags & TO_DS, kind == 2 and flags & FROM_DS
    row["dst_mac"] = u48(data, at + 16) if to_ds else u48(data, at + 4)
    row["src_mac"] = u48(data, at + 24 if to_ds else at + 16) if from_ds else u48(data, at + 10)
    if kind == 0 or control & NO_DATA:
        return fail(row, R_LINK_PROTOCOL)
    aggregate = False
    if control & QOS:
        if have < size + 2:
            return fail(row, R_LINK_TRUNCATED)
        aggregate = u8(data, at + size) & 0x80 != 0
        size += 6 if flags & ORDER else 2  # HT control follows
    if c["what"]:
        size = (size + 3) // 4 * 4
    if have < size:
        return fail(row, R_LINK_TRUNCATED)
    if u8(data, at + 22) & 0x0F:  # number of this fragment
        return fail(row, R_LINK_PARTIAL)
    c["at"] = at + size
    if flags & PROTECTED:
        return decrypted(data, c, row)
    if aggregate:
        return first_of_several(data, c, row)
    return TO_LLC


@kernel
def decrypted(data: Bytes, c: Any, row: Any) -> int:
    """An encrypted payload; some drivers decrypt it, leave the bit, and may leave the 8 bytes before it."""
    for skip in (0, 8):
        at = c["at"] + skip
        if c["end"] - at >= 8 and u32(data, at) == 0xAAAA0300 and u16(data, at + 4) in (0, 0x00F8):
            c["at"] = at
            return TO_LLC
    return fail(row, R_ENCRYPTED)


@kernel
def first_of_several(data: Bytes, c: Any, row: Any) -> int:
    """The first packet of an A-MSDU, section 9.3.2.2: destination, source, length."""
    at = c["at"]
    if c["end"] - at < 14:
        return fail(row, R_LINK_TRUNCATED)
    size = 14 + u16(data, at + 12)
    if at + size > c["wire_end"]:
        return fail(row, R_ENCAPSULATION)
    row["dst_mac"] = u48(data, at)
    row["src_mac"] = u48(data, at + 6)
    if c["wire_end"] - at - (size + 3) // 4 * 4 >= 14:
        fail(row, R_LINK_PARTIAL)  # the others have no row
    c["at"] = at + 14
    c["wire_end"] = at + size
    c["end"] = min(c["end"], at + size)
    return TO_LLC
