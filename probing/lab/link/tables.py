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
        ("delay", "i8"), ("jitter", "i8"), ("ordered_jitter", "i8"),  # ns of one direction
        ("loss", "f8"), ("reorder", "f8"), ("duplicate", "f8"), ("corrupt", "f8"),  # shares, 0..1
        # the chain of bursty losses: share of packets in bursts, and chances that a burst begins and ends at a packet
        ("burst", "f8"), ("burst_begins", "f8"), ("burst_ends", "f8"),
        ("table", "i8"),  # row of the jitter's law in the table of laws
        ("mtu", "i8"),  # bytes of the largest packet, Ethernet's header not counted
        ("impaired", "u1"),  # bit 0: towards the server, bit 1: towards the client
        ("queued", "u1"),  # 1: frames wait in the queues of this port, for a rate or a trace
        ("client", "u1"),  # 1: a client, whose access to the network is the link; 0: a server, right behind it
        ("mac", "u8"),
        ("up", "f8"), ("down", "f8"),  # mean ns between two outages and of an outage; 0: no outages
        ("flips", "i8"), ("out", "u1"), ("rng", "u8"),  # state of the outages; flips: ns of the next change, from BEGAN
    ],
    align=True,
)  # fmt: skip
QUEUE = np.dtype(  # frames that wait for the rate, or for the opportunities of a trace, in one direction of a port
    [
        ("rate", "f8"),  # bits per second; 0: the trace decides
        ("first", "i8"), ("n", "i8"), ("period", "i8"),  # the trace: its place in State.traces, its length, its ns
        ("limit", "i8"),  # most packets that wait; the next is dropped
        ("gap", "f8"),  # mean ns between frames of cross traffic; 0: none
        ("codel", "u1"),
        ("busy", "i8"),  # ns at which the last frame that was taken out has left
        ("head", "i8"), ("tail", "i8"), ("own", "i8"), ("bytes", "i8"),  # frames and bytes that wait; own: not cross
        ("at", "i8"), ("left", "i8"),  # number of the trace's latest used opportunity, and bytes that it can still take
        ("cross", "i8"), ("rng", "u8"),  # ns of the next frame of cross traffic, from BEGAN; -1: not drawn yet
        ("armed", "i8"),  # ns of the queue's event on the heap; 0: none
        # CoDel's state, RFC 8289, section 5.3
        ("most", "i8"), ("above", "i8"), ("next", "i8"), ("count", "i8"), ("last_count", "i8"), ("dropping", "u1"),
    ],
    align=True,
)  # fmt: skip
SLOT = np.dtype([("record", "i8"), ("ts", "i8"), ("size", "i8")])  # a waiting frame; record -1: cross traffic
FLOW = np.dtype(
    [
        ("src", "u4"), ("dst", "u4"), ("sport", "u2"), ("dport", "u2"), ("proto", "u1"),
        ("cut", "u1"),  # CARRIED, GONE, or ARMED + the direction whose payload burns the fuse
        ("fuse", "i8"), ("failed", "i8"),  # bytes of payload that still pass before the cut; ns at which it came
        ("origin", "u1"), ("target", "u1"),  # ports of the link
        ("isn", "u4"), ("ordinal", "u4"), ("next", "i4"),
        ("first", "i8"), ("last", "i8"),  # ns, monotonic, at which its first packet came in and its last was released
        ("rng", "u8", 2), ("bad", "u1", 2),  # bad: whether the chain of bursty losses is in a burst
        # by direction, 0 from the originator: packets, bytes, and packets with payload, SYN or FIN (data) that came in
        ("packets", "i8", 2), ("bytes", "i8", 2), ("data", "i8", 2), ("largest", "i8", 2), ("super", "i8", 2),
        # by direction: what became of them
        ("lost", "i8", 2), ("lost_data", "i8", 2), ("overflow", "i8", 2), ("overflow_data", "i8", 2),
        ("burst", "i8", 2), ("burst_data", "i8", 2), ("outage", "i8", 2), ("outage_data", "i8", 2),
        ("codel", "i8", 2), ("codel_data", "i8", 2), ("cuts", "i8", 2),
        ("bursts", "i8", 2), ("burst_at", "i8", 2),  # burst_at: number of the last packet lost in a burst
        ("duplicated", "i8", 2), ("corrupted", "i8", 2), ("reordered", "i8", 2),
        ("reordered_data", "i8", 2), ("newest", "i8", 2), ("newest_data", "i8", 2), ("due", "i8", 2),
        ("delivered", "i8", 2), ("delay", "f8", 2), ("delay_squared", "f8", 2),  # ms, ms^2: sums over delivered packets
        ("queued", "i8", 2), ("waited", "i8", 2),  # packets that a queue let through, and the ns that they waited in it
        ("syn", "i8"), ("answer", "i8"),  # ns at which the SYN came in and the SYN+ACK went out; 0: not seen
    ],
    align=True,
)  # fmt: skip
RECORD = np.dtype(
    [
        ("in_ts", "i8"), ("due", "i8"), ("out_ts", "i8"),  # ns, monotonic; out_ts 0: not released
        ("start", "i8"), ("sent", "i8"),  # places in the store of the frame as received and as sent
        ("hold", "i8"), ("jitter", "i8"),  # ns to wait behind the queue: in the flow's order, and regardless of it
        ("length", "u4"), ("flow", "i4"),  # flow -1: not IP
        ("flip", "i4"), ("twice", "u1"),  # bit to flip, 0: none; 1: to be sent twice
        ("origin", "u1"), ("target", "u1"), ("direction", "u1"), ("verdict", "u2"),
    ],
    align=True,
)  # fmt: skip

