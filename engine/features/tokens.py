"""Tokens: what a model over the packets of a connection is given of each packet, and of which packets.

A policy decides which packets have a token, from what the tracker says of them; ``stream`` also puts them into the
order of their sequence numbers (reassembly.py). Tokens hold no address and no port: those identify hosts, not
behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.connections.layout import PACKET_FROM_ORIGINATOR, PACKET_IN_RECOVERY, PACKET_SIDE, Segment
from engine.errors import ConfigError
from engine.kernels import Int, kernel
from engine.types import FIN, RST, SYN, TCP, Packets, Rows

VERSION = (
    1  # number of the encoding, in bundles of models that learned from it: it changes when tokens change
)
POLICIES = ("keep", "no-acks", "drop-duplicates", "drop-late", "drop-episodes", "bytes", "stream")
NO_ACKS, EPISODES, BYTES, STREAM = (
    POLICIES.index(p) for p in ("no-acks", "drop-episodes", "bytes", "stream")
)
Policy = Literal["keep", "no-acks", "drop-duplicates", "drop-late", "drop-episodes", "bytes", "stream"]
ENCODERS = ("sizes", "header")

NONE, COPY, OUTSIDE = int(Segment.NONE), int(Segment.CAPTURE_DUPLICATE), int(Segment.OUT_OF_WINDOW)

# rows of the input of the encoder `sizes`
UP, FLAGS, LOG_PAYLOAD, LOG_GAP, BUCKETS = 0, 1, 9, 10, 11
OCTAVE_PARTS = 8  # buckets of payload an octave
FIRST_OCTAVE = 4  # payloads below 2**4 share the first bucket
LAST_OCTAVE = 16  # log2 of the payload from which on all share the last bucket
INPUTS = BUCKETS + 1 + OCTAVE_PARTS * (LAST_OCTAVE - FIRST_OCTAVE) + 1
ENTRIES = 12  # most entries of a token: direction, flags, log payload, log inter-arrival, bucket

# bytes of the encoder `header`, in the order of the headers that Hwang et al. (2019) cut off after 54 bytes; those that
# tell hosts, connections or contents apart come last and are left out unless asked for
PLAIN_WORDS = ("size high", "size low", "ttl", "flags", "window high", "window low")
IDENTITY_WORDS = (
    *(f"source MAC {k}" for k in range(6)), *(f"destination MAC {k}" for k in range(6)),
    "id high", "id low", "protocol", "checksum high", "checksum low",
    *(f"source address {k}" for k in range(4)), *(f"destination address {k}" for k in range(4)),
    "source port high", "source port low", "destination port high", "destination port low",
    *(f"sequence number {k}" for k in range(4)), *(f"acknowledgement {k}" for k in range(4)),
)  # fmt: skip


@dataclass(frozen=True)
class TokenConfig:
    """Which packets of a connection have a token, and what it holds."""

    policy: Policy = "stream"  # packets with a token; stream: payload in order, each byte once, no bare ACKs
    encoder: Literal["sizes", "header"] = "sizes"  # what a token holds: sizes and times, or header bytes
    identity: bool = False  # header: whether bytes that identify hosts and connections are words, too
    patience: float = 1.0  # stream: seconds that packets wait for one missing before them
    connection_packets: int = 256  # stream: most packets of a connection that wait
    connection_bytes: int = 1 << 20  # stream: most bytes of a connection's payload that wait
    packets: int = 1 << 16  # stream: most packets of all connections that wait
    bytes: int = 1 << 28  # stream: most bytes of all connections' payload that wait

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"policy {self.policy!r} must be one of {', '.join(POLICIES)}")
        if self.encoder not in ENCODERS:
            raise ConfigError(f"encoder {self.encoder!r} must be one of {', '.join(ENCODERS)}")
        if not 0 < self.patience <= 3600:
            raise ConfigError(f"patience {self.patience} must be greater than 0 and at most 3600 seconds")
        for name, most in (
            ("connection_packets", 1 << 14), ("connection_bytes", 1 << 30), ("packets", 1 << 20), ("bytes", 1 << 40),
        ):  # fmt: skip
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} {getattr(self, name)} must be from 1 to {most}")

    @property
    def words(self) -> int:
        """Number of words of the encoder ``header``; 0 for the other."""
        if self.encoder == "sizes":
            return 0
        return len(PLAIN_WORDS) + (len(IDENTITY_WORDS) if self.identity else 0)

    @property
    def inputs(self) -> int:
        """Number of rows of the input that tokens point to."""
        return 256 * self.words or INPUTS

    @property
    def entries(self) -> int:
        """Most entries of a token."""
        return self.words or ENTRIES


class Tokens(NamedTuple):
    """Tokens of m packets in the order in which a policy let them through; a packet has at most one.

    A token is a sparse vector: its entries are indices of inputs with their values.
    """

    slot: NDArray[np.int32]  # (m,) connection of the packet
    ts: NDArray[np.int64]  # (m,) ns, time of the packet
    number: NDArray[np.int64]  # (m,) index of the packet among those given to models, from 0
    at: NDArray[np.int64]  # (m,) row of the block whose packet let it through, ascending
    rows: NDArray[np.int32]  # (m, entries) inputs, ended by -1
    values: NDArray[np.float32]  # (m, entries) the value of each input


class Count(NamedTuple):
    """Indices of what a pass counts."""

    TOKENS: int = 0
    NOT_TCP: int = 1  # packets without TCP: they have no token, whatever the policy
    LEFT_OUT: int = 2  # TCP packets that the policy leaves out
    HELD: int = 3  # packets that waited for one missing before them
    HELD_NS: int = 4  # total time that they waited
    LOST_ACKED: int = 5  # missing ranges let go because the peer acknowledged them: the capture missed them
    LOST_TIME: int = 6  # missing ranges let go after `patience`
    FALLBACKS: int = 7  # connections that were over a bound, and go on as with `bytes`
    UNDER_1_MS: int = 8  # packets that waited less than 1 ms, 10 ms, 100 ms, 1 s
    UNDER_10_MS: int = 9
    UNDER_100_MS: int = 10
    UNDER_1_S: int = 11


C = Count()
COUNTS = tuple(name.lower() for name in Count._fields)

FLOW = np.dtype([("last", "i8"), ("used", "u1"), ("resets", "u1"), ("fallen", "u1")], align=True)
"""What is kept of a connection: time of its last token in ns, whether any came, RSTs by side, fallen back to bytes."""


def _lookups() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    size = np.arange((1 << LAST_OCTAVE) + 1)
    logs = np.log2(np.maximum(size, 1))
    bucket = np.floor(OCTAVE_PARTS * (logs - FIRST_OCTAVE)).astype(np.int64) + 1
    return np.maximum(bucket, 0).astype(np.uint8), (logs / LAST_OCTAVE).astype(np.float32)


BUCKET, LOG = _lookups()  # (65537,) bucket, and log2 / 16, of a payload


class Lookups(NamedTuple):
    """Tables of a pass; constant."""

    bucket: NDArray[np.uint8]  # (65537,) bucket of a payload; the last of all larger ones
    log: NDArray[np.float32]  # (65537,) log2 of a payload, over 16
    left_out: NDArray[np.bool_]  # (len(Segment),) whether the policy leaves packets of a class out


def left_out(policy: str) -> NDArray[np.bool_]:
    """(len(Segment),) the classes of TCP packets that a policy leaves out."""
    duplicate = {Segment.DUPLICATE, Segment.SPURIOUS, Segment.CAPTURE_DUPLICATE}
    late = duplicate | {Segment.REORDERED, Segment.RETRANSMITTED, Segment.PARTIAL}
    once = duplicate | {
        Segment.ACK, Segment.KEEP_ALIVE, Segment.ZERO_WINDOW_PROBE, Segment.BEFORE, Segment.UNTRUSTED,
        Segment.OUT_OF_WINDOW,
    }  # fmt: skip
    of: dict[str, set[Segment]] = {
        "keep": set(), "no-acks": {Segment.ACK, Segment.CAPTURE_DUPLICATE}, "drop-duplicates": duplicate,
        "drop-late": late, "drop-episodes": late, "bytes": once, "stream": once,
    }  # fmt: skip
    return np.array([segment in of[policy] for segment in Segment], bool)


def new_tokens(n: int, entries: int) -> Tokens:
    """Room for n tokens."""
    return Tokens(
        np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64),
        np.empty((n, entries), np.int32), np.empty((n, entries), np.float32),
    )  # fmt: skip


def part(tokens: Tokens, n: int) -> Tokens:
    """The first n tokens, without a copy."""
    return Tokens._make(column[:n] for column in tokens)


@kernel
def write_words(p: Packets, i: Int, words: NDArray[np.uint8]) -> None:
    """Write the header bytes of packet i. words: (k,) overwritten; k tells whether identity bytes are wanted."""
    size: Int = min(np.int64(p.ip_size[i]), 0xFFFF)
    words[0], words[1] = size >> 8, size & 0xFF
    words[2], words[3] = p.ttl[i], p.tcp_flags[i]
    words[4], words[5] = p.window[i] >> 8, p.window[i] & 0xFF
    if words.size == 6:
        return
    for k in range(6):
        shift = np.uint64(8 * (5 - k))
        words[6 + k] = (p.src_mac[i] >> shift) & np.uint64(0xFF)
        words[12 + k] = (p.dst_mac[i] >> shift) & np.uint64(0xFF)
    words[18], words[19] = p.ip_id[i] >> 8, p.ip_id[i] & 0xFF
    words[20] = p.proto[i]
    words[21], words[22] = p.checksum[i] >> 8, p.checksum[i] & 0xFF
    for k in range(4):
        shift = np.uint64(8 * (3 - k))
        words[23 + k] = (p.src_lo[i] >> shift) & np.uint64(0xFF)
        words[27 + k] = (p.dst_lo[i] >> shift) & np.uint64(0xFF)
        words[35 + k] = (p.seq[i] >> np.uint32(8 * (3 - k))) & np.uint32(0xFF)
        words[39 + k] = (p.ack[i] >> np.uint32(8 * (3 - k))) & np.uint32(0xFF)
    words[31], words[32] = p.sport[i] >> 8, p.sport[i] & 0xFF
    words[33], words[34] = p.dport[i] >> 8, p.dport[i] & 0xFF


@kernel
def encode_sizes(out: Tokens, m: Int, tables: Lookups, up: Int, flags: Int, payload: Int, gap: Int) -> None:
    """Write the entries of token m. payload: bytes of it that count; gap: ns since the connection's last token."""
    rows, values = out.rows[m], out.values[m]
    n = 0
    if up:
        rows[n], values[n] = UP, 1.0
        n += 1
    for bit in range(8):
        if (flags >> bit) & 1:
            rows[n], values[n] = FLAGS + bit, 1.0
            n += 1
    if payload > 0:
        size = min(payload, tables.log.size - 1)
        rows[n], values[n] = LOG_PAYLOAD, tables.log[size]
        rows[n + 1], values[n + 1] = BUCKETS + np.int32(tables.bucket[size]), 1.0
        n += 2
    if gap > 0:
        rows[n], values[n] = LOG_GAP, np.float32(np.log2(1.0 + gap * 1e-3) * 0.05)  # 1 at a second
        n += 1
    if n < rows.size:
        rows[n] = -1


