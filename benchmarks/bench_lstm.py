"""What do tokens of packets, and an LSTM's scores of them, cost?

    python -m benchmarks.bench_lstm --trace FILE.pcap [--json OUT] [--rounds 5]

``tokens`` is the pass that turns tracked packets into tokens. ``scores`` is the LSTM alone (64 units, one layer, random
weights), in micro-batches of so many packets of the trace, beside torch and onnxruntime on one thread, which get the
same tokens, weights and states (benchmarks/lstm_peers.py says what they get for free); every run's scores are compared.
``train`` are steps of `wiresonde train sequence` with the default recipe, on one thread or a GPU.
``pipeline`` is `wiresonde score` without a file to write, each a process of its own. All run in turn in one sitting on
one core, in CPU time. Then, once each: the memory of a million live connections' state, and the time to compile.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.bench_memory import flows, resident
from benchmarks.lstm_peers import Batch, Ours, Peer, entries, peers
from benchmarks.measure import interleaved, one_core, report
from connectors.files.pcap import CaptureFile
from engine.connections.bounds import TrackerConfig
from engine.connections.layout import PACKET_FROM_ORIGINATOR, PACKET_SIDE, Segment
from engine.connections.tracker import Tracked, Tracker
from engine.features.afterimage import AfterImage, AfterImageConfig
from engine.features.reassembly import HELD, LOAD, SIDE
from engine.features.tokens import FLOW, TokenConfig, Tokens
from engine.headers.decode import decode
from engine.scoring.detector import slots_needed
from engine.scoring.scorer import ScorerConfig
from engine.scoring.sequence import SequenceModel, tokens_packed
from engine.scoring.token_pass import TokenPass
from engine.types import Packets, take
from models.bundle import pack
from models.kitnet.kitnet import KitNET, KitNETConfig
from models.lstm import LSTM, LSTMConfig
from models.threshold import Threshold

Steps = Sequence[tuple[Packets, Tracked]]
Floats = NDArray[np.float64]
Ints32 = NDArray[np.int32]

BLOCK = 2048  # packets that are tracked, and turned into tokens, at once
SIZES = (256, 1_024, 4_096, 16_384)  # packets of a micro-batch
POLICIES = ("keep", "stream")
STEPS = 64  # of training
LIVE = 1_000_000  # connections whose memory is measured
TOLERANCE = 1e-4  # largest difference of two implementations' scores
SLOTS = slots_needed(TrackerConfig())
NO_SLOTS, NO_ROWS = np.zeros(0, np.int32), np.zeros(0, np.int64)
MODELS = {"kitsune": (True, False), "sequence": (False, True), "both": (True, True)}  # Kitsune, LSTM
PIPELINE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
from engine.commands.models import chosen_models
from engine.commands.score import Job, Scoring
from engine.config import parse
trace, kitsune, *bundles = sys.argv[1:]
config = parse({"models": {"kitsune": {"kind": "kitsune"}} if kitsune == "True" else {}}, "bench")
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(2):
    began = time.process_time()
    packets = Scoring(Job([Path(trace)], config, models=chosen_models(config, bundles))).run().packets
print(packets / (time.process_time() - began))
"""
COMPILING = """
import os, sys
sys.path.insert(0, os.getcwd())
from benchmarks.bench_lstm import FIRST
print(FIRST[sys.argv[1]]())
"""


class Stream(NamedTuple):
    """Tokens of a trace. Each connection has a number of its own, where the engine reuses its slot."""

    tokens: Batch
    at: NDArray[np.int64]  # (m,) index of the packet that let each through, ascending
    connections: int
    packets: int
    counters: dict[str, int]


def tracked(trace: Path) -> Steps:
    """All packets of a trace, with what the tracker says of them."""
    tracker, n, found = Tracker(), 0, []
    with CaptureFile(trace, frames_per_block=BLOCK) as capture:
        for frames in capture:
            p = decode(frames)
            for t in tracker.track(p, n):
                kept = replace(t, closed=t.closed.copy(), closed_at=t.closed_at.copy())
                found.append((take(p, slice(t.begin, t.end)), kept))
            n += p.ts.size
    return found


def tokens_of(steps: Steps, policy: Any) -> Stream:
    """The tokens of all packets, those that wait at the end included."""
    passes, number, known = (
        TokenPass(TokenConfig(policy=policy), None, SLOTS),
        np.full(SLOTS, -1, np.int32),
        0,
    )
    parts: list[tuple[NDArray[Any], ...]] = []

    def add(x: Tokens, first: int) -> None:
        nonlocal known
        fresh = np.unique(x.slot[number[x.slot] < 0])
        number[fresh] = known + np.arange(fresh.size)
        known += fresh.size
        parts.append((x.rows.copy(), x.values.copy(), number[x.slot], first + x.at))

    packets = 0
    for p, t in steps:
        add(passes.update(p, t), packets)
        number[t.closed] = -1
        packets += p.ts.size
    add(passes.close(np.arange(SLOTS, dtype=np.int32)), packets - 1)
    rows, values, slot, at = (np.concatenate(columns) for columns in zip(*parts))
    return Stream(Batch(rows, values, slot), at, known, packets, dict(passes.counters()))


