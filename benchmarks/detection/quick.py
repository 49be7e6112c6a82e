"""A small case made here, whose right answers are known: it runs the same evaluations in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.detection.cases import Base, Bench, Row, merging, pauses, within
from benchmarks.detection.sources import Source
from benchmarks.detection.streams import SECOND
from benchmarks.detection.variants import Variant
from engine.types import KIND_TRANSPORT, UDP, Packets, concatenate, empty_packets, take
from engine.types import Kind as Layer
from probing.analysis.roc import Bootstrap

BASE, SERVER = 0xFFFF << 32 | 0x0A_00_00_0A, 0xFFFF << 32 | 0x0A_00_00_01  # 10.0.0.10 …, 10.0.0.1
INFECTED = BASE + 3
LOW = np.uint64(0xFFFF_FFFF)


def chat(n: int, hosts: int, seed: int, first: int = BASE) -> Packets:
    """n packets of hosts that talk to a server, six packets a conversation, a new port each time."""
    rng = np.random.default_rng(seed)
    p, talk = empty_packets(n), np.arange(n) // 6
    who = rng.integers(0, hosts, n // 6 + 1)[talk].astype(np.uint64) + np.uint64(first)
    port = (1024 + talk % 60_000).astype(np.uint16)
    up = np.arange(n) % 2 == 0
    server = np.full(n, SERVER, np.uint64)
    size = rng.integers(80, 600, n).astype(np.uint32)
    return p._replace(
        ts=10**18 + np.cumsum(rng.integers(1_000_000, 60_000_000, n)),
        src_lo=np.where(up, who, server), dst_lo=np.where(up, server, who),
        src_mac=np.where(up, who, server) & LOW, dst_mac=np.where(up, server, who) & LOW,
        sport=np.where(up, port, 53), dport=np.where(up, 53, port), proto=np.full(n, UDP, np.uint8),
        kind=np.full(n, Layer.IPV4 | KIND_TRANSPORT, np.uint8), size=size, ip_size=size - 14, payload=size - 42,
    )  # fmt: skip


def flood(n: int, seed: int, first: int = BASE) -> Packets:
    """n full-sized packets of one host to a port of the server each, half a millisecond apart."""
    p, source = chat(n, 1, seed, first), np.full(n, first, np.uint64)
    ports = (1024 + np.arange(n) % 60_000).astype(np.uint16)
    return p._replace(
        ts=p.ts[0] + np.arange(n, dtype=np.int64) * 500_000,
        src_lo=source, src_mac=source & LOW,
        dst_lo=np.full(n, SERVER, np.uint64), dst_mac=np.full(n, SERVER, np.uint64) & LOW,
        sport=np.full(n, 5000, np.uint16), dport=ports,
        size=np.full(n, 1400, np.uint32), ip_size=np.full(n, 1386, np.uint32), payload=np.full(n, 1358, np.uint32),
    )  # fmt: skip


def bench() -> Bench:
    """Kitsune and the baseline beside the two scorers."""
    variants = [
        Variant("Kitsune"), Variant("Kitsune, empty streams", options={"start.warmup_packets": 0}, start="bundle"),
        Variant("baseline", "baseline"), Variant("merged", "merged"), Variant("chance", "chance"),
    ]  # fmt: skip
    return Bench(variants, (1, 2), Bootstrap(rounds=200))


def evaluations(given: Bench) -> Iterator[tuple[str, Callable[[], Iterator[Row]], str | None]]:
    """The evaluations on the small case."""
    base = Base.of("small case", chat(6000, 6, 1), given)
    later = int(base.rest.ts.max()) + SECOND - 10**18
    attack = _mixed(chat(1200, 6, 2), flood(600, 3, INFECTED))
    attack = attack._replace(ts=attack.ts + later)
    merge = {
        Source("flood", "scan", ""): flood(500, 4),
        Source("others", "benign", ""): chat(400, 4, 5),
        Source("more others", "benign", ""): chat(400, 12, 6),
    }
    validation = {Source("flood before", "scan", ""): flood(300, 7)}
    yield "within", lambda: within(given, base, attack, INFECTED), None
    yield "merged", lambda: merging(given, base, merge, validation), None
    yield "pauses", lambda: pauses(given, base, (0, 3600)), None


def _mixed(one: Packets, other: Packets) -> Packets:
    """Packets of both in order of time; the other's are spread over the one's time."""
    span = int(one.ts[-1] - one.ts[0])
    times = one.ts[0] + np.linspace(0, span, other.ts.size).astype(np.int64)
    both = concatenate([one, other._replace(ts=times)])
    return take(both, np.argsort(both.ts, kind="stable"))
