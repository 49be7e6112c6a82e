"""What every live source shares: how packets are taken, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass

QUIET = 200_000_000  # ns; after a silence no packet older than that is still on its way


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """How packets are taken from an interface."""

    method: str = "auto"  # ring (Linux), scapy (slow, portable), or auto: scapy where there is no ring
    filter: str = ""  # in tcpdump's language; empty: everything
    snaplen: int = 256  # bytes of a packet that are looked at; headers are all that leaves the sensor
    promiscuous: bool = True  # also take packets that are for others
    direction: str = "both"  # both, in or out
    timestamps: str = "kernel"  # kernel or hardware (which needs CAP_NET_ADMIN)
    ring_bytes: int = 64 << 20  # memory that the kernel fills while the sensor is busy
    block_bytes: int = 1 << 20  # of the ring: what is handed over at a time
    fanout: int | None = None  # number that processes give to share the packets of an interface
    fanout_by: str = "hosts"  # hosts: all packets of two hosts to one process; hash: by addresses and ports

    def __post_init__(self) -> None:
        for name, known in (
            ("method", ("auto", "ring", "scapy")),
            ("direction", ("both", "in", "out")),
            ("timestamps", ("kernel", "hardware")),
            ("fanout_by", ("hosts", "hash")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} must be {', '.join(known[:-1])} or {known[-1]}"
                )
        if not 64 <= self.snaplen <= 262_144:
            raise ValueError(f"snaplen {self.snaplen} must be in 64..262144")
        if not 1 << 16 <= self.block_bytes <= 1 << 24 or self.block_bytes & (self.block_bytes - 1):
            raise ValueError(f"block_bytes {self.block_bytes} must be a power of two in 65536..16777216")
        if not 2 * self.block_bytes <= self.ring_bytes <= 1 << 32:
            raise ValueError(f"ring_bytes {self.ring_bytes} must be in {2 * self.block_bytes}..{1 << 32}")
        if self.fanout is not None and not 0 <= self.fanout < 1 << 16:
            raise ValueError(f"fanout {self.fanout} must be in 0..65535")


@dataclass
class Counters:
    """Packets since the capture began."""

    received: int = 0  # given out
    ring: int = 0  # lost because the ring was full
    kernel: int = 0  # lost before, by the interface or the kernel's queue behind it
    skipped: int = 0  # not wanted: of the other direction
    unstamped: int = 0  # stamped by the kernel although the hardware was asked to
    softnet: int = 0  # of all interfaces of the machine: those of this one are among ``kernel`` too


class CaptureLostError(Exception):
    """The interface is gone; the message names it."""