def pass_rate(steps: Steps, policy: Any) -> float:
    """Packets a second that a new pass turns into tokens."""
    passes = TokenPass(TokenConfig(policy=policy), None, SLOTS)
    began = time.process_time()
    for p, t in steps:
        passes.update(p, t)
    return sum(p.ts.size for p, _ in steps) / (time.process_time() - began)


def micro_batches(stream: Stream, size: int) -> Iterator[tuple[int, int]]:
    """First token and end of each micro-batch of that many packets; those without tokens are left out."""
    ends = np.searchsorted(stream.at, np.arange(0, stream.packets + size, size))
    yield from ((a, b) for a, b in pairwise(ends.tolist()) if a < b)


def scores(peer: Peer, stream: Stream, size: int) -> tuple[Floats, float]:
    """Scores of all tokens in micro-batches, and the CPU seconds that they took."""
    out, seconds = np.empty(len(stream.at)), 0.0
    peer.begin(stream.connections)
    for a, b in micro_batches(stream, size):
        given = peer.prepare(Batch._make(column[a:b] for column in stream.tokens))
        began = time.process_time()
        peer.score(given, out[a:b])
        seconds += time.process_time() - began
    return out, seconds


def score_rate(peer: Peer, stream: Stream, size: int, expected: Floats) -> float:
    """Tokens a second; ValueError if scores are not the expected ones."""
    out, seconds = scores(peer, stream, size)
    if not (far := float(np.abs(out - expected).max())) <= TOLERANCE:
        raise ValueError(f"scores of {type(peer).__name__} in micro-batches of {size} are off by {far:g}")
    return len(out) / seconds


def bundle(lstm: LSTM, stream: Stream, given: Floats) -> bytes:
    """A bundle of the LSTM. Its threshold lets one connection in a hundred alarm, as a trained one's may."""
    highest = np.zeros(stream.connections)
    np.maximum.at(highest, stream.tokens.slot, given)
    threshold = Threshold(float(np.quantile(highest, 0.99)), "quantile", 0.01, stream.connections, True)
    config = {
        "lstm": asdict(lstm.config), "tokens": tokens_packed(TokenConfig()), "trained": 1,
        "scorer": asdict(ScorerConfig(aggregate="last")), "threshold": asdict(threshold),
    }  # fmt: skip
    return pack(lstm.arrays(), config, {"of": "random weights"}, kind="sequence")


def pipeline(trace: Path, kitsune: bool, bundles: Sequence[Path]) -> float:
    """Packets a second of CPU, in the second of two runs of a fresh process."""
    words = [sys.executable, "-c", PIPELINE, trace.resolve(), kitsune, *bundles]
    return float(subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True).stdout)


def openings(live: int) -> Iterator[tuple[Packets, Tracked]]:
    """That many TCP connections, a SYN and a SYN-ACK each, in slots from 0 on."""
    first = number = 0
    for k, p in enumerate(flows(0, live, 1_000, answered=True)):  # the SYNs of a block, then their answers
        n, answers = p.ts.size, bool(k % 2)
        slot = np.arange(first, first + n, dtype=np.int32)
        bits = np.full(n, PACKET_SIDE if answers else PACKET_FROM_ORIGINATOR, np.uint8)
        kinds, seen = np.full(n, Segment.NEW, np.uint8), np.zeros(n, np.uint32)
        yield p, Tracked(0, n, slot, bits, kinds, seen, NO_SLOTS, NO_ROWS, number)
        first, number = first + n * answers, number + n


def train_rate(stream: Stream, device: str) -> float:
    """Tokens a second that training takes in, on average over STEPS; those beyond the recipe's cut do not count.

    CPU time on a CPU. Every other connection is an attack: labels do not change how long a step takes.
    """
    from probing.training.batches import Draws
    from probing.training.network import Network, shape_of
    from probing.training.recipe import Recipe
    from probing.training.sequences import Sequences
    from probing.training.train import Training

    order = np.argsort(stream.tokens.slot, kind="stable")
    many = np.bincount(stream.tokens.slot, minlength=stream.connections)
    attack = np.arange(stream.connections) % 2
    real, start = entries(stream.tokens)[order], np.concatenate(([0], np.cumsum(many)))
    rows = np.where(real, stream.tokens.rows[order], -1).astype(np.int16)
    values = np.where(real, stream.tokens.values[order], np.float32(0))
    data = Sequences(rows, values, start, pa.table({"attack": attack}))
    recipe, few = Recipe(steps=STEPS, check=STEPS), np.arange(stream.connections) < 8
    draws = Draws(attack == 1, data.lengths, recipe)
    taken = sum(int(np.minimum(data.lengths[draws.batch(k)], recipe.cut).sum()) for k in range(STEPS))
    shape = shape_of(TokenConfig(), recipe.hidden, recipe.layers, recipe.embedding)
    training = Training(Network(shape, device=device), data, data.chosen(few), recipe)
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    training.run()
    return taken / (clock() - began)


