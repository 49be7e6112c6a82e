"""The first bytes of captures: what a file is, and where another capture begins inside one."""

from __future__ import annotations

from connectors.files.compressed import compression
from connectors.files.window import Bytes, u16, u32
from connectors.kernels import kernel

MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34  # pcap, most significant byte first
SECTION, BYTE_ORDER = 0x0A0D0D0A, 0x1A2B3C4D  # pcapng: a section header, and the word behind its length
OTHERS = {
    b"snoop\0\0\0": "a Solaris snoop file",
    b"\x54\x52\x53\x4e": "a Sniffer file",
    b"\x47\x4d\x42\x55": "a Microsoft Network Monitor file",
    b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
}


def not_a_capture(head: bytes) -> str:
    """An error message for a file that begins with ``head``, which is no capture's beginning."""
    known = next((name for magic, name in OTHERS.items() if head.startswith(magic)), "")
    if packed := compression(head):
        known = f"compressed with {packed} once more"
    elif head and not any(head):
        known = "zeros: perhaps it was never written"
    elif len(head) == 24 and 1 <= head[8] & 0x7F <= 48 and 16 <= int.from_bytes(head[10:12], "big") <= 4096:
        known = known or "perhaps an Endace ERF file, which has no magic number"
    return f"not a pcap or pcapng file: begins with {head[:8].hex(' ')}" + (f" ({known})" if known else "")


@kernel
def begins_pcap(data: Bytes, at: int) -> bool:
    """Whether the 8 bytes from ``at`` are the magic number and version of a pcap file, in either byte order."""
    for big in (False, True):
        magic = u32(data, at, big)
        if magic == MICROSECONDS or magic == NANOSECONDS or magic == MODIFIED:
            major, minor = u16(data, at + 4, big), u16(data, at + 6, big)
            return (major == 2 and minor <= 4) or (major == 543 and minor == 0)
    return False


@kernel
def begins_pcapng(data: Bytes, at: int) -> bool:
    """Whether the 12 bytes from ``at`` begin a section header of pcapng, in either byte order."""
    if u32(data, at, False) != SECTION:
        return False
    return u32(data, at + 8, False) == BYTE_ORDER or u32(data, at + 8, True) == BYTE_ORDER


@kernel
def zeros_end(data: Bytes, at: int) -> int:
    """Index of the first byte from ``at`` that is not zero; the end of the data without one."""
    while at < data.size and data[at] == 0:
        at += 1
    return at