@kernel
def encode_words(out: Tokens, m: Int, words: NDArray[np.uint8]) -> None:
    """Write the entries of token m from header bytes, (k,)."""
    for k in range(words.size):
        out.rows[m, k], out.values[m, k] = 256 * k + np.int32(words[k]), 1.0


@kernel
def emit(
    out: Tokens, m: Int, flow: Any, tables: Lookups, slot: Int, ts: Int, number: Int, at: Int, up: Int, flags: Int,
    payload: Int, words: NDArray[np.uint8],
) -> Int:  # fmt: skip
    """Write token m; gives m + 1. flow: FLOW row of its connection. words: (0,) for the encoder ``sizes``."""
    out.slot[m], out.ts[m], out.number[m], out.at[m] = slot, ts, number, at
    gap = ts - flow["last"] if flow["used"] and ts > flow["last"] else np.int64(0)
    if words.size:
        encode_words(out, m, words)
    else:
        encode_sizes(out, m, tables, up, flags, payload, gap)
    if not flow["used"] or ts > flow["last"]:
        flow["last"] = ts
    flow["used"] = 1
    return m + 1


@kernel
def fresh_payload(p: Packets, i: Int, seen: Int) -> Int:
    """Bytes of packet i's payload that had not been seen. seen: how much of its sequence space had been."""
    flags, payload = np.int64(p.tcp_flags[i]), np.int64(p.payload[i])
    length = payload + int(flags & SYN != 0) + int(flags & FIN != 0)
    return min(payload, max(0, length - seen))


