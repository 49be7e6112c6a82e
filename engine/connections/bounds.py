"""Limits of the connection table (capacity, timeouts), and the ports on which servers are expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError

# Ports on which Zeek's default scripts expect a server. They decide who is the originator of a connection that began
# before the capture.
TCP_SERVER_PORTS = (
    21, 22, 25, 53, 79, 80, 81, 88, 135, 139, 143, 389, 443, 445, 465, 502, 514, 563, 585, 587, 614, 631, 636,
    989, 990, 992, 993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5222, 5223, 5269, 5432, 6379,
    6666, 6667, 6668, 6669, 8000, 8080, 8888, 20000,
)  # fmt: skip
UDP_SERVER_PORTS = (
    53, 67, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3389, 3544, 4011, 4754, 4789, 5060, 5072,
    5353, 5355, 6081, 20000,
)  # fmt: skip

SPARE = 8192  # connections that may end in one step of a tracker and wait in its table to be handed over
TCP_SERVER, UDP_SERVER = 1, 2  # bits of TrackerConfig.server_ports()


@dataclass(frozen=True)
class TrackerConfig:
    """Bounds of the connection table. Timeouts in seconds of event time."""

    capacity: int = 1 << 18  # most live connections in a partition; one more evicts the least recently seen
    holes: int = 8  # most unseen ranges of sequence numbers kept for each side
    attempt_timeout: float = 5.0  # seconds from an unanswered SYN to the end of its connection
    closing_delay: float = 5.0  # seconds from the close (both FINs, or a RST) to the end of the connection
    tcp_timeout: float = 300.0  # seconds from the last packet to the end of a TCP connection
    udp_timeout: float = 60.0  # seconds from the last packet to the end of a UDP connection
    icmp_timeout: float = 60.0  # seconds from the last packet to the end of an ICMP connection
    other_timeout: float = 60.0  # seconds from the last packet to the end of any other connection
    copies: Literal["drop", "keep"] = "drop"  # copies that a mirror made: leave them out, or count them
    vlans: bool = False  # whether equal addresses and ports in different VLANs are different connections
    interim_seconds: float = 0.0  # seconds between interim rows of a connection that lasts; 0: none
    tcp_server_ports: tuple[int, ...] = TCP_SERVER_PORTS  # TCP server ports, to tell the responder midstream
    udp_server_ports: tuple[int, ...] = UDP_SERVER_PORTS  # UDP server ports, to tell the responder midstream

    def __post_init__(self) -> None:
        for name, low, high in (("capacity", 1, 1 << 28), ("holes", 1, 255)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} {getattr(self, name)} must be from {low} to {high}")
        for name in (
            "attempt_timeout",
            "closing_delay",
            "tcp_timeout",
            "udp_timeout",
            "icmp_timeout",
            "other_timeout",
        ):
            if not 0 < getattr(self, name) <= 1e7:
                raise ConfigError(
                    f"{name} {getattr(self, name)} must be greater than 0 and at most 1e7 seconds"
                )
        if self.copies not in ("drop", "keep"):
            raise ConfigError(f"copies {self.copies!r} must be drop or keep")
        if not 0 <= self.interim_seconds <= 1e7:
            raise ConfigError(f"interim_seconds {self.interim_seconds} must be from 0 to 1e7 seconds")
        for name in ("tcp_server_ports", "udp_server_ports"):
            if wrong := [port for port in getattr(self, name) if not 0 <= port <= 65535]:
                raise ConfigError(f"{name} {wrong[0]} must be from 0 to 65535")

    def timeouts(self) -> NDArray[np.int64]:
        """Timeouts in ns, indexed by Timer."""
        seconds = (
            self.attempt_timeout, self.closing_delay, self.tcp_timeout,
            self.udp_timeout, self.icmp_timeout, self.other_timeout,
        )  # fmt: skip
        return np.array([round(s * 1e9) for s in seconds], np.int64)

    def server_ports(self) -> NDArray[np.uint8]:
        """(65536,) bits TCP_SERVER and UDP_SERVER of each port."""
        ports = np.zeros(65536, np.uint8)
        ports[list(self.tcp_server_ports)] |= TCP_SERVER
        ports[list(self.udp_server_ports)] |= UDP_SERVER
        return ports
