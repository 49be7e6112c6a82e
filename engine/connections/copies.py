"""Copies that a capture made of a packet: a mirror that sends both directions of every port, two taps on one path.

A copy equals its packet in every field that an end writes: addresses, ports, numbers, sizes, IP id, checksum. A packet
that was sent again differs in its IP id, or comes no sooner than its sender could know of a loss. What routers and
switches write (MACs, TTL, VLAN) does not count.

Whoever sends equal packets in a flood must not vanish: of equal packets in a row only the first few count as copies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.hashing import GOLDEN, MURMUR_1, MURMUR_2, S29, S31, S32, SPLIT_1, SPLIT_2, fold, stir
from engine.kernels import Int, kernel
from engine.types import FIN, KIND_FRAGMENT, KIND_MASK, RST, SYN, TCP, Kind, Packets

SETS, WAYS = 1 << 12, 4  # packets remembered: in 10 ms, as many as 1.6 million a second
LONGEST = 10_000_000  # ns; longest time from a packet to its copy
WITHOUT_ID = 1_000_000  # ns; the same for datagrams that only their checksum tells apart
UNSURE = 100_000  # ns; the same for TCP data without an IP id, while the connection's round trip is unknown
COUNT_BITS = 3  # low bits of a remembered time that count copies; that leaves 8 ns of precision
COUNT_MASK = (1 << COUNT_BITS) - 1
MOST = 3  # copies of a packet; further ones are packets again
ARP = int(Kind.ARP)
S8, S16, S24, S40 = np.uint64(8), np.uint64(16), np.uint64(24), np.uint64(40)


@kernel
def print_of(p: Packets, i: Int, src: Int, dst: Int, vlan: Int) -> Int:
    """A hash of all that a copy shares with its packet. src, dst: hashes of the endpoints, with their ports."""
    h = (src * MURMUR_1 + dst * MURMUR_2) ^ vlan  # not symmetric
    if p.kind[i] & KIND_MASK == ARP:  # src and dst are of MACs
        h = stir(stir(h, p.src_lo[i] << S16 | np.uint64(p.sport[i])), p.dst_lo[i])
    numbers = np.uint64(p.seq[i]) << S32 | np.uint64(p.ack[i])
    sizes = np.uint64(p.payload[i]) << S32 | np.uint64(p.window[i]) << S16 | np.uint64(p.checksum[i])
    rest = np.uint64(p.ip_size[i]) << S40 | np.uint64(p.ip_id[i]) << S24
    rest |= np.uint64(p.tcp_flags[i]) << S16 | np.uint64(p.proto[i]) << S8 | np.uint64(p.kind[i])
    # sums of products, which do not wait for each other
    return fold((h ^ (numbers * GOLDEN)) + (fold(sizes * SPLIT_1, S29) ^ (rest * SPLIT_2)), S31) * MURMUR_1


@kernel
def age_of(copies: NDArray[np.int64], check: Int, ts: Int) -> Int:
    """ns between this packet and an equal one a moment ago, -1 without one; the packet is remembered.

    copies: (SETS, 2 * WAYS) hashes, then times whose low bits count copies; 0 and 0: empty. Copies from two queues may
    come in either order.
    """
    mine = copies[np.int64(check >> np.uint64(52))]
    wanted = np.int64(check >> np.uint64(1)) | 1
    for k in range(WAYS):
        if mine[k] == wanted:
            at, count = mine[WAYS + k] & ~COUNT_MASK, mine[WAYS + k] & COUNT_MASK
            age = abs(ts - at)
            if age > LONGEST:
                mine[WAYS + k] = ts & ~COUNT_MASK
                return -1
            mine[WAYS + k] = (max(ts, at) & ~COUNT_MASK) | min(count + 1, COUNT_MASK)
            return age if count < MOST else -1
    for k in range(WAYS - 1, 0, -1):  # the oldest goes
        mine[k], mine[WAYS + k] = mine[k - 1], mine[WAYS + k - 1]
    mine[0], mine[WAYS] = wanted, ts & ~COUNT_MASK
    return -1


@kernel
def may_be_copied(p: Packets, i: Int) -> bool:
    """Whether the fields of a packet can tell its copy from a packet like it."""
    kind = p.kind[i] & KIND_MASK
    if kind == ARP:
        return True
    return bool(kind > ARP and (p.ip_id[i] != 0 or p.proto[i] == TCP or p.checksum[i] != 0))


@kernel
def is_copy(p: Packets, i: Int, age: Int, round_trip: Int, delay: Int) -> bool:
    """Whether a packet that equals one ``age`` ns ago is a copy.

    round_trip: ns, of its connection; 0 if unknown. delay: ns, the longest delay of a certain copy in its connection; 0
    without one.
    """
    if p.kind[i] & KIND_MASK == ARP:
        return bool(age <= WITHOUT_ID)
    if p.ip_id[i] != 0:
        return True
    if p.proto[i] != TCP:
        return bool(age <= WITHOUT_ID)
    if p.kind[i] & KIND_FRAGMENT or age <= 2 * delay:
        return bool(age <= 2 * delay)
    flags = p.tcp_flags[i]
    if flags & SYN:  # sent again after a second
        return True
    if flags & RST or (p.payload[i] == 0 and not flags & FIN):
        return False  # equal ACKs may well be two
    return bool(age < round_trip if round_trip else age <= UNSURE)  # who learns of a loss needs a round trip


@kernel
def is_certain(p: Packets, i: Int) -> bool:
    """Whether the delay of a copy shows how long copies take in its connection."""
    return bool(p.ip_id[i] != 0 or p.tcp_flags[i] & SYN)