@kernel
def takes(flow: Any, kind: Int, bits: Int, flags: Int, policy: Int, tables: Lookups) -> bool:
    """Whether a policy gives a TCP packet a token. bits: PACKET_ bits."""
    # the end counts, though its number is not trusted; anybody can forge one outside the window
    if flags & RST and kind not in (COPY, OUTSIDE) and policy >= BYTES:
        side = 2 if bits & PACKET_SIDE else 1
        first = not flow["resets"] & side
        flow["resets"] |= side
        return bool(first)
    if policy == NO_ACKS and flags & RST:
        return bool(kind != COPY)
    if policy == EPISODES and bits & PACKET_IN_RECOVERY:
        return False
    return bool(tables.left_out[kind] == 0)


@kernel
def choose(
    out: Tokens, flows: Rows, tables: Lookups, counts: NDArray[np.int64], p: Packets, slot: NDArray[np.int32],
    bits: NDArray[np.uint8], kind: NDArray[np.uint8], seen: NDArray[np.uint32], policy: Int, first: Int,
    words: NDArray[np.uint8],
) -> Int:  # fmt: skip
    """Tokens of packets p by a policy that holds none back; gives their number.

    slot, bits, kind, seen: (n,) the tracker's results. first: number of the first packet. words: (k,) scratch.
    """
    m = 0
    for i in range(p.ts.size):
        if slot[i] < 0 or kind[i] == NONE or p.proto[i] != TCP:  # a copy has its class whatever its protocol
            counts[C.NOT_TCP] += 1
            continue
        flow, flags = flows[slot[i]], np.int64(p.tcp_flags[i])
        if not takes(flow, kind[i], bits[i], flags, policy, tables):
            counts[C.LEFT_OUT] += 1
            continue
        payload: Int = np.int64(p.payload[i])
        if policy == BYTES:
            payload = 0 if flags & RST else fresh_payload(p, i, np.int64(seen[i]))
        if words.size:
            write_words(p, i, words)
        up = bits[i] & PACKET_FROM_ORIGINATOR
        m = emit(out, m, flow, tables, slot[i], p.ts[i], first + i, i, up, flags, payload, words)
    counts[C.TOKENS] += m
    return m
