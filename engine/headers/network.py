"""ARP, IPv4 and IPv6."""

from __future__ import annotations

from typing import Any

from engine.headers.cursor import (
    DONE,
    K_ARP,
    K_IPV4,
    K_IPV6,
    R_ARP_TRUNCATED,
    R_IP_EXTENSION,
    R_IP_LENGTH,
    R_IP_TRUNCATED,
    R_IP_VERSION,
    TO_EXTENSIONS,
    TO_IPV4,
    TO_IPV6,
    TO_PROTOCOL,
    Bytes,
    fail,
    forget,
    u8,
    u16,
    u32,
    u64,
)
from engine.headers.transport import protocol
from engine.kernels import kernel
from engine.types import KIND_FIRST_FRAGMENT, KIND_FRAGMENT, KIND_MASK

MAX_EXTENSIONS = 16  # most IPv6 extension headers (and AH) in one packet
# IP protocol numbers of extension headers
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT_HEADER, DESTINATION = 0, 43, 44, 51, 59, 60


@kernel
def ip(data: Bytes, c: Any, row: Any) -> int:
    """IPv4 or IPv6, whichever the first nibble says."""
    if c["end"] - c["at"] < 1:
        return fail(row, R_IP_TRUNCATED)
    version = u8(data, c["at"]) >> 4
    if version == 4:
        return TO_IPV4
    if version == 6:
        return TO_IPV6
    return fail(row, R_IP_VERSION)


@kernel
def arp(data: Bytes, c: Any, row: Any) -> int:
    """RFC 826 (and 903): the operation, and sender's and target's protocol addresses if those are IPv4."""
    at = c["at"]
    have = c["end"] - at
    if have < 8:
        return fail(row, R_ARP_TRUNCATED)
    hardware = u8(data, at + 4)
    protocol = u8(data, at + 5)
    forget(row)
    row["kind"] = K_ARP | c["inner"]
    row["sport"] = u16(data, at + 6)
    if have < 8 + 2 * (hardware + protocol):
        return fail(row, R_ARP_TRUNCATED)
    if u16(data, at + 2) == 0x0800 and protocol == 4:
        row["src_lo"] = 0xFFFF << 32 | u32(data, at + 8 + hardware)
        row["dst_lo"] = 0xFFFF << 32 | u32(data, at + 12 + 2 * hardware)
    return DONE


@kernel
def ipv4(data: Bytes, c: Any, row: Any) -> int:
    """RFC 791. A total length of 0 comes from segmentation offload: the length of the frame is taken instead.

    A total length beyond the frame on the wire is noted as the reason, and the packet is read up to the frame's end.
    """
    at = c["at"]
    if c["end"] - at < 20:
        return fail(row, R_IP_TRUNCATED)
    if u8(data, at) >> 4 != 4:
        return fail(row, R_IP_VERSION)
    header = (u8(data, at) & 15) * 4
    room = c["wire_end"] - at
    size = u16(data, at + 2)
    if size == 0:
        size = room
    if header < 20 or size < header:
        return fail(row, R_IP_LENGTH)
    forget(row)
    kind = K_IPV4 | c["inner"]
    row["src_lo"] = 0xFFFF << 32 | u32(data, at + 12)
    row["dst_lo"] = 0xFFFF << 32 | u32(data, at + 16)
    row["ttl"] = u8(data, at + 8)
    row["proto"] = u8(data, at + 9)
    row["ip_id"] = u16(data, at + 4)
    row["ip_size"] = size
    fragment = u16(data, at + 6)
    if fragment & 0x1FFF:
        kind |= KIND_FRAGMENT
        row["checksum"] = fragment & 0x1FFF
    elif fragment & 0x2000:
        kind |= KIND_FIRST_FRAGMENT
    row["kind"] = kind
    c["what"] = u8(data, at + 9)
    return enter(c, row, header, size, room)


@kernel
def ipv6(data: Bytes, c: Any, row: Any) -> int:
    """RFC 8200. A payload length of 0 comes from a jumbogram or from segmentation offload, as in IPv4."""
    at = c["at"]
    if c["end"] - at < 40:
        return fail(row, R_IP_TRUNCATED)
    if u8(data, at) >> 4 != 6:
        return fail(row, R_IP_VERSION)
    room = c["wire_end"] - at
    size = 40 + u16(data, at + 4)
    if size == 40 and u8(data, at + 6) != NO_NEXT_HEADER:
        size = room
    forget(row)
    row["kind"] = K_IPV6 | c["inner"]
    row["src_hi"] = u64(data, at + 8)
    row["src_lo"] = u64(data, at + 16)
    row["dst_hi"] = u64(data, at + 24)
    row["dst_lo"] = u64(data, at + 32)
    row["ttl"] = u8(data, at + 7)
    row["proto"] = u8(data, at + 6)
    row["ip_size"] = size
    c["what"] = u8(data, at + 6)
    return enter(c, row, 40, size, room)


@kernel
def enter(c: Any, row: Any, header: int, size: int, room: int) -> int:
    """Step over an IP header in a packet of this size: from here on the packet's end counts, not the frame's."""
    at = c["at"]
    if size > room:
        fail(row, R_IP_LENGTH)
    c["wire_end"] = at + size
    c["end"] = min(c["end"], at + size)
    c["at"] = at + header
    if c["at"] > c["end"]:
        return fail(row, R_IP_TRUNCATED)
    if row["kind"] & KIND_FRAGMENT or not is_extension(c["what"], row):
        return protocol(c, row)
    return TO_EXTENSIONS


@kernel
def is_extension(what: int, row: Any) -> bool:
    """Whether the next header still belongs to IP, not to a protocol above it."""
    if what == AUTHENTICATION:  # also in IPv4
        return True
    return row["kind"] & KIND_MASK == K_IPV6 and (what in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION))


@kernel
def extensions(data: Bytes, c: Any, row: Any) -> int:
    """Step over IPv6 extension headers (RFC 8200 section 4) and AH (RFC 4302)."""
    for _ in range(MAX_EXTENSIONS):
        what = c["what"]
        if not is_extension(what, row):
            return TO_PROTOCOL
        at = c["at"]
        if c["end"] - at < 8:
            return fail(row, R_IP_EXTENSION if c["wire_end"] - at < 8 else R_IP_TRUNCATED)
        c["what"] = u8(data, at)
        row["proto"] = u8(data, at)
        size = (u8(data, at + 1) + 1) * 8
        if what == AUTHENTICATION:
            size = (u8(data, at + 1) + 2) * 4
        elif what == FRAGMENT:
            size = 8
            row["ip_id"] = u16(data, at + 6)
            fragment = u16(data, at + 2)
            if fragment & 0xFFF8:
                row["kind"] = row["kind"] | KIND_FRAGMENT
                row["checksum"] = fragment >> 3
            elif fragment & 1:
                row["kind"] = row["kind"] | KIND_FIRST_FRAGMENT
        if c["wire_end"] - at < size:
            return fail(row, R_IP_EXTENSION)
        c["at"] = at + size
        if row["kind"] & KIND_FRAGMENT:
            return TO_PROTOCOL
    return fail(row, R_IP_EXTENSION)
