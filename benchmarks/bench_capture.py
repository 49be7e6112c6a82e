"""How many packets a second can a tap take without losing one, and what does a packet cost?

    python -m benchmarks.bench_capture --trace FILE.pcap [--json OUT]

tcpreplay sends the trace through a pair of interfaces in a network namespace of its own, faster and faster, on one
core; the receiver has the other (``watch``, capture and detection in one process, may use both). A receiver's rate is
the highest at which it got every packet, twice in a row. Needs root.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, machine
from tests.support.netns import Wire, wire

RATES = (
    2_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    200_000,
    300_000,
    400_000,
    500_000,
    600_000,
    800_000,
    0,
)
FIRST = {
    "ring": 400_000,
    "watch": 200_000,
    "pcapy": 100_000,
    "nfstream": 25_000,
}  # packets/s at which the search begins
FASTEST = 1_500_000  # packets/s, more than tcpreplay reaches
SECONDS = 10.0  # seconds of sending at each rate: far more than the ring and the bus can hold
SETTLE = 1.0  # seconds between the last packet and the count


class NoBus:
    """Takes blocks and drops them."""

    partitions = 1

    def publish(self, partition: int, value: bytes, *, about: str, packets: int) -> None:
        """Does nothing."""


def ring(stop: threading.Event, ready: Callable[[], None]) -> int:
    """Our capture command without Kafka: ring, decode, blocks, Arrow."""
    from connectors.live.capture import RingCapture
    from connectors.live.settings import CaptureSettings
    from engine.commands.tap import live_sensor
    from engine.commands.warm import warm_up_sensor
    from engine.config import Config
    from engine.sensor.live import publish_live
    from engine.sensor.publisher import Publisher

    config = Config()
    warm_up_sensor(config)
    source = RingCapture("tap0", CaptureSettings())

    def wait() -> None:
        stop.wait()
        source.stop()

    threading.Thread(target=wait, daemon=True).start()
    ready()
    publish_live(source, Publisher(live_sensor(config, 4096), NoBus()))
    return source.counters.received


def scapy(stop: threading.Event, ready: Callable[[], None]) -> int:
    """scapy's sniffer, which parses each packet."""
    from scapy.sendrecv import AsyncSniffer

    n = [0]

    def count(_: object) -> None:
        n[0] += 1

    sniffer = AsyncSniffer(iface="tap0", store=False, prn=count, started_callback=ready)
    sniffer.start()
    stop.wait()
    sniffer.stop()
    return n[0]


def pcapy(stop: threading.Event, ready: Callable[[], None]) -> int:
    """pcapy-ng, which counts and parses nothing."""
    import pcapy as library

    reader = library.open_live("tap0", 256, True, 10)
    n = [0]

    def count(*_: object) -> None:
        n[0] += 1

    reader.setnonblock(True)
    ready()
    while not stop.is_set():
        select.select([reader.getfd()], [], [], 0.05)
        reader.dispatch(-1, count)
    return n[0]


RECEIVERS = {"ring": ring, "scapy": scapy, "pcapy": pcapy}


def receive(name: str) -> None:
    """Run a receiver's process: prints ready, and after SIGTERM its count and its CPU time."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    result: list[int] = []
    ready = functools.partial(print, "ready", flush=True)
    worker = threading.Thread(target=lambda: result.append(RECEIVERS[name](stop, ready)))
    worker.start()
    while worker.is_alive():
        worker.join(0.1)
    print(json.dumps({"packets": result[0]}), flush=True)


NFSTREAM = """
import nfstream
for flow in nfstream.NFStreamer("tap0", performance_report=1, n_meters=1, idle_timeout=1):
    pass
