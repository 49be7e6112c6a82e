"""The tables of the link, the parts of a frame that matter to it, and the flow that a frame belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel

Rows = NDArray[Any]
Bytes = NDArray[np.uint8]

PORT = np.dtype(
    [
        ("delay", "i8"), ("jitter", "i8"),  # ns of one direction
        ("loss", "f8"), ("reorder", "f8"), ("duplicate", "f8"), ("corrupt", "f8"),  # shares, 0..1
        ("rate", "f8"),  # bits per second; 0: no limit
        ("queue", "i8"),  # most packets that wait for the rate
        ("table", "i8"),  # row of the jitter's law in the table of laws
        ("keep_order", "u1"), ("impaired", "u1"),  # bit 0: towards the server, bit 1: towards the client
        ("client", "u1"),  # 1: a client, whose access to the network is the link; 0: a server, right behind it
        ("mac", "u8"),
        ("busy", "i8", 2), ("head", "i8", 2), ("tail", "i8", 2),  # state of the rate, by direction
    ],
    align=True,
)  # fmt: skip
FLOW = np.dtype(
    [
        ("src", "u4"), ("dst", "u4"), ("sport", "u2"), ("dport", "u2"), ("proto", "u1"),
        ("cut", "u1"),  # CARRIED, GONE, or ARMED + the direction whose payload burns the fuse
        ("fuse", "i8"), ("failed", "i8"),  # bytes of payload that still pass before the cut; ns at which it came
        ("origin", "u1"), ("target", "u1"),  # ports of the link
        ("isn", "u4"), ("ordinal", "u4"), ("next", "i4"),
        ("first", "i8"), ("last", "i8"),  # ns, monotonic, at which its first packet came in and its last was released
        ("rng", "u8", 2),
        # by direction, 0 from the originator: packets, bytes, and packets with payload, SYN or FIN (data) that came in
        ("packets", "i8", 2), ("bytes", "i8", 2), ("data", "i8", 2),
        # by direction: what became of them
        ("lost", "i8", 2), ("lost_data", "i8", 2), ("overflow", "i8", 2), ("overflow_data", "i8", 2),
        ("cuts", "i8", 2), ("duplicated", "i8", 2), ("corrupted", "i8", 2), ("reordered", "i8", 2),
        ("reordered_data", "i8", 2), ("newest", "i8", 2), ("newest_data", "i8", 2), ("due", "i8", 2),
        ("syn", "i8"), ("answer", "i8"),  # ns at which the SYN came in and the SYN+ACK went out; 0: not seen
    ],
    align=True,
)  # fmt: skip
RECORD = np.dtype(
    [
        ("in_ts", "i8"), ("due", "i8"), ("out_ts", "i8"),  # ns, monotonic; out_ts 0: not released
        ("start", "i8"), ("sent", "i8"),  # places in the store of the frame as received and as sent
        ("length", "u4"), ("flow", "i4"),  # flow -1: not IP
        ("origin", "u1"), ("target", "u1"), ("verdict", "u1"), ("direction", "u1"),
    ],
    align=True,
)  # fmt: skip

LOST, OVERFLOW, CUT, CORRUPT, EARLY, COPY = (
    1,
    2,
    4,
    8,
    16,
    32,
)  # bits of verdict; COPY: made by the link, no frame came in
CARRIED, GONE, ARMED = 0, 1, 2  # values of cut; ARMED + 1: the responder's payload counts
STOP, RECORDS, USED, FLOWS, FAILED, UNSENT = range(6)  # places in control
FULL_STORE, FULL_RECORDS, FULL_FLOWS, FULL_HEAP = 1, 2, 3, 4  # values of control[FAILED]
ARP, EVERYBODY = 0, 255  # proto of ARP flows, whose src and dst are ports of the link; dst of those to all
ARP_IDLE_NS = (
    60_000_000_000  # ns of silence after which two MACs begin another flow, as they begin another record
)
EPHEMERAL = 10_000  # least port that hosts (ip_local_port_range) and programs draw at random
LAW = 4096  # number of entries in the table of a law
LARGEST = 9216  # most bytes of a frame
POLL_NS = 20_000_000  # ns between two looks of the loop at STOP

FIN, SYN, ACK = 0x01, 0x02, 0x10  # flags of TCP
STEP = np.uint64(0x9E3779B97F4A7C15)
_M2 = np.uint64(0xBF58476D1CE4E5B9)
_M3 = np.uint64(0x94D049BB133111EB)


class State(NamedTuple):
    """The memory of a link."""

    fds: NDArray[np.int32]  # (p,)
    ports: Rows  # (p,) PORT
    laws: NDArray[np.float64]  # (laws, LAW): deviation in units of the jitter, by rank
    departures: NDArray[np.int64]  # (p, 2, q) ns at which the frames that wait for the rate leave
    flows: Rows  # (f,) FLOW
    heads: NDArray[np.int32]  # (power of two,) first flow of a hash; -1: none
    kinds: NDArray[np.uint64]  # (power of two, 2) name of a kind of flow, number of its flows so far
    records: Rows  # (r,) RECORD
    store: Bytes  # (bytes,) frames, one after another
    heap: NDArray[np.int64]  # (h, 2) due time and record of each waiting frame
    control: NDArray[np.int64]  # (6,) counters and flags that both sides change
    seed: np.uint64


@kernel
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _M2
    x = (x ^ (x >> np.uint64(27))) * _M3
    return x ^ (x >> np.uint64(31))


@kernel
def _at(data: Bytes, at: int) -> int:
    return int(np.int64(data[at]))


@kernel
def big_endian(data: Bytes, at: int, n: int) -> int:
    value = 0
    for k in range(n):
        value = value << 8 | _at(data, at + k)
    return value


@kernel
def _ordinal(kinds: NDArray[np.uint64], name: np.uint64) -> int:
    """The number of earlier flows of this kind; -1 when the table is full."""
    mask = kinds.shape[0] - 1
    k = int(np.int64(name & np.uint64(mask)))
    for _ in range(mask + 1):
        if kinds[k, 0] == name or kinds[k, 1] == 0:
            kinds[k, 0] = name
            kinds[k, 1] += np.uint64(1)
            return int(np.int64(kinds[k, 1])) - 1
        k = (k + 1) & mask
    return -1


class Segment(NamedTuple):
    """The parts of a frame that matter to the link."""

    src: int
    dst: int
    sport: int
    dport: int
    proto: int
    flags: int  # flags of TCP
    seq: int
    payload: int  # number of bytes above TCP, UDP or IP
    transport: int  # place in the store of the transport header; 0: not IPv4


@kernel
def parse(data: Bytes, start: int, n: int) -> Segment:
    """The addresses, ports and payload of an IPv4 frame."""
    none = Segment(0, 0, 0, 0, 0, 0, 0, 0, 0)
    if n < 34 or big_endian(data, start + 12, 2) != 0x0800:
        return none
    ip = start + 14
    header = (_at(data, ip) & 15) * 4
    total = min(big_endian(data, ip + 2, 2), n - 14)
    at = ip + header
    src, dst, proto = big_endian(data, ip + 12, 4), big_endian(data, ip + 16, 4), _at(data, ip + 9)
    if header < 20 or header > total:
        return none
    left = total - header
    if big_endian(data, ip + 6, 2) & 0x1FFF:  # a later fragment has no ports
        return Segment(src, dst, 0, 0, proto, 0, 0, left, at)
    if proto == 6 and left >= 20:
        flags, offset = _at(data, at + 13), (_at(data, at + 12) >> 4) * 4
        return Segment(
            src, dst, big_endian(data, at, 2), big_endian(data, at + 2, 2), 6, flags, big_endian(data, at + 4, 4),
            int(max(0, left - offset)), at,
        )  # fmt: skip
    if proto == 17 and left >= 8:
        return Segment(src, dst, big_endian(data, at, 2), big_endian(data, at + 2, 2), 17, 0, 0, left - 8, at)
    if proto == 1 and left >= 8 and (data[at] == 8 or data[at] == 0):  # echo: the identifier is its port
        return Segment(
            src, dst, big_endian(data, at + 4, 2), big_endian(data, at + 4, 2), 1, 0, 0, left - 8, at
        )
    return Segment(src, dst, 0, 0, proto, 0, 0, left, at)


@kernel
def occupies(g: Segment) -> bool:
    """Whether TCP would retransmit the segment: it has payload, SYN or FIN, and is no bare ACK."""
    return g.payload > 0 or (g.proto == 6 and g.flags & (SYN | FIN) != 0)


@kernel
def opens(g: Segment) -> bool:
    """Whether a segment is the first of a TCP handshake."""
    return g.flags & (SYN | ACK) == SYN


@kernel
def answers(g: Segment) -> bool:
    """Whether a segment is the second of a TCP handshake."""
    return g.flags & (SYN | ACK) == SYN | ACK


@kernel
def is_arp(data: Bytes, start: int, n: int) -> bool:
    """Whether a frame is ARP."""
    return n >= 42 and big_endian(data, start + 12, 2) == 0x0806


@kernel
def arp_flow_of(s: State, origin: int, target: int, now: int) -> tuple[int, int]:
    """The number and the direction of the flow of ARP between two ports, or from one to EVERYBODY; -1: no room."""
    both = np.uint64(origin << 8 | target)
    if target < origin:
        both = np.uint64(target << 8 | origin)
    slot = np.int64(mix(both + STEP) & np.uint64(s.heads.size - 1))
    k = s.heads[slot]
    while k >= 0:
        f = s.flows[k]
        if f["proto"] == ARP and now - f["last"] <= ARP_IDLE_NS:
            if f["src"] == origin and f["dst"] == target:
                return k, 0
            if f["src"] == target and f["dst"] == origin:
                return k, 1
        k = f["next"]
    n = s.control[FLOWS]
    if n >= s.flows.size:
        s.control[FAILED] = FULL_FLOWS
        return -1, 0
    f = s.flows[n]
    f["src"], f["dst"], f["proto"], f["first"], f["last"] = origin, target, ARP, now, now
    f["origin"], f["target"] = origin, target
    f["newest"][0] = f["newest"][1] = f["newest_data"][0] = f["newest_data"][1] = -1
    f["next"] = s.heads[slot]
    s.heads[slot] = n
    s.control[FLOWS] = n + 1
    return n, 0


@kernel
def flow_of(s: State, g: Segment, origin: int, target: int, now: int) -> tuple[int, int]:
    """The number of a segment's flow, which may be new, and its direction; -1 when there is no room."""
    here, there = np.uint64(g.src << 16 | g.sport), np.uint64(g.dst << 16 | g.dport)
    slot = np.int64((mix(here) + mix(there) + np.uint64(g.proto)) & np.uint64(s.heads.size - 1))
    k = s.heads[slot]
    fresh_syn = g.proto == 6 and opens(g)
    while k >= 0:
        f = s.flows[k]
        if f["proto"] == g.proto:
            if f["src"] == g.src and f["sport"] == g.sport and f["dst"] == g.dst and f["dport"] == g.dport:
                if fresh_syn and f["isn"] != g.seq:
                    break  # the port is reused
                return k, 0
            if f["src"] == g.dst and f["sport"] == g.dport and f["dst"] == g.src and f["dport"] == g.sport:
                if fresh_syn:
                    break
                return k, 1
        k = f["next"]
    n = s.control[FLOWS]
    if n >= s.flows.size:
        s.control[FAILED] = FULL_FLOWS
        return -1, 0
    f = s.flows[n]
    f["src"], f["dst"], f["sport"], f["dport"], f["proto"] = g.src, g.dst, g.sport, g.dport, g.proto
    f["origin"], f["target"], f["isn"], f["first"], f["last"] = origin, target, g.seq, now, now
    # a drawn port (of FTP's data, say) is not part of the name: it differs in the next repetition
    port = 0 if g.proto == 1 or g.dport >= EPHEMERAL else g.dport
    name = mix(np.uint64(origin << 40 | target << 32 | g.proto << 16 | port) + STEP)
    ordinal = _ordinal(s.kinds, name)
    if ordinal < 0:
        s.control[FAILED] = FULL_FLOWS
        return -1, 0
    f["ordinal"] = ordinal
    start = mix(s.seed ^ name) + np.uint64(f["ordinal"])
    f["rng"][0], f["rng"][1] = mix(start), mix(start ^ _M3)
    f["newest"][0] = f["newest"][1] = f["newest_data"][0] = f["newest_data"][1] = -1
    f["next"] = s.heads[slot]
    s.heads[slot] = n
    s.control[FLOWS] = n + 1
    return n, 0
