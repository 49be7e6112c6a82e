"""What a background capture has: its time, its hosts, the ports they use; read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from engine.commands.reading import frames
from engine.errors import InputError
from engine.headers.decode import decode
from engine.types import ACK, KIND_FRAGMENT, KIND_MASK, KIND_TRANSPORT, SYN, TCP, UDP, Kind, Packets, take

ETHERNET = 1
MOST_HOSTS = 1 << 16  # hosts that are remembered; later ones are not used
SERVICES = 1024  # ports below are servers', where the other end's is not
V4_HIGH = 0xFFFF << 32
PROTOS = (TCP, UDP)


@dataclass
class BackgroundHost:
    """An IPv4 host that sent something."""

    mac: bytes
    client: bool = False  # opened connections
    services: set[tuple[int, int]] = field(default_factory=set)  # protocol and port where it was asked


@dataclass
class Background:
    """The first look at a background."""

    first: int = 0  # ns, least and greatest time
    last: int = 0
    packets: int = 0
    hosts: dict[int, BackgroundHost] = field(default_factory=dict)  # by IPv4 address


def blocks(paths: Sequence[Path]) -> Iterator[FrameBlock]:
    """The frames of captures. Raises InputError for a link type that is not Ethernet."""
    for block in frames(paths, 4096):
        if (block.link_type != ETHERNET).any():
            other = int(block.link_type[block.link_type != ETHERNET][0])
            raise InputError(
                f"{paths[0]}: link type {other}: the background must be Ethernet (1), as the lab is"
            )
        if len(block):
            yield block


def look(paths: Sequence[Path]) -> Background:
    """Time and hosts of a background. Raises InputError when it has no packet."""
    found = Background(np.iinfo(np.int64).max, np.iinfo(np.int64).min)
    for block in blocks(paths):
        found.first, found.last = min(found.first, int(block.ts.min())), max(found.last, int(block.ts.max()))
        found.packets += len(block)
        p = decode(block)
        p = take(p, np.flatnonzero((p.kind & KIND_MASK) == Kind.IPV4))
        _meet(found, p)
        _serve(found, p)
    if not found.packets:
        raise InputError(f"{paths[0]}: no packet to mix with")
    return found


def _meet(found: Background, p: Packets) -> None:
    """Remember the senders, each with the MAC of its first packet."""
    address, first = np.unique(p.src_lo & np.uint64(0xFFFFFFFF), return_index=True)
    for a, mac in zip(address.tolist(), p.src_mac[first].tolist()):
        if a not in found.hosts and _is_host(a) and len(found.hosts) < MOST_HOSTS:
            found.hosts[a] = BackgroundHost(mac.to_bytes(6, "big"))


def _is_host(address: int) -> bool:
    """Whether an address can be one host's: neither 0.0.0.0 nor multicast or broadcast."""
    return 0 < address < 0xE0000000


def _serve(found: Background, p: Packets) -> None:
    """Remember who asked and who was asked, by TCP's SYN and by ports of services."""
    known = (p.kind & KIND_TRANSPORT != 0) & np.isin(p.proto, PROTOS)
    flags = p.tcp_flags & (SYN | ACK)
    tcp = p.proto == TCP
    up = known & np.where(
        tcp & (flags & SYN != 0), flags == SYN, (p.dport < SERVICES) & (p.sport >= SERVICES)
    )
    down = known & np.where(
        tcp & (flags & SYN != 0), flags == SYN | ACK, (p.sport < SERVICES) & (p.dport >= SERVICES)
    )
    ends = [(p.src_lo[up], p.dst_lo[up], p.dport[up], p.proto[up]),
            (p.dst_lo[down], p.src_lo[down], p.sport[down], p.proto[down])]  # fmt: skip
    rows = np.concatenate(
        [np.stack([column.astype(np.int64) & 0xFFFFFFFF for column in end]) for end in ends], axis=1
    )
    for client, server, port, proto in np.unique(rows, axis=1).T.tolist():
        if (host := found.hosts.get(client)) is not None:
            host.client = True
        if (host := found.hosts.get(server)) is not None:
            host.services.add((proto, port))


class Used:
    """Ports of some hosts that a background uses, and pairs of them that exchange packets without ports."""

    def __init__(self, addresses: Sequence[int]) -> None:
        self._sorted = np.unique(np.array(addresses, np.int64))
        self._used: dict[int, NDArray[np.bool_]] = {}  # of each address that was met: (protocols, ports)
        self.pairs: set[tuple[int, int]] = set()  # address pairs, the lower first

    def read(self, paths: Sequence[Path]) -> None:
        """Look through a background."""
        for block in blocks(paths):
            p = decode(block)
            self._take(take(p, np.flatnonzero((p.kind & KIND_MASK) == Kind.IPV4)))

    def _take(self, p: Packets) -> None:
        ends = [
            (p.src_lo.astype(np.int64) & 0xFFFFFFFF, p.sport),
            (p.dst_lo.astype(np.int64) & 0xFFFFFFFF, p.dport),
        ]
        ported = (p.kind & KIND_TRANSPORT != 0) & (p.kind & KIND_FRAGMENT == 0) & np.isin(p.proto, PROTOS)
        for address, port in ends:
            place, there = self._places(address)
            rows = np.flatnonzero(there & ported)
            keys = np.unique(
                np.stack((place[rows], p.proto[rows] == UDP, port[rows])).astype(np.int64), axis=1
            )
            for k, proto, number in keys.T.tolist():
                met = self._used.get(int(self._sorted[k]))
                if met is None:
                    met = self._used[int(self._sorted[k])] = np.zeros((len(PROTOS), 1 << 16), bool)
                met[proto, number] = True
        both = self._places(ends[0][0])[1] & self._places(ends[1][0])[1] & ~ported
        pairs = np.sort(np.stack((ends[0][0][both], ends[1][0][both])), axis=0)
        self.pairs.update((a, b) for a, b in np.unique(pairs, axis=1).T.tolist())

    def _places(self, address: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not self._sorted.size:
            return np.zeros(address.size, np.int64), np.zeros(address.size, bool)
        place = np.minimum(np.searchsorted(self._sorted, address), self._sorted.size - 1)
        return place.astype(np.int64), self._sorted[place] == address

    def has(self, address: int, port: int, proto: int) -> bool:
        """Whether the background uses a port of a host."""
        used = self._used.get(address)
        return used is not None and proto in PROTOS and bool(used[PROTOS.index(proto), port])
