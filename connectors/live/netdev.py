"""Facts about network interfaces from the kernel: link type, state, and packets lost before any tap."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCSHWTSTAMP = 0x8913, 0x8927, 0x89B0
IFF_LOOPBACK = 8

ETHERNET, RAW_IP = 1, 101  # LINKTYPE_ values
EACH = 0  # in place of a link type: each packet has that of its own interface
ANY = "any"  # name for all interfaces together
LINK_TYPES = {1: ETHERNET, 772: ETHERNET, 65534: RAW_IP, 768: RAW_IP, 776: RAW_IP}  # by ARPHRD_ number


class InterfaceError(Exception):
    """An interface does not exist or cannot be captured from; the message names it."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface at the time of the look-up."""

    name: str
    index: int  # 0: all interfaces
    link_type: int  # LINKTYPE_ value of its frames, or EACH
    loopback: bool


def look_up(name: str) -> Interface:
    """Facts about an interface, or all of them (``any``, unless an interface has that name). Raises InterfaceError."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        if name == ANY:
            return Interface(name, 0, EACH, loopback=False)
        known = ", ".join(n for _, n in socket.if_nameindex())
        raise InterfaceError(f"{name}: no such interface; choose one of {known}") from None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = _ask(any_socket, SIOCGIFHWADDR, name)
        flags = struct.unpack_from("@H", _ask(any_socket, SIOCGIFFLAGS, name), 16)[0]
    kind = struct.unpack_from("@H", answer, 16)[0]
    if kind not in LINK_TYPES:
        raise InterfaceError(f"{name}: hardware type {kind} is not supported")
    return Interface(name, index, LINK_TYPES[kind], bool(flags & IFF_LOOPBACK))


def _ask(sock: socket.socket, question: int, name: str) -> bytes:
    try:
        return fcntl.ioctl(sock, question, struct.pack("@16s24x", name.encode()))
    except OSError as error:
        raise InterfaceError(f"{name}: {error.strerror}") from None


def bind_to_all(sock: socket.socket, protocol: int) -> None:
    """Bind a packet socket to all interfaces, which Python's own bind cannot. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    address = struct.pack(
        "@HHiHBB8s", socket.AF_PACKET, socket.htons(protocol), 0, 0, 0, 0, b""
    )  # sockaddr_ll
    if libc.bind(sock.fileno(), address, len(address)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def stamp_in_hardware(name: str) -> None:
    """Make the interface stamp all received packets (needs CAP_NET_ADMIN). Raises InterfaceError."""
    wanted = ctypes.create_string_buffer(
        struct.pack("@iii", 0, 0, 1), 12
    )  # struct hwtstamp_config: HWTSTAMP_FILTER_ALL
    request = struct.pack("@16sP", name.encode(), ctypes.addressof(wanted)) + bytes(16)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSHWTSTAMP, request)
    except OSError as error:
        raise InterfaceError(f"{name}: no hardware time stamps: {error.strerror}") from None


def interface_drops(name: str, net: Path = Path("/proc/net/dev")) -> int:
    """Received packets that the interface (``any``: all of them) lost before any tap saw them; 0 when it is gone.

    The columns drop and fifo of /proc/net/dev, as seen in the network namespace of the process.
    """
    drops = {}
    for line in net.read_text().splitlines()[2:]:
        found, _, counts = line.partition(":")
        numbers = counts.split()
        drops[found.strip()] = int(numbers[3]) + int(numbers[4])
    return drops.get(name, sum(drops.values()) if name == ANY else 0)


def softnet_drops(path: Path = Path("/proc/net/softnet_stat")) -> int:
    """Packets of all interfaces that found a CPU's backlog full; ours are also among its interface's drops."""
    try:
        return sum(int(line.split()[1], 16) for line in path.read_text().splitlines())
    except (OSError, IndexError, ValueError):
        return 0
