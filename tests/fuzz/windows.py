"""Wild segments by the million through a small table: python -m tests.fuzz.windows --packets 10000000 --seed 1

Honest conversations, cut into each other, whose numbers, flags, windows and times are mutated, with copies and reuse of
ports. After every block the table must be within its bounds. Prints the time and what was found; 1 if anything was.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.bounds import TrackerConfig
from engine.connections.layout import State, Timer
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.types import KIND_TRANSPORT, TCP, Kind, Packets, Rows, empty_packets

BLOCK = 10_000
CAPACITY = 256
T0 = 1_700_000_000_000_000_000
STEP = 1 << 32  # most bytes that one segment can move a side's numbers ahead
FLAGS = np.array([2, 18, 16, 24, 24, 16, 17, 17, 16])  # of an honest conversation's packets, in order
SIDES = np.array([0, 1, 0, 0, 1, 0, 0, 1, 0])
SEQ = np.array([0, 0, 1, 1, 1, 101, 101, 501, 102])
ACK = np.array([0, 1, 1, 1, 101, 501, 501, 102, 502])
PAYLOAD = np.array([0, 0, 0, 100, 500, 0, 0, 0, 0])
SIGNED = ("high", "acked", "recovery_ns", "round_trip")  # never negative


def packets(rng: np.random.Generator, n: int, begin: int) -> Packets:
    """n packets of conversations between 4,096 pairs of ports, mutated; the first at about ``begin`` ns."""
    p = empty_packets(n)
    at = np.arange(n)
    flow = (at // 64 % 64) * 64 + rng.integers(0, 8, n) * 8
    order = np.argsort(flow, kind="stable")
    place = np.empty(n, np.int64)  # of each packet in its conversation
    first = np.flatnonzero(np.diff(flow[order], prepend=-1))
    place[order] = (at - np.repeat(first, np.diff(np.append(first, n)))) % FLAGS.size
    side = SIDES[place] == 1
    isn = (flow * 2_654_435_761) % 2**32, (flow * 40_503 + 2**31) % 2**32
    p.seq[:] = (np.where(side, isn[1], isn[0]) + SEQ[place]) % 2**32
    p.ack[:] = np.where(place > 0, (np.where(side, isn[0], isn[1]) + ACK[place]) % 2**32, 0)
    p.tcp_flags[:], p.payload[:] = FLAGS[place], PAYLOAD[place]
    port, server = 20_000 + flow, np.full(n, 80)
    p.sport[:], p.dport[:] = np.where(side, server, port), np.where(side, port, server)
    a, b = np.uint64(0xFFFF << 32 | 1), np.uint64(0xFFFF << 32 | 2)
    p.src_lo[:], p.dst_lo[:] = np.where(side, b, a), np.where(side, a, b)
    p.kind[:], p.proto[:], p.window[:] = Kind.IPV4 | KIND_TRANSPORT, TCP, 1000
    p.ip_id[:] = rng.integers(0, 4, n)
    p.ts[:] = begin + np.cumsum(rng.choice([0, 1000, 200_000, 40_000_000], n, p=[0.1, 0.4, 0.45, 0.05]))
    mutate(p, rng)
    p.ip_size[:] = p.payload + 40
    p.size[:] = p.ip_size + 14
    return p


def mutate(p: Packets, rng: np.random.Generator) -> None:
    """Change some of the numbers, flags, sizes, windows and times of p, and make copies."""
    n = p.ts.size
    edges = np.array(
        [1, -1, 1448, 2**20 - 1, 2**20 + 1, 2**26 + 1, -(2**26) - 1, 2**31 - 1, 2**31, 2**31 + 1, 10**9]
    )
    for column in (p.seq, p.ack):
        odd = rng.random(n) < 0.08
        wild = np.where(rng.random(n) < 0.5, rng.choice(edges, n), rng.integers(0, 2**32, n))
        column[odd] = (column.astype(np.int64) + wild)[odd] % 2**32
    odd = rng.random(n) < 0.06
    p.tcp_flags[odd] = rng.integers(0, 64, odd.sum())
    odd = rng.random(n) < 0.05
    p.payload[odd] = rng.choice([0, 1, 1448, 65_495], odd.sum())
    p.window[rng.random(n) < 0.03] = 0
    copied = np.flatnonzero(rng.random(n) < 0.05)[1:]
    copied = copied[copied > 0]
    each: NDArray[Any]
    for each in p:
        each[copied] = each[copied - 1]
    p.ts[copied] += rng.integers(0, 12_000_000, copied.size)
    odd = rng.random(n) < 0.002
    p.ts[odd] += rng.choice([-(10**18), -(10**11), 10**11, 10**18], odd.sum())
    if rng.random() < 0.01:
        p.ts[n // 2 :] -= 10**12


def broken(tracker: Tracker, rows: Rows, sides: Rows) -> Iterator[str]:
    """What is wrong with some connections."""
    if rows.size == 0:
        return
    for name in SIGNED:
        if (low := sides[name].min()) < 0:
            yield f"{name} is {low}"
    for name in ("missed", "again_bytes", "packets", "ip_bytes"):
        if (most := sides[name].max()) >> np.uint64(62):
            yield f"{name} is {most}: it went below 0"
    if sides["holes"].max() > tracker.config.holes:
        yield f"{sides['holes'].max()} holes"
    if sides["state"].max() > max(State) or rows["timer"].max() >= len(Timer):
        yield f"state {sides['state'].max()}, timer {rows['timer'].max()}"
    moves = sides["packets"].sum(axis=1).astype(np.float64)[:, None] + 4
    if (sides["high"] > moves * STEP).any():
        yield f"a size of {sides['high'].max()}"
    for name in ("out_of_window", "capture_duplicate", "duplicate_ack"):
        if (sides[name] > moves * 2 + sides["capture_duplicate"]).any():
            yield f"{name} is {sides[name].max()}"
    if (rows["last"] < rows["start"]).any():
        yield "a connection that ends before it starts"
    table = connection_table(rows, sides)
    for name in ("orig_bytes", "resp_bytes", "missed_bytes", "recovery_seconds", "duration"):
        column: NDArray[np.float64] = table[name].cast("float64").to_numpy()
        if np.nanmin(column, initial=0) < 0:
            yield f"{name} is {np.nanmin(column)}"


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def soak(n: int, seed: int, config: TrackerConfig) -> tuple[list[str], list[int]]:
    """Findings, at most 20, and memory in use after each block."""
    rng, tracker = np.random.default_rng(seed), Tracker(config, 512)
    found: list[str] = []
    memory: list[int] = []
    begin, seen = T0, set[str]()
    for block in range(n // BLOCK):
        p = packets(rng, BLOCK, begin)
        begin = int(np.median(p.ts)) + BLOCK * 1_000_000
        for step in tracker.track(p):
            rows, sides = tracker.rows(step.closed)
            said = list(broken(tracker, rows, sides))
            for uid in connection_table(rows, sides)["uid"].to_pylist() if block < 100 else ():
                said += [f"{uid} comes twice"] if uid in seen else []
                seen.add(uid)
            found += [f"block {block}: {line}" for line in said]
        if tracker.counters["live"] > config.capacity:
            found.append(f"block {block}: {tracker.counters['live']} connections")
        found += [f"block {block}: live, {line}" for line in broken(tracker, *tracker.rows(tracker.live()))]
        memory.append(resident())
        if len(found) >= 20:
            break
    return found[:20], memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begin = time.perf_counter()
    found, memory = soak(given.packets, given.seed, TrackerConfig(capacity=CAPACITY, attempt_timeout=1.0))
    tenth = max(1, len(memory) // 10)
    grown = np.median(memory[-tenth:]) / np.median(memory[:tenth]) if memory else 1.0
    sys.stdout.write(
        f"{len(memory) * BLOCK} packets in {time.perf_counter() - begin:.0f} s, memory × {grown:.3f}\n"
    )
    if grown > 1.1:
        found.append(f"memory grew {grown:.2f} times between the first and the last tenth")
    sys.stdout.write("\n".join(found or ["nothing found"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