def devices() -> list[str]:
    """Where torch can train; none where it is not installed."""
    if not importlib.util.find_spec("torch"):
        print("torch not installed: training left out", file=sys.stderr)
        return []
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def state_bytes(live: int) -> tuple[int, int]:
    """Bytes in memory for tokens and LSTM of so many live connections, and how many connections have a state."""
    config = TokenConfig()
    lstm = LSTM.random(LSTMConfig(config.inputs), seed=0)
    for n in (1_000, live):  # the first compiles
        before = resident()
        passes, model = TokenPass(config, None, n), SequenceModel(config, lstm, n)
        for p, t in openings(n):
            model.step(p, t, passes.update(p, t))
        taken = resident() - before
    return taken, model.state()[0]["slots"].size


def apart(run: Callable[..., Any], *given: Any) -> Any:
    """The result of a fresh process: what others freed before would hide what this one takes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *given).result()


def design() -> dict[str, int]:
    """Bytes of a connection's state, by part, and of each waiting packet."""
    row = LSTM.random(LSTMConfig(TokenConfig().inputs), seed=0).bytes_per_connection
    scratch = np.dtype(np.int32).itemsize + np.dtype(bool).itemsize  # waves, and whether there is a state
    return {
        "lstm": row, "flow": FLOW.itemsize, "sides": 2 * SIDE.itemsize, "load": LOAD.itemsize, "marks": scratch,
        "held": HELD.itemsize,
    }  # fmt: skip


def first_sequence() -> float:
    """CPU seconds of the sequence model's first tokens and scores."""
    began = time.process_time()
    state_bytes(1_000)
    return time.process_time() - began


def first_kitsune() -> float:
    """CPU seconds of Kitsune's first features and scores, learning included."""
    steps, began = list(openings(1_000)), time.process_time()
    features = AfterImage(AfterImageConfig(flows=4_096))
    kitnet = KitNET(KitNETConfig(map_samples=500, learn_samples=500))
    for p, _ in steps:
        kitnet.process(features.update(p))
    kitnet.score(features.update(steps[0][0]))
    return time.process_time() - began


FIRST = {"sequence": first_sequence, "kitsune": first_kitsune}


def compiling(kind: str) -> float:
    """Seconds to compile the kernels of a kind, with an empty cache, less what they take once compiled."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", COMPILING, kind]
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        cold, warm = (
            float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
            for _ in range(2)
        )
    return cold - warm


def ratios(runs: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the rounds' ratios: ours to each peer, and each pipeline to Kitsune's."""
    found = {}
    for name, rates in runs.items():
        what, _, size = name.rpartition("_")
        base = "pipeline_kitsune" if what == "pipeline" else f"scores_ours_{size}"
        if base in runs:
            pairs = zip(rates, runs[base]) if what == "pipeline" else zip(runs[base], rates)
            found[name] = round(statistics.median(x / y for x, y in pairs), 3)
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    trace, rounds = arguments.trace, arguments.rounds
    core = one_core()
    steps = tracked(trace)
    streams = {policy: tokens_of(steps, policy) for policy in POLICIES}
    lstm = LSTM.random(LSTMConfig(TokenConfig().inputs), seed=0)
    expected = {policy: scores(Ours(lstm), stream, BLOCK)[0] for policy, stream in streams.items()}
    work: dict[str, tuple[int, Callable[[], float]]] = {
        f"tokens_{policy}": (rounds, partial(pass_rate, steps, policy)) for policy in POLICIES
    }
    for size in SIZES:
        for name, peer in [*peers(lstm).items(), ("keep", Ours(lstm))]:
            policy = "keep" if name == "keep" else "stream"
            most = rounds if name in ("ours", "keep") else min(rounds, 2)
            run = partial(score_rate, peer, streams[policy], size, expected[policy])
            work[f"scores_{name}_{size}"] = most, run
    for device in devices():
        work[f"train_{device}"] = rounds, partial(train_rate, streams["stream"], device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sequence.bundle"
        path.write_bytes(bundle(lstm, streams["stream"], expected["stream"]))
        for name, (kitsune, sequence) in MODELS.items():
            bundles = [path] if sequence else []
            work[f"pipeline_{name}"] = rounds, partial(pipeline, trace, kitsune, bundles)
        runs = interleaved(work, rounds)
    units = {name: "tokens/s" if name.startswith(("scores", "train")) else "packets/s" for name in runs}
    taken, live = apart(state_bytes, LIVE)
    more: dict[str, Any] = {
        "ratios": ratios(runs),
        "streams": {policy: _said(stream) for policy, stream in streams.items()},
        "memory": {
            "live": live, "bytes": taken, "design": design(), "capacity": TrackerConfig().capacity,
            "waiting": TokenConfig().packets,
        },
        "compiling": {kind: round(compiling(kind), 1) for kind in FIRST},
        "load": [round(x, 2) for x in os.getloadavg()],
    }  # fmt: skip
    report(runs, units, arguments.json, trace={"name": trace.name}, core=core, **more)


def _said(stream: Stream) -> dict[str, Any]:
    return {"tokens": len(stream.at), "packets": stream.packets, "connections": stream.connections} | {
        "counters": stream.counters
    }


if __name__ == "__main__":
    main()
