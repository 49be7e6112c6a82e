"""What can be known of packets before their connections: hashes of both ends, and equal packets a moment ago.

A pass of its own over a block: here look-ups do not wait for each other, as they would among updates of connections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.clock import BACK_FOR_GOOD, NOW, step
from engine.connections.copies import LONGEST, age_of, may_be_copied, print_of
from engine.connections.layout import Registers, Table
from engine.connections.table import due
from engine.hashing import endpoint_hash
from engine.kernels import Int, kernel
from engine.notation import LINK_HOST
from engine.types import ICMP, ICMP6, KIND_MASK, Kind, Packets

UNREAD, IPV4 = int(Kind.UNREAD), int(Kind.IPV4)
AGAIN = int(Registers.AGAIN)


@kernel
def icmp_counterpart(proto: Int, kind: Int) -> Int:
    """The ICMP type that answers ``kind``, or -1 without one (RFC 792, 4443, 4861, 2710)."""
    if proto == ICMP:
        pairs = ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18))
        for one, other in pairs:
            if kind == one:
                return other
            if kind == other:
                return one
    else:
        for one, other in ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)):
            if kind == one:
                return other
            if kind == other:
                return one
    return -1


@kernel
def has_ends(p: Packets, i: Int) -> bool:
    """Whether a packet has two ends, and so can be part of a connection."""
    network = p.kind[i] & KIND_MASK
    if network == UNREAD:
        return False
    return bool(network >= IPV4 or p.src_mac[i] != 0 or p.dst_mac[i] != 0)


@kernel
def ends_of(p: Packets, i: Int) -> tuple[tuple[Int, Int, Int], tuple[Int, Int, Int]]:
    """Source and destination of a packet: an address in two words, and a port; type and its answer's for ICMP."""
    sport: Int = np.int64(p.sport[i])
    dport: Int = np.int64(p.dport[i])
    if p.kind[i] & KIND_MASK < IPV4:
        zero: Int = np.int64(0)
        return (LINK_HOST, p.src_mac[i], zero), (LINK_HOST, p.dst_mac[i], zero)
    proto = p.proto[i]
    if proto == ICMP or proto == ICMP6:
        other = icmp_counterpart(proto, sport)
        if other >= 0:
            dport = np.int64(other)
    return (p.src_hi[i], p.src_lo[i], sport), (p.dst_hi[i], p.dst_lo[i], dport)


@kernel
def first_pass(
    t: Table,
    p: Packets,
    mask: Int,
    clock: NDArray[np.int64],
    ends: NDArray[np.uint64],
    ages: NDArray[np.int64],
) -> None:
    """Look at all packets of a block, whose connections come after.

    mask: bits of the VLAN that tell connections apart. clock: that of the table before the block, changed in place.
    ends: (n, 2) receives hashes of source and destination, where a packet has ends. ages: (n,) receives the ns since an
    equal packet, -1 without one.
    """
    for i in range(p.ts.size):
        ts, before = p.ts[i], clock[NOW]
        if ts > before:
            if t.registers[AGAIN] != 0:
                t.registers[AGAIN] = 0
        elif due(ts, LONGEST) < before:
            t.registers[AGAIN] = 1
        if step(clock, ts) == BACK_FOR_GOOD:  # what comes with equal times was captured again, not copied
            t.copies[:] = 0
        ages[i] = -1
        if not has_ends(p, i):
            continue
        (src_hi, src_lo, sport), (dst_hi, dst_lo, dport) = ends_of(p, i)
        one = endpoint_hash(src_hi, src_lo, np.uint64(sport))
        two = endpoint_hash(dst_hi, dst_lo, np.uint64(dport))
        ends[i, 0], ends[i, 1] = one, two
        if not t.registers[AGAIN] and may_be_copied(p, i):
            ages[i] = age_of(t.copies, print_of(p, i, one, two, np.uint64(p.vlan[i] & mask)), ts)
