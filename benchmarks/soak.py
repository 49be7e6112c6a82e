"""Does a sensor stay stable for an hour? Memory, losses and delay of ``watch`` under a steady load.

    python -m benchmarks.soak --trace FILE.pcap [--seconds 3600] [--rate 50000] [--json OUT]

tcpreplay sends the trace repeatedly through a network namespace of its own; ``wiresonde watch`` captures, learns
and scores. Every packet must be scored or counted as lost; exit 1 otherwise. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.measure import commit, machine
from tests.support.netns import wire

EVERY = 30.0  # seconds between looks


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def metric(text: str, name: str) -> float:
    """The sum of a metric's series."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    samples: list[dict[str, Any]] = []
    with wire() as line:
        command = (sys.executable, "-m", "engine.cli", "-v", "watch", "-i", "tap0", "--metrics-port", "0")
        process = subprocess.Popen(
            line.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert process.stdout is not None
        url = next(m[1] for text in process.stderr if (m := re.search(r"metrics at (\S+)", text)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        began = time.monotonic()
        sent: list[int] = []
        limit = round(arguments.seconds * arguments.rate)

        def send() -> None:
            """Send the trace as often as it fits, then part of it."""
            while sum(sent) < limit and process.poll() is None:
                options = (
                    "--pps",
                    str(arguments.rate),
                    "--limit",
                    str(min(limit - sum(sent), 10_000_000)),
                    "--loop",
                    "0",
                )
                sent.append(line.send(arguments.trace, *options, seconds=arguments.seconds * 3))

        sender = threading.Thread(target=send)
        sender.start()
        while sender.is_alive():
            sender.join(EVERY)
            text = line.inside(lambda: urllib.request.urlopen(url, timeout=30).read().decode())
            samples.append(
                {
                    "seconds": time.monotonic() - began,
                    "resident": resident(process.pid),
                    "packets": metric(text, "wiresonde_packets_total"),
                    "live": metric(text, "wiresonde_live_connections"),
                }
            )
            print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        report = json.loads(process.stdout.read().splitlines()[-1])
        process.wait(timeout=60)
    lost = sum(report["dropped"].values())
    document = {
        "machine": machine(), "commit": commit(), "rate": arguments.rate, "sent": sum(sent),
        "received": report["received"], "scored": report["published"], "dropped": report["dropped"],
        "unaccounted": sum(sent) - report["published"] - lost, "connections": report["connections"], "samples": samples,
    }  # fmt: skip
    text = json.dumps(document, indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)
    if document["unaccounted"]:
        sys.exit(f"{document['unaccounted']} packets are neither scored nor counted as lost")


if __name__ == "__main__":
    main()
