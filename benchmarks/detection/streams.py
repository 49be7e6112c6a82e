"""Streams of packets: read, cut, shifted in time, with a pause put in, or with traffic of other hosts merged in.

What a packet is, is kept in its probe id, a number that the evaluation chooses; no detector looks at it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from connectors.files.pcap import CaptureFile
from engine.headers.decode import decode
from engine.types import KIND_MASK, Kind, Packets, concatenate, take

SECOND = 1_000_000_000  # ns
V4 = np.uint64(0xFFFF << 32)  # upper half of the low word of an IPv4 address
NEW_V4 = 0x0A_C8_00_01  # 10.200.0.1, the address of the first host that is merged in
NEW_V6 = np.uint64(0xFD00_0200_0000_0000)
NEW_MAC = 0x02_00_C8_00_00_01
GROUP_MAC = np.uint64(1 << 40)  # bit of a MAC that names a group of hosts


def read(path: Path) -> Packets:
    """All packets of a capture. Raises CaptureError where it is damaged."""
    with CaptureFile(path) as capture:
        return concatenate([decode(frames) for frames in capture])


def part(p: Packets, begin: float, end: float) -> Packets:
    """The packets from one share of the stream to another, 0 to 1."""
    n = p.ts.size
    return take(p, slice(round(begin * n), round(end * n)))


def coded(p: Packets, code: int | NDArray[np.integer]) -> Packets:
    """p with a code as its packets' probe id."""
    return p._replace(probe=np.broadcast_to(np.asarray(code, np.uint32), p.ts.shape).copy())


def shifted(p: Packets, ns: int) -> Packets:
    """p, later by ns."""
    return p._replace(ts=p.ts + ns)


def paused(p: Packets, at: int, ns: int) -> Packets:
    """p with a pause of ns before packet ``at``: later packets are later by ns, nothing else changes."""
    ts = p.ts.copy()
    ts[at:] += ns
    return p._replace(ts=ts)


def after(p: Packets, before: Packets, gap: int = SECOND) -> Packets:
    """p, shifted so that its first packet comes a gap (ns) after the last of other packets."""
    return shifted(p, int(before.ts.max()) + gap - int(p.ts[0]))


def hours(p: Packets) -> float:
    """Time from the first packet to the last, in hours."""
    return float(p.ts.max() - p.ts.min()) / (3600 * SECOND) if p.ts.size else 0.0


def merged(base: Packets, added: Packets, at: int, code: int, most: int = 2500) -> Packets:
    """A base with traffic of other hosts among it, the same way whatever the traffic is.

    at: ns, time of the first added packet. The times between the added packets are kept; those after the base's end
    are left out, and those after the first ``most``. Hosts that are added get addresses and MACs that the base does not
    have, in order of appearance. Their packets carry the code, the base's are as they are. Packets of either keep their
    order.
    """
    added = shifted(take(added, slice(0, most)), at - int(added.ts[0]))
    key, end = np.maximum.accumulate(added.ts), int(base.ts.max())
    added = renamed(coded(take(added, key <= end), code))
    keys = np.concatenate([np.maximum.accumulate(base.ts), key[key <= end]])
    return take(concatenate([base, added]), np.argsort(keys, kind="stable"))


def renamed(p: Packets) -> Packets:
    """p with new addresses and MACs, one for each old one; those of groups and of nobody stay."""
    ip = (p.kind & KIND_MASK) >= Kind.ARP
    hi, lo = np.concatenate([p.src_hi, p.dst_hi]), np.concatenate([p.src_lo, p.dst_lo])
    own = _of_a_host(hi, lo) & np.concatenate([ip, ip])
    number = _numbers(np.stack([hi, lo], axis=1), own)
    v6 = own & ((hi != 0) | (lo >> np.uint64(32) != np.uint64(0xFFFF)))
    v4 = own & ~v6
    lo = np.where(v4, V4 | (np.uint64(NEW_V4) + number), np.where(v6, number + np.uint64(1), lo))
    hi = np.where(v6, NEW_V6, hi)
    mac = np.concatenate([p.src_mac, p.dst_mac])
    alone = (mac != 0) & (mac & GROUP_MAC == 0)
    mac = np.where(alone, np.uint64(NEW_MAC) + _numbers(mac[:, None], alone), mac)
    n = p.ts.size
    return p._replace(
        src_hi=hi[:n], dst_hi=hi[n:], src_lo=lo[:n], dst_lo=lo[n:], src_mac=mac[:n], dst_mac=mac[n:]
    )


def _of_a_host(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether addresses are of one host: not 0, not multicast, not the broadcast address."""
    v4 = (hi == 0) & (lo >> np.uint64(32) == np.uint64(0xFFFF))
    low = lo & np.uint64(0xFFFF_FFFF)
    group4 = (low == 0) | (low >= np.uint64(0xE000_0000))
    group6 = (hi >> np.uint64(56) == np.uint64(0xFF)) | ((hi == 0) & (lo == 0))
    return np.asarray(np.where(v4, ~group4, ~group6))


def _numbers(rows: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """A number for each distinct chosen row, in order of appearance; 0 for others."""
    out = np.zeros(len(rows), np.uint64)
    if chosen.any():
        _, first, inverse = np.unique(rows[chosen], axis=0, return_index=True, return_inverse=True)
        rank = np.empty(first.size, np.uint64)
        rank[np.argsort(first)] = np.arange(first.size, dtype=np.uint64)
        out[chosen] = rank[inverse.reshape(-1)]
    return out
