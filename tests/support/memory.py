"""How much memory a detector takes, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from benchmarks.bench_memory import flows, resident
from engine.connections.bounds import TrackerConfig
from engine.features.afterimage import AfterImageConfig
from engine.scoring.building import ModelSpec, build_detector
from engine.scoring.detector import Detector
from engine.scoring.kinds import KINDS
from engine.scoring.kitsune import KitsuneSection
from engine.types import PacketBlock


class Taken(NamedTuple):
    """What a detector had open and saw, and bytes beyond what the process had before."""

    live: int
    opened: int
    filled: int  # bytes, with all connections open
    most: int  # bytes, the most while more connections came than the tables hold


def detector(live: int) -> Detector:
    """The default Kitsune, its tables bounded to ``live`` connections."""
    section = KitsuneSection(AfterImageConfig(flows=live))
    return build_detector(0, TrackerConfig(capacity=live), [ModelSpec("kitsune", KINDS["kitsune"], section)])


def measure(live: int, scanned: int) -> Taken:
    """Open ``live`` connections, then scan ``scanned`` flows more."""
    warm = detector(1000)
    for seq, p in enumerate(flows(0, 10_000, 1_000, answered=True)):
        warm.process(PacketBlock("warm", 0, seq, p, int(p.ts[-1])))
    del warm, p
    before = resident()
    d, seq = detector(live), 0
    for p in flows(0, live, 1_000, answered=True):
        d.process(PacketBlock("s", 0, seq, p, int(p.ts[-1])))
        seq += len(p.ts)
    opened, filled, most = d.tracker.counters["live"], resident() - before, 0
    for p in flows(live, scanned, 1_000, answered=False):
        d.process(PacketBlock("s", 0, seq, p, int(p.ts[-1])))
        seq += len(p.ts)
        most = max(most, resident() - before)
    assert d.lost_packets == d.repeated_packets == 0
    return Taken(opened, d.tracker.counters["opened"], filled, most)


def measured_apart(live: int, scanned: int) -> Taken:
    """The same in a fresh process: what others freed before would hide what this one takes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, live, scanned).result()
