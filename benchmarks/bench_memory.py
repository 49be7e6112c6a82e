"""How much memory do a million live connections take with all their state, and does a scan increase it?

    python -m benchmarks.bench_memory --json OUT [--live 1000000] [--scan 10000000]

First ``live`` connections (a packet in each direction), then a scan of ``scan`` distinct flows, through one detector
with the default Kitsune, tables limited to ``live`` connections. Figures are resident memory beyond that of the
process after warming up.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import report
from engine.connections.bounds import TrackerConfig
from engine.features.afterimage import AfterImageConfig
from engine.scoring.building import ModelSpec, build_detector
from engine.scoring.detector import Detector
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KitsuneSection
from engine.types import KIND_TRANSPORT, Kind, PacketBlock, Packets, empty_packets

BLOCK = 4096
T0 = 1_700_000_000_000_000_000
V4 = np.uint64(0xFFFF << 32)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flows(first: int, n: int, step: int, answered: bool) -> Iterator[Packets]:
    """n TCP connections, each a SYN and, if answered, a SYN-ACK; ``step`` ns apart, 60,000 to a pair of hosts."""
    for begin in range(first, first + n, BLOCK):
        number = np.arange(begin, min(begin + BLOCK, first + n), dtype=np.int64)
        p = empty_packets(number.size)
        p.ts[:] = T0 + number * step
        p.src_lo[:] = V4 + np.uint64(0x0A000000) + (number // 60_000).astype("u8")
        p.dst_lo[:] = V4 + np.uint64(0x0B000000) + (number // 60_000 % 50).astype("u8")
        p.src_mac[:], p.dst_mac[:] = 1, 2
        p.sport[:], p.dport[:] = 5_000 + number % 60_000, 80
        p.proto[:], p.kind[:], p.tcp_flags[:] = 6, Kind.IPV4 | KIND_TRANSPORT, 2
        p.size[:], p.ip_size[:] = 60, 46
        yield p
        if answered:
            back = p._replace(
                src_lo=p.dst_lo,
                dst_lo=p.src_lo,
                sport=p.dport,
                dport=p.sport,
                src_mac=p.dst_mac,
                dst_mac=p.src_mac,
            )
            yield back._replace(tcp_flags=np.full_like(p.tcp_flags, 18), ack=p.ack + np.uint32(1))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--live", type=int, default=1_000_000)
    parser.add_argument("--scan", type=int, default=10_000_000)
    arguments = parser.parse_args()

    def detector(live: int) -> Detector:
        section = KitsuneSection(AfterImageConfig(flows=live))
        return build_detector(
            0, TrackerConfig(capacity=live), [ModelSpec("kitsune", KINDS["kitsune"], section)]
        )

    warm = detector(1000)
    seq = 0
    for p in flows(0, 100_000, 1_000, answered=True):
        warm.process(PacketBlock("warm", 0, seq, p, int(p.ts[-1])))
        seq += p.ts.size
    del warm, p
    before = resident()
    d, seq = detector(arguments.live), 0
    for p in flows(0, arguments.live, 1_000, answered=True):
        d.process(PacketBlock("s", 0, seq, p, int(p.ts[-1])))
        seq += p.ts.size
    figures = {"live_connections": [float(d.tracker.counters["live"])], "live": [float(resident() - before)]}
    began, at = time.perf_counter(), []
    for k, p in enumerate(flows(arguments.live, arguments.scan, 1_000, answered=False)):
        d.process(PacketBlock("s", 0, seq, p, int(p.ts[-1])))
        seq += p.ts.size
        if k % 100 == 99:
            at.append(float(resident() - before))
    figures["scan"] = [max(at)]
    figures["scan_last_tenth_growth"] = [at[-1] - at[-max(2, len(at) // 10)]]
    figures["scan_rate"] = [arguments.scan / (time.perf_counter() - began)]
    units = dict.fromkeys(figures, "bytes") | {
        "live_connections": "connections",
        "scan_rate": "connections/s",
    }
    document = report(figures, units, arguments.json, scanned=arguments.scan, counters=d.tracker.counters)
    assert document["counters"]["opened"] == arguments.live + arguments.scan


if __name__ == "__main__":
    main()
