"""Settings and counters that all taps share."""

from __future__ import annotations

from dataclasses import dataclass

QUIET = 200_000_000  # ns; after a silence this long no older packet is still on its way


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """Settings of a tap on an interface."""

    method: str = "auto"  # ring (Linux), scapy (slow, portable), or auto: scapy where there is no ring
    filter: str = ""  # filter in tcpdump's language; empty: everything
    snaplen: int = 256  # bytes captured of a packet; only headers leave the sensor
    promiscuous: bool = True  # whether to take packets for other machines too
    direction: str = "both"  # direction of the packets to take: both, in or out
    timestamps: str = "kernel"  # source of time stamps: kernel, or hardware (needs CAP_NET_ADMIN)
    ring_bytes: int = 64 << 20  # bytes of memory that the kernel fills while the sensor is busy
    block_bytes: int = 1 << 20  # bytes of the ring handed over at a time
    fanout: int | None = None  # group number that processes give to share the packets of an interface
    fanout_by: str = "hosts"  # division by hosts (all packets of two hosts) or by hash (addresses, ports)

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
    """Packets since the tap was opened."""

    received: int = 0  # packets given out
    ring: int = 0  # packets lost because the ring was full
    kernel: int = 0  # packets lost before that, by the interface or the kernel's queue behind it
    skipped: int = 0  # packets not wanted: of the other direction
    unstamped: int = 0  # packets stamped by the kernel although the hardware was to do it
    softnet: int = 0  # packets lost on all interfaces; those of this one are in ``kernel`` too


class CaptureLostError(Exception):
    """The interface is gone; the message names it."""
