"""The decoder's kernel on millions of changed frames, in blocks.

    python -m tests.fuzz.mutate [--frames 10000000] [--seed 1]

Seeds are in seeds.py; what is done to them in ``mutated``. Each block is decoded several times, which must agree: with
other bytes around the frames, in the other order, and each frame of a sample by itself and by the naive twin. Prints
each kind of finding once, with the frame, and exits with 1 if there was one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.files.frames import FrameBlock
from engine.headers.cursor import TUNNELS
from engine.headers.decode import DecodeConfig, decode
from engine.types import (
    KIND_FRAGMENT,
    KIND_INNER,
    KIND_MASK,
    KIND_TRANSPORT,
    PACKET_DTYPES,
    Kind,
    Packets,
    Reason,
)
from tests.fuzz.seeds import Seeds, seeds
from tests.support.naive_headers import BeyondError, decoded

Matrix = NDArray[np.uint8]
Flags = NDArray[np.bool_]

ROOM = 512  # bytes of a frame's place; what the frame does not fill are guards
FRONT = 16  # guards before it
CONFIGS = (
    DecodeConfig(),
    DecodeConfig(tunnels=tuple(TUNNELS)),
    DecodeConfig(tunnels=tuple(TUNNELS)[::2], max_depth=3),
)
EXTREMES = np.array(
    [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 0x3F, 0x40, 0x45, 0x60, 0x7F, 0x80, 0xF0, 0xFE, 0xFF], np.uint8
)
SEEN = ("src_lo", "dst_lo", "sport", "dport", "seq", "ack", "window", "tcp_flags", "ttl")


class Frames(NamedTuple):
    """n frames, each at the begin of a row."""

    data: Matrix  # (n, ROOM - FRONT)
    length: NDArray[np.int64]  # (n,) bytes of each before it was cut
    captured: NDArray[np.int64]  # (n,)
    wire: NDArray[np.int64]  # (n,)
    link_type: NDArray[np.uint16]  # (n,)


def mutated(seeds: Seeds, n: int, rng: np.random.Generator) -> Frames:
    """n changed seeds: the tail of another, bits turned, bytes and lengths of extreme values, the end cut off."""
    width = ROOM - FRONT
    base = np.zeros((len(seeds), width), np.uint8)
    for row, (_, frame) in zip(base, seeds):
        row[: len(frame)] = np.frombuffer(frame, np.uint8)
    sizes = np.array([len(frame) for _, frame in seeds])
    types = np.array([number for number, _ in seeds], np.uint16)
    pick, other = rng.integers(len(seeds), size=(2, n))
    data, length = base[pick], sizes[pick].copy()
    spliced = rng.random(n) < 0.25
    cut, begin = rng.integers(0, length + 1), rng.integers(0, sizes[other] + 1)
    source = np.arange(width) - cut[:, None] + begin[:, None]
    tail = np.take_along_axis(base[other], np.clip(source, 0, width - 1), 1)
    data = np.where((spliced[:, None]) & (np.arange(width) >= cut[:, None]), tail, data)
    length = np.where(spliced, np.clip(cut + sizes[other] - begin, 0, width), length)
    rows = np.arange(n)
    for share, values in ((0.7, None), (0.4, None), (0.2, None), (0.4, EXTREMES), (0.2, EXTREMES)):
        chosen = (rng.random(n) < share) & (length > 0)
        at = rng.integers(0, np.maximum(length, 1))
        now = data[rows, at] ^ (1 << rng.integers(0, 8, n)).astype(np.uint8)
        if values is not None:
            now = rng.choice(values, n)
        data[rows[chosen], at[chosen]] = now[chosen]
    wide = (rng.random(n) < 0.2) & (length > 1)  # lengths are two bytes long
    at = rng.integers(0, np.maximum(length - 1, 1))
    pair = rng.choice(np.array([0, 1, 8, 20, 0x7FFF, 0x8000, 0xFFFF, 0x05DC, 0x0600], np.uint16), n)
    data[rows[wide], at[wide]], data[rows[wide], at[wide] + 1] = (pair >> 8)[wide], (pair & 255)[wide]
    captured = np.where(rng.random(n) < 0.35, rng.integers(0, length + 1), length)
    wire = np.where(rng.random(n) < 0.7, length, captured + rng.choice([0, 1, 4, 1400, 1 << 31], n))
    link_type = np.where(rng.random(n) < 0.04, rng.choice(np.unique(types), n), types[pick])
    return Frames(data, length, captured, wire, link_type.astype(np.uint16))


def block(frames: Frames, guard: int, captured: NDArray[np.int64] | None = None) -> FrameBlock:
    """The frames with ``guard`` in all bytes around them."""
    n, width = frames.data.shape
    sizes = frames.captured if captured is None else captured
    room = np.full((n, ROOM), guard, np.uint8)
    room[:, FRONT:] = np.where(np.arange(width) < sizes[:, None], frames.data, np.uint8(guard))
    start = np.arange(n, dtype=np.int64) * ROOM + FRONT
    return FrameBlock(
        room.reshape(-1), start, sizes.astype(np.uint32), frames.wire.astype(np.uint32),
        np.arange(n, dtype=np.int64), frames.link_type,
    )  # fmt: skip


def different(a: Packets, b: Packets) -> Flags:
    """Rows that are not equal."""
    out = np.zeros(a.ts.size, bool)
    for name in PACKET_DTYPES:
        if name != "ts":
            out |= getattr(a, name) != getattr(b, name)
    return out


def broken_rules(p: Packets, b: FrameBlock, config: DecodeConfig) -> Iterator[tuple[str, Flags]]:
    """What never holds of a row, and the rows for which it does."""
    network, kind = p.kind & KIND_MASK, p.kind
    ip = (network == Kind.IPV4) | (network == Kind.IPV6)
    transport = kind & KIND_TRANSPORT != 0
    tcp = (p.proto == 6) & ip & transport
    named = [Reason[f"TUNNEL_{name.upper()}"] for name in config.tunnels]
    yield "a kind that is none", network > max(Kind)
    yield "a reason that is none", p.reason >= len(Reason)
    yield "a tunnel that is named and closed", np.isin(p.reason, named)
    yield "another size", p.size != np.maximum(b.wire, b.captured)
    yield (
        "addresses without a network",
        (network < Kind.ARP) & ((p.src_lo | p.dst_lo | p.src_hi | p.dst_hi) != 0),
    )
    yield "an IPv4 address of another form", (network == Kind.IPV4) & (p.src_lo >> np.uint64(32) != 0xFFFF)
    yield "IP's fields without IP", ~ip & ((p.ip_size | p.payload | p.ttl | p.proto | p.ip_id) != 0)
    yield "ports without IP", ~ip & (network != Kind.ARP) & ((p.sport | p.dport) != 0)
    yield "a payload larger than its packet", p.payload > p.ip_size
    yield "TCP's fields without TCP", ~tcp & ((p.seq | p.ack | p.window | p.tcp_flags) != 0)
    yield "a transport without IP", transport & ~ip
    yield "a fragment with a transport", transport & (kind & KIND_FRAGMENT != 0)
    yield "an inner packet of no tunnel", (kind & KIND_INNER != 0) & np.bool_(not config.tunnels)
    yield "a VLAN beyond 4095", (p.vlan & 0xFFFF > 4095) | (p.vlan >> 16 > 4095)
    yield "a MAC beyond 48 bits", (p.src_mac | p.dst_mac) >> np.uint64(48) != 0
    yield "an unread packet without a reason", (network == Kind.UNREAD) & (p.reason == Reason.OK)


def findings(frames: Frames, config: DecodeConfig, rng: np.random.Generator) -> Iterator[tuple[str, Flags]]:
    """What is wrong with the rows of these frames, and with which."""
    b = block(frames, 0)
    p = decode(b, config)
    yield from broken_rules(p, b, config)
    for guard in (0xFF, 0x45):
        yield "bytes around the frame are read", different(p, decode(block(frames, guard), config))
    back = Frames._make(column[::-1] for column in frames)
    turned = Packets._make(column[::-1] for column in decode(block(back, 0), config))
    yield "the frames before it are remembered", different(p, turned)
    alone = np.zeros(p.ts.size, bool)
    for i in rng.integers(p.ts.size, size=min(20, p.ts.size)).tolist():
        one = decode(block(Frames._make(column[i : i + 1] for column in frames), 0), config)
        alone[i] = different(Packets._make(column[i : i + 1] for column in p), one)[0]
    yield "by itself it gives another row", alone
    if not config.tunnels:
        rows, compared = unlike_the_twin(frames, p, rng.integers(p.ts.size, size=200))
        yield "the naive twin gives another row", rows
        yield "the naive twin reads hardly any", np.full(p.ts.size, compared < 10)
    if not config.tunnels:
        longest = np.minimum(frames.length, np.maximum(frames.wire, frames.captured))
        whole = decode(block(frames, 0, np.maximum(longest, frames.captured)), config)
        for name in SEEN:
            short, full = getattr(p, name), getattr(whole, name)
            yield f"a shorter snaplen changes {name}", (short != 0) & (short != full)


def unlike_the_twin(frames: Frames, p: Packets, sample: NDArray[np.int64]) -> tuple[Flags, int]:
    """The rows of the sample of which the naive twin has others, and how many it reads."""
    out = np.zeros(p.ts.size, bool)
    compared = 0
    for i in sample.tolist():
        data = frames.data[i, : frames.captured[i]].tobytes()
        try:
            theirs = decoded(int(frames.link_type[i]), data, int(frames.wire[i]))
        except BeyondError:
            continue
        compared += 1
        mine = {name: int(column[i]) for name, column in p._asdict().items() if name not in ("ts", "reason")}
        mine = {name: value for name, value in mine.items() if value} | {"reason": int(p.reason[i])}
        out[i] = mine != theirs
    return out, compared


def main() -> int:
    """Run as long as asked; 1 if anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    known, found, done, size = seeds(), dict[str, str](), 0, 20_000
    reasons = np.zeros(len(Reason), np.int64)
    rng, begin = np.random.default_rng(asked.seed), time.perf_counter()
    while done < asked.frames:
        frames = mutated(known, size, rng)
        config = CONFIGS[done // size % len(CONFIGS)]
        for what, rows in findings(frames, config, rng):
            if what not in found and rows.any():
                i = int(np.argmax(rows))
                found[what] = frames.data[i, : frames.captured[i]].tobytes().hex()
                where = f"link type {frames.link_type[i]}, wire {frames.wire[i]}, {config}"
                say(f"{what}: {where}: {found[what]}")
        reasons += np.bincount(decode(block(frames, 0), config).reason, minlength=len(Reason))
        done += size
    seconds = time.perf_counter() - begin
    say(f"{done:,} frames from {len(known)} seeds in {seconds:.0f} s; findings: {len(found)}")
    say("; ".join(f"{reason.name.lower()} {n:,}" for reason, n in zip(Reason, reasons.tolist())))
    return int(bool(found))


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
