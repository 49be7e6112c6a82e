"""Frames of ARP (RFC 826), sent and received whole."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from probing.lab.hosts import Host

ETH_P_ARP = 0x0806
REQUEST, REPLY = 1, 2
EVERYBODY, NOBODY = b"\xff" * 6, bytes(6)
LEAST = 60  # bytes of the smallest frame of Ethernet, without its check sequence


class End(NamedTuple):
    """A MAC, and the IPv4 address that it is said to have."""

    mac: bytes
    address: str


def end(host: Host) -> End:
    """What a host truly is."""
    return End(host.mac, host.address)


def frame(operation: int, sender: End, target: End, to: bytes, source: bytes) -> bytes:
    """A frame from one MAC to another, that says who the sender is and whom it asks or tells."""
    header = to + source + struct.pack(">HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, operation)
    ends = b"".join(mac + socket.inet_aton(address) for mac, address in (sender, target))
    return (header + ends).ljust(LEAST, b"\0")


def sender_of_reply(data: bytes) -> End | None:
    """The sender in a reply; None for other frames."""
    if len(data) < 42 or data[12:14] != struct.pack(">H", ETH_P_ARP) or data[21] != REPLY:
        return None
    return End(data[22:28], socket.inet_ntoa(data[28:32]))


def raw_socket() -> socket.socket:
    """A socket for whole frames of ARP on this thread's host."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    sock.bind(("eth0", ETH_P_ARP))
    sock.setblocking(False)
    return sock
