"""How fast is each stage, and the complete path from capture file to scored connections, on one core?

    python -m benchmarks.bench_offline --trace FILE.pcap --json OUT [--kitsune-py DIR] [--rounds 5]

All stages and peers run in turn in one session, confined to one core. ``pipeline`` is everything: reading,
decoding, the embedded bus with its Arrow messages, connections, features, learning (map 5,000 packets, learn
50,000), scoring, thresholds and sinks in memory. ``help`` and ``score_demo`` are whole processes, in seconds:
`wiresonde --help`, and `wiresonde score` on the demo's capture, which learns from 15,000 of its 22,124 packets.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import interleaved, one_core, report, timed
from benchmarks.peers import Run, peers
from connectors.files.pcap import CaptureFile
from engine.commands.score import Job, Scoring
from engine.config import Config
from engine.connections.tracker import Tracker
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.headers.decode import decode
from engine.types import Floats, Packets, freeze, take
from models.kitnet.kitnet import KitNET, KitNETConfig, Phase

BLOCK = 2048
DEMO = "demo/demo.pcap.zst"


def _read(trace: Path) -> None:
    with CaptureFile(trace, frames_per_block=BLOCK) as capture:
        for frames in capture:
            decode(frames)


def _blocks(trace: Path) -> list[Packets]:
    with CaptureFile(trace, frames_per_block=BLOCK) as capture:
        return [freeze(decode(frames)) for frames in capture]


def _track(blocks: list[Packets]) -> None:
    tracker = Tracker()
    for p in blocks:
        for _ in tracker.track(p):
            pass


def _features(blocks: list[Packets]) -> None:
    features = AfterImage(AfterImageConfig())
    for p in blocks:
        for begin in range(0, p.ts.size, 1024):
            features.update(take(p, slice(begin, begin + 1024)))


def _samples(blocks: list[Packets]) -> list[Floats]:
    features = AfterImage(AfterImageConfig())
    return [features.update(p) for p in blocks[: 120_000 // BLOCK]]


def _learn(samples: list[Floats], n: int) -> float:
    kitnet = KitNET(KitNETConfig(map_samples=5_000, learn_samples=10**9))
    first = -(-5_000 // BLOCK)
    for x in samples[:first]:
        kitnet.process(x)
    rest = samples[first : first + n // BLOCK]
    return timed(sum(len(x) for x in rest), lambda: [kitnet.process(x) for x in rest])


def _learned(samples: list[Floats]) -> KitNET:
    kitnet = KitNET(KitNETConfig())
    for x in samples:
        kitnet.process(x)
        if kitnet.phase is Phase.SCORE:
            break
    return kitnet


def _pipeline(trace: Path) -> None:
    Scoring(Job([trace], Config())).run()


def _process(*words: str) -> float:
    """Seconds that a complete wiresonde process takes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "engine.cli", *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kitsune-py", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    trace: Path = arguments.trace
    core = one_core()
    blocks = _blocks(trace)
    n = sum(p.ts.size for p in blocks)
    samples = _samples(blocks)
    kitnet = _learned(samples)
    scored = sum(len(x) for x in samples)
    with tempfile.TemporaryDirectory() as folder:
        rounds = arguments.rounds
        work: dict[str, Run] = {
            "decode": (rounds, lambda: timed(n, lambda: _read(trace))),
            "connections": (rounds, lambda: timed(n, lambda: _track(blocks))),
            "features": (rounds, lambda: timed(n, lambda: _features(blocks))),
            "kitnet_learn": (rounds, lambda: _learn(samples, 50_000)),
            "kitnet_score": (rounds, lambda: timed(scored, lambda: [kitnet.score(x) for x in samples])),
            "pipeline": (rounds, lambda: timed(n, lambda: _pipeline(trace))),
            **peers(trace, n, Path(folder), arguments.kitsune_py),
        }
        runs = interleaved(work, rounds)
    seconds = {
        "help": [_process("--help") for _ in range(1 + rounds)][1:],
        "score_demo": [_process("score", DEMO, "--learn", "15000") for _ in range(1 + rounds)][1:],
    }
    units = dict.fromkeys(runs, "packets/s") | dict.fromkeys(seconds, "s")
    more = {"trace": {"name": trace.name, "packets": n}, "core": core}
    report({**runs, **seconds}, units, arguments.json, **more)


if __name__ == "__main__":
    main()
