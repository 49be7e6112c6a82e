"""A link without hosts: frames are put in by hand, and their fates read from its log."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probing.lab.link import kernels, queue, tables
from probing.lab.link.link import Bounds, Link
from probing.lab.settings import Link as Setting

SYN, ACK, FIN = 2, 16, 1
MS = 1_000_000


@dataclass
class Port:
    """What a link must know of a host."""

    last: int
    client: bool
    fd: int = -1
    mac: bytes = field(init=False)
    address: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.address = bytes([10, 0, 0, self.last])
        self.mac = bytes([2, 0x77, 0, 0, 0, self.last])


class Bench:
    """A server, a client and the link's decisions between them; time is given."""

    def __init__(self, setting: Setting, seed: int = 1) -> None:
        self.server, self.client = Port(1, False), Port(10, True)
        self.link = Link([self.server, self.client], [Setting(), setting], seed, Bounds(1 << 24, 1 << 17))  # type: ignore[list-item]
        self.state = self.link._state
        self.waiting = 0

    def put(self, sender: Port, sport: int, dport: int, *, ts: int = 0, flags: int = ACK, payload: int = 0,
            seq: int = 1, proto: int = 6) -> Any:  # fmt: skip
        """Put a frame in; its record."""
        other = self.server if sender is self.client else self.client
        transport = (
            struct.pack(">HHIIBBHHH", sport, dport, seq, 0, 5 << 4, flags, 1000, 0, 0)
            if proto == 6
            else struct.pack(">HHHH", sport, dport, 8 + payload, 0)
        )
        size = 20 + len(transport) + payload
        ip = struct.pack(">BBHHHBBH", 0x45, 0, size, 1, 0, 64, proto, 0) + sender.address + other.address
        frame = other.mac + sender.mac + b"\x08\x00" + ip + transport + b"x" * payload
        used = int(self.state.control[tables.USED])
        self.state.store[used : used + len(frame)] = np.frombuffer(frame, np.uint8)
        record = int(self.state.control[tables.RECORDS])
        origin = 1 if sender is self.client else 0
        self.waiting = kernels.decide(self.state, origin, len(frame), ts, self.waiting)
        return self.state.records[record]

    def many(self, n: int, **more: Any) -> Any:
        """Records of n packets from the server on one connection, a millisecond apart."""
        return np.array(
            [self.put(self.server, 80, 40_000, ts=(i + 1) * MS, payload=100, **more) for i in range(n)]
        )

    def until(self, ts: int) -> Any:
        """Bring the queues up to a time; all records so far."""
        for port in (0, 1):
            for d in (0, 1):
                self.waiting = queue.advance(self.state, port, d, ts, self.waiting)
        return self.state.records[: self.state.control[tables.RECORDS]].copy()

    @property
    def flows(self) -> Any:
        """Flows so far."""
        return self.state.flows[: self.state.control[tables.FLOWS]]
