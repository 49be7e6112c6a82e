"""Made-up packet streams for property tests: small worlds in which everything meets everything."""

from __future__ import annotations

import numpy as np

from engine.clock import LEAP
from engine.types import KIND_FIRST_FRAGMENT, KIND_FRAGMENT, KIND_TRANSPORT, Kind, Packets, empty_packets

V4 = np.uint64(0xFFFF << 32)


def stream(seed: int, n: int, *, ordered: bool = False, leaps: bool = False) -> Packets:
    """n packets among a few hosts and ports: TCP with plausible and implausible flags and numbers, UDP, ICMP,
    fragments, ARP, unreadable frames; gaps longer than the timeouts; times out of order unless ``ordered``.
    With ``leaps``: hours of silence too, and single time stamps years ahead unless ``ordered``.
    """
    rng = np.random.default_rng(seed)
    p = empty_packets(n)
    gaps = rng.choice(
        [0, 1_000, 50_000, 2_000_000, 700_000_000, 40_000_000_000], n, p=[0.1, 0.3, 0.3, 0.25, 0.03, 0.02]
    )
    p.ts[:] = 1_700_000_000_000_000_000 + np.cumsum(gaps)
    if not ordered:
        p.ts[:] -= rng.choice([0, 9_000, 4_000_000], n, p=[0.8, 0.15, 0.05])
    if leaps:
        odd = np.random.default_rng([seed, 1]).random(n)
        p.ts[:] += np.cumsum(np.where(odd < 0.02, 2 * LEAP, 0))
        if not ordered:
            p.ts[odd > 0.98] += 50_000 * LEAP
    hosts, ports = rng.integers(0, 4, (2, n)), rng.integers(0, 3, (2, n))
    p.src_lo[:], p.dst_lo[:] = V4 + hosts[0].astype("u8"), V4 + hosts[1].astype("u8")
    p.src_mac[:], p.dst_mac[:] = hosts[0] + 10, hosts[1] + 10
    p.sport[:], p.dport[:] = np.array([80, 5000, 5001])[ports[0]], np.array([80, 5000, 53])[ports[1]]
    p.proto[:] = rng.choice([6, 17, 1, 47], n, p=[0.75, 0.15, 0.08, 0.02])
    p.kind[:] = Kind.IPV4 | KIND_TRANSPORT
    fragments = (rng.random(n) < 0.05) & (p.proto == 17)
    p.kind[fragments] = Kind.IPV4 | KIND_FRAGMENT
    p.sport[fragments] = p.dport[fragments] = 0
    p.kind[(rng.random(n) < 0.05) & (p.proto == 17) & ~fragments] |= KIND_FIRST_FRAGMENT
    icmp = p.proto == 1
    p.sport[icmp], p.dport[icmp] = rng.choice([0, 8, 3], icmp.sum()), 0
    odd = rng.random(n)
    p.kind[odd < 0.02], p.kind[odd > 0.98] = Kind.UNREAD, Kind.ARP
    p.proto[(odd < 0.02) | (odd > 0.98)] = 0
    p.tcp_flags[:] = rng.choice(
        [2, 18, 16, 24, 17, 4, 20, 25, 6, 0], n, p=[0.12, 0.08, 0.3, 0.3, 0.08, 0.03, 0.03, 0.03, 0.02, 0.01]
    )
    p.tcp_flags[p.proto != 6] = 0
    start = rng.choice([0, 1000, 0xFFFF_FFF0], n)
    p.seq[:] = (start + rng.integers(0, 30, n) * 10) & 0xFFFF_FFFF
    p.ack[:] = (rng.choice([0, 1000, 0xFFFF_FFF0], n) + rng.integers(0, 30, n) * 10) & 0xFFFF_FFFF
    p.payload[:] = rng.choice([0, 1, 10, 20, 1400], n, p=[0.4, 0.1, 0.3, 0.15, 0.05])
    p.ip_size[:] = p.payload + 40
    p.size[:] = p.ip_size + 14
    p.window[:] = rng.choice([0, 100, 65535], n, p=[0.05, 0.3, 0.65])
    p.ip_id[:] = rng.integers(0, 6, n)
    p.probe[:] = rng.integers(0, 3, n)
    return p


def odd_stream(seed: int, n: int) -> Packets:
    """A ``stream`` of n packets with all that a capture may do to it: wild sequence numbers, copies, VLANs, frames
    without IP, clocks of whole milliseconds, and times that step back, for one packet or for good.
    """
    rng = np.random.default_rng([seed, 2])
    p = stream(seed, n, leaps=bool(rng.integers(2)))
    p = Packets._make(column.copy() for column in p)
    for name in ("seq", "ack"):
        wild = rng.random(n) < 0.1
        getattr(p, name)[wild] = (
            getattr(p, name)[wild] + rng.choice([2**20 + 99, 10**9, 2**31 + 5], wild.sum())
        ) % 2**32
    copied = np.flatnonzero(rng.random(n) < 0.2)
    copied = copied[copied > 0]
    for column in p:
        column[copied] = column[copied - 1]  # in order: a copy of a copy is one, too
    p.ts[copied] += rng.choice([0, 10_000, 900_000, 20_000_000], copied.size)
    p.vlan[:] = rng.choice([0, 10, 20, 10 << 16 | 20], n)
    link = rng.random(n) < 0.05
    p.kind[link], p.proto[link], p.ethertype[link] = Kind.LINK, 0, 0x88CC
    if rng.integers(2):
        p.ts[:] -= p.ts % 1_000_000
    for at in rng.integers(0, n, rng.integers(3)):
        p.ts[at:] -= rng.choice([12, 400, 90_000]) * 1_000_000_000
    stray = rng.random(n) < 0.02
    p.ts[stray] -= rng.choice([12, 400, 10**7], stray.sum()) * 1_000_000_000
    return p