# bits of verdict; COPY: made by the link, no frame came in; EARLY: did not wait for the delay
LOST, OVERFLOW, CUT, CORRUPT, EARLY, COPY, BURST, OUTAGE, CODEL = (1 << k for k in range(9))
DROPPED = LOST | OVERFLOW | CUT | BURST | OUTAGE | CODEL
CARRIED, GONE, ARMED = 0, 1, 2  # values of cut; ARMED + 1: the responder's payload counts
# places in control; BEGAN: ns, monotonic, at which the loop began; HEADER: bytes in front of a frame (virtio_net_hdr)
STOP, RECORDS, USED, FLOWS, FAILED, UNSENT, BEGAN, HEADER = range(8)
PLACES = 8
FULL_STORE, FULL_RECORDS, FULL_FLOWS, FULL_HEAP = 1, 2, 3, 4  # values of control[FAILED]
ARP, EVERYBODY = 0, 255  # proto of ARP flows, whose src and dst are ports of the link; dst of those to all
ARP_IDLE_NS = (
    60_000_000_000  # ns of silence after which two MACs begin another flow, as they begin another record
)
EPHEMERAL = 10_000  # least port that hosts (ip_local_port_range) and programs draw at random
LAW = 4096  # number of entries in the table of a law
LARGEST = 9216  # most bytes of a frame
SUPER = 65_536 + 64  # most bytes of a frame that leaves segmentation to the card, its header included
ETHERNET = 14  # bytes of Ethernet's header
OPPORTUNITY = 1500  # bytes, Ethernet's header not counted, that one line of a delivery trace lets through
CROSS = 1500  # bytes of a frame of cross traffic
FAR = 1 << 62  # ns: never
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
    traces: NDArray[np.int64]  # ns of the opportunities of all delivery traces, one trace after another
    queues: Rows  # (p, 2) QUEUE, direction 0: towards the servers
    slots: Rows  # (p, 2, q) SLOT, a ring for each queue
    flows: Rows  # (f,) FLOW
    heads: NDArray[np.int32]  # (power of two,) first flow of a hash; -1: none
    kinds: NDArray[np.uint64]  # (power of two, 2) name of a kind of flow, number of its flows so far
    records: Rows  # (r,) RECORD
    store: Bytes  # (bytes,) frames, one after another
    heap: NDArray[
        np.int64
    ]  # (h, 2) due time and record of each waiting frame; below 0: the event of queue -1 - record
    control: NDArray[np.int64]  # (8,) counters and flags that both sides change
    seed: np.uint64


@kernel
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _M2
    x = (x ^ (x >> np.uint64(27))) * _M3
    return x ^ (x >> np.uint64(31))


@kernel
def unit(x: np.uint64) -> float:
    """A number from 0 to 1, 1 excluded, for a state of the generator."""
    return float(mix(x) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def exponential(x: np.uint64, mean: float) -> int:
    """A whole number of the exponential law for a state of the generator, at least 1."""
    return int(max(1.0, -mean * np.log(1.0 - unit(x))))


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
def _enter(s: State, slot: Any, n: int) -> None:
    """Count the new flow n in, and put it at the head of the list of its hash."""
    f = s.flows[n]
    f["newest"][0] = f["newest"][1] = f["newest_data"][0] = f["newest_data"][1] = -1
    f["next"] = s.heads[slot]
    s.heads[slot] = n
    s.control[FLOWS] = n + 1


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
    _enter(s, slot, n)
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
    f["burst_at"][0] = f["burst_at"][1] = -1
    _enter(s, slot, n)
    return n, 0
