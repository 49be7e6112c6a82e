"""Frames with other addresses, MACs and ports, and checksums that follow.

Checksums are updated from the words that change (RFC 1624, equation 3), so that a frame cut behind its headers has the
checksum of the intact one, and a wrong checksum stays as wrong as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ARP, IPV4, VLAN = 0x0806, 0x0800, (0x8100, 0x88A8)
ICMP, TCP, UDP = 1, 6, 17
ICMP_ERRORS = (3, 4, 5, 11, 12)  # messages that quote the header of another packet
QUOTED = 8  # bytes of an ICMP error before the quoted packet
CHECKSUM = {TCP: 16, UDP: 6}  # place of the checksum in the transport header


@dataclass(frozen=True)
class Change:
    """Addresses as 4 bytes, MACs as 6, by what they replace; ports by (old address, port, protocol)."""

    addresses: Mapping[bytes, bytes] = field(default_factory=dict)
    macs: Mapping[bytes, bytes] = field(default_factory=dict)
    ports: Mapping[tuple[bytes, int, int], int] = field(default_factory=dict)


class _Sum:
    """The change of the one's complement sum over the words that were replaced."""

    def __init__(self) -> None:
        self.total = 0

    def replace(self, data: bytearray, at: int, new: bytes) -> None:
        """Put bytes in place, an even number of them at an even place of what is summed."""
        for k in range(0, len(new), 2):
            self.total += (~int.from_bytes(data[at + k : at + k + 2], "big") & 0xFFFF) + int.from_bytes(
                new[k : k + 2], "big"
            )
        data[at : at + len(new)] = new

    def update(self, data: bytearray, at: int) -> None:
        """Update the checksum at a place."""
        total = (~int.from_bytes(data[at : at + 2], "big") & 0xFFFF) + self.total
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        data[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")


def rewritten(frame: bytes, change: Change) -> bytes:
    """An Ethernet frame with its addresses, MACs and ports replaced. What the capture cut off is taken as it was."""
    data = bytearray(frame)
    if len(data) < 14:
        return frame
    for at in (0, 6):
        old = bytes(data[at : at + 6])
        data[at : at + 6] = change.macs.get(old, old)
    kind, at = int.from_bytes(data[12:14], "big"), 14
    while kind in VLAN and len(data) >= at + 4:
        kind, at = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
    if kind == IPV4:
        _packet(data, at, change)
    elif kind == ARP and len(data) >= at + 28:
        _arp(data, at, change)
    return bytes(data)


def _arp(data: bytearray, at: int, change: Change) -> None:
    """RFC 826: replace the MACs and addresses of sender and target."""
    for place in (at + 8, at + 18):
        mac, address = bytes(data[place : place + 6]), bytes(data[place + 6 : place + 10])
        data[place : place + 6] = change.macs.get(mac, mac)
        data[place + 6 : place + 10] = change.addresses.get(address, address)


def _packet(data: bytearray, at: int, change: Change) -> _Sum:
    """Replace within an IPv4 packet; returns the change of the sum over its header and transport header."""
    outer = _Sum()
    if len(data) < at + 20 or data[at] >> 4 != 4:
        return outer
    old = bytes(data[at + 12 : at + 16]), bytes(data[at + 16 : at + 20])
    header = _Sum()
    for k, address in enumerate(old):
        header.replace(data, at + 12 + 4 * k, change.addresses.get(address, address))
    before = bytes(data[at + 10 : at + 12])
    header.update(data, at + 10)
    outer.total = header.total + _difference(before, data[at + 10 : at + 12])
    first = int.from_bytes(data[at + 6 : at + 8], "big") & 0x1FFF == 0
    transport = at + (data[at] & 15) * 4
    if first and data[at + 9] in (TCP, UDP):
        outer.total += _transport(data, transport, (data[at + 9], *old), header.total, change)
    elif first and data[at + 9] == ICMP:
        outer.total += _icmp(data, transport, change)
    return outer


def _transport(data: bytearray, at: int, ends: tuple[int, bytes, bytes], pseudo: int, change: Change) -> int:
    """Replace the ports of TCP or UDP and update the checksum; returns the change of the sum over the header.

    ends: protocol and old addresses. pseudo: change of the sum over the addresses, which the checksum covers.
    """
    proto, src, dst = ends
    ports = _Sum()
    for place, address in ((at, src), (at + 2, dst)):
        if len(data) >= place + 2:
            old = int.from_bytes(data[place : place + 2], "big")
            ports.replace(data, place, change.ports.get((address, old, proto), old).to_bytes(2, "big"))
    place = at + CHECKSUM[proto]
    before = bytes(data[place : place + 2])
    if len(before) < 2 or (proto == UDP and before == b"\0\0"):  # UDP: there is none
        return ports.total
    whole = _Sum()
    whole.total = pseudo + ports.total
    whole.update(data, place)
    if proto == UDP and data[place : place + 2] == b"\0\0":
        data[place : place + 2] = b"\xff\xff"
    return ports.total + _difference(before, data[place : place + 2])


def _icmp(data: bytearray, at: int, change: Change) -> int:
    """Replace within the packet that an ICMP error quotes; returns the change of the sum over the message: none, since
    its checksum makes up for it."""
    if len(data) >= at + QUOTED and data[at] in ICMP_ERRORS:
        _packet(data, at + QUOTED, change).update(data, at + 2)
    return 0


def _difference(before: bytes, after: bytes | bytearray) -> int:
    """What a replaced word adds to the sum."""
    return (~int.from_bytes(before, "big") & 0xFFFF) + int.from_bytes(after, "big")
