"""How many packets a second can be taken from an interface without losing one, and what does a packet cost?

    python -m benchmarks.bench_capture --trace FILE.pcap [--json OUT]

tcpreplay sends the trace through a pair of interfaces in a network namespace of its own, faster and faster, on one
core; the receiver has the other (``watch``, capture and detection in one process, may use both). The rate of a receiver
is the highest at which it got every packet, twice in a row. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, machine
from tests.netns import Wire, wire

RATES = (
    2_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    150_000,
    200_000,
    250_000,
    300_000,
    400_000,
    500_000,
    600_000,
    0,
)
FIRST = {"ring": 200_000, "watch": 50_000, "pcapy": 50_000}  # where the search begins
SECONDS = 3.0  # of sending at a rate
SETTLE = 1.0  # seconds between the last packet and the count


class NoBus:
    """Takes blocks and forgets them."""

    partitions = 1

    def publish(self, partition: int, value: bytes, *, about: str, packets: int) -> None:
        """Nothing."""


def ring(stop: threading.Event, ready: Callable[[], None]) -> int:
    """Our capture command without Kafka: ring, decode, blocks, Arrow."""
    from connectors.capture import RingCapture
    from connectors.capture_settings import CaptureSettings
    from engine.config import Config
    from engine.live import live_sensor, publish_live
    from engine.publisher import Publisher
    from engine.warm import warm_up_sensor

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

    ready()
    while not stop.is_set():
        reader.dispatch(-1, count)
    reader.dispatch(-1, count)
    return n[0]


RECEIVERS = {"ring": ring, "scapy": scapy, "pcapy": pcapy}


def receive(name: str) -> None:
    """The receiver's process: prints ready, and after SIGTERM what it got and its CPU time."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    began: list[float] = []

    def ready() -> None:
        began.append(cpu())
        print("ready", flush=True)

    result: list[int] = []
    worker = threading.Thread(target=lambda: result.append(RECEIVERS[name](stop, ready)))
    worker.start()
    while worker.is_alive():
        worker.join(0.1)
    print(json.dumps({"packets": result[0], "cpu": cpu() - began[0]}), flush=True)


def cpu() -> float:
    """CPU seconds of this process and its children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def attempt(line: Wire, name: str, trace: Path, packets: int, rate: int) -> dict[str, Any]:
    """One rate: what was sent, how fast, what arrived and its cost."""
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
        sign = "privileges dropped"
    else:
        words = ("taskset", "-c", 1, sys.executable, "-m", "benchmarks.bench_capture", "--receiver", name)
        sign = "ready"
    process = subprocess.Popen(
        line.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = process.stderr if name == "watch" else process.stdout
    assert said is not None
    for text in said:
        if sign in text:
            break
    drain = threading.Thread(target=said.read, daemon=True) if name == "watch" else None
    if drain is not None:
        drain.start()
    used = ticks(process.pid)
    options = ("--topspeed", "--limit", str(packets)) if not rate else ("--pps", str(rate))
    limit = min(packets, max(1000, int(rate * SECONDS))) if rate else packets
    sent = line.replay(
        trace, *options, *(("--limit", str(limit)) if rate else ()), before=("taskset", "-c", "0")
    )
    time.sleep(SETTLE)
    used = ticks(process.pid) - used
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    answer = json.loads(process.stdout.read().splitlines()[-1])
    process.wait(timeout=30)
    got = answer["received"] if name == "watch" else answer["packets"]
    scored = answer.get("published", got)
    return {"sent": sent.packets, "rate": sent.rate, "got": got, "scored": scored, "cpu": used / max(1, got)}


def ticks(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def highest(line: Wire, name: str, trace: Path, packets: int) -> dict[str, Any] | None:
    """The best rate of a receiver."""
    best: dict[str, Any] | None = None
    misses = 0
    for rate in RATES[RATES.index(FIRST.get(name, RATES[0])) :]:
        tries = [attempt(line, name, trace, packets, rate) for _ in range(2)]
        whole = all(t["got"] == t["scored"] == t["sent"] for t in tries)
        slowest = min(tries, key=lambda t: t["rate"])
        print(f"{name:8} {slowest['rate']:>12,.0f}/s  {'whole' if whole else 'lost some'}", file=sys.stderr)
        if whole and (best is None or slowest["rate"] > best["rate"]):
            best = slowest
        misses = 0 if whole else misses + 1
        if misses == 2:
            break
    return best


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=["ring", "watch", "pcapy", "scapy"])
    parser.add_argument("--receiver", choices=RECEIVERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receiver:
        receive(arguments.receiver)
        return
    from connectors.pcap import CaptureFile

    with CaptureFile(arguments.trace) as capture:
        packets = sum(len(frames) for frames in capture)
    figures = {}
    with wire() as line:
        for name in arguments.only:
            best = highest(line, name, arguments.trace, packets)
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