"""


@dataclass(frozen=True)
class Command:
    """How a receiver is started, the sign that it is ready, and the place of its counts."""

    words: tuple[object, ...]
    ready: str
    stream: str  # stream with that sign
    got: tuple[str, ...]  # keys of the last line to add up
    scored: tuple[str, ...]
    end: signal.Signals = signal.SIGTERM
    settle: float = SETTLE
    share: float = 1.0  # share of the packets that counts as all of them


def command(name: str) -> Command:
    """The command of a receiver."""
    alone = ("taskset", "-c", "1", sys.executable)
    if name == "watch":
        words: tuple[object, ...] = (
            sys.executable,
            "-m",
            "engine.cli",
            "-v",
            "watch",
            "-i",
            "tap0",
            "--learn",
            "15000",
        )
        return Command(words, "privileges dropped", "stderr", ("received",), ("published",))
    if name == "nfstream":  # reports once a second what it has processed, a little less than the truth
        keys = ("packets_processed", "packets_ignored")
        return Command(
            (*alone, "-c", NFSTREAM), "flows_expired", "stdout", keys, keys, signal.SIGINT, 3.0, 0.99
        )
    words = (*alone, "-m", "benchmarks.bench_capture", "--receiver", name)
    return Command(words, "ready", "stdout", ("packets",), ("packets",))


def attempt(line: Wire, name: str, trace: Path, rate: int) -> dict[str, Any]:
    """One rate: packets sent, their rate, packets received and their cost."""
    c = command(name)
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE if c.stream == "stderr" else subprocess.DEVNULL,
    }
    process = subprocess.Popen(line.command(*c.words), text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]
    next(text for text in getattr(process, c.stream) if c.ready in text)
    if c.stream == "stderr":
        threading.Thread(target=process.stderr.read, daemon=True).start()
    used = cpu_of(process.pid)
    limit = round((rate or FASTEST) * SECONDS)
    speed = ("--pps", str(rate)) if rate else ("--topspeed",)
    sent = line.replay(trace, *speed, "--loop", "0", "--limit", str(limit), before=("taskset", "-c", "0"))
    time.sleep(c.settle)
    used = cpu_of(process.pid) - used
    os.killpg(process.pid, c.end)
    answer = json.loads([text for text in process.stdout.read().splitlines() if text.startswith("{")][-1])
    process.wait(timeout=30)
    got, scored = (sum(answer[key] for key in keys) for keys in (c.got, c.scored))
    return {"sent": sent.packets, "rate": sent.rate, "got": got, "scored": scored, "cpu": used / max(1, got)}


def cpu_of(pid: int) -> float:
    """CPU seconds so far of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = [c for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(
        cpu_of(int(c)) for c in children
    )


def highest(line: Wire, name: str, trace: Path) -> dict[str, Any] | None:
    """A receiver's best rate."""
    best: dict[str, Any] | None = None
    misses = 0
    for rate in RATES[RATES.index(FIRST.get(name, RATES[0])) :]:
        tries = [attempt(line, name, trace, rate) for _ in range(2)]
        share = command(name).share
        whole = all(t["got"] == t["scored"] and share * t["sent"] <= t["got"] <= t["sent"] for t in tries)
        slowest = min(tries, key=lambda t: t["rate"])
        print(f"{name:8} {slowest['rate']:>12,.0f}/s  {'whole' if whole else 'lost some'}", file=sys.stderr)
        if whole and (best is None or slowest["rate"] > best["rate"]):
            best = slowest
        misses = 0 if whole else misses + 1
        if misses == 2:  # a single miss may be the machine's fault
            break
    return best


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=["ring", "watch", "pcapy", "nfstream", "scapy"])
    parser.add_argument("--receiver", choices=RECEIVERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receiver:
        receive(arguments.receiver)
        return
    from connectors.files.pcap import CaptureFile

    with CaptureFile(arguments.trace) as capture:
        packets = sum(len(frames) for frames in capture)
    figures = {}
    with wire() as line:
        for name in arguments.only:
            best = highest(line, name, arguments.trace)
            if best is not None:
                figures[name] = best
    document = {
        "machine": machine(), "commit": commit(), "trace": {"name": arguments.trace.name, "packets": packets},
        "figures": figures,
    }  # fmt: skip
    text = json.dumps(document, indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
