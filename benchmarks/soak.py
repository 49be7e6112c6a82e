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
from tests.support.netns import Wire, wire

EVERY = 30.0  # seconds between looks


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def metric(text: str, name: str) -> float:
    """The sum of a metric's series."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


class Sending(threading.Thread):
    """Sends a trace as often as it fits into the time, then part of it."""

    def __init__(self, line: Wire, process: subprocess.Popen[str], given: argparse.Namespace) -> None:
        super().__init__(daemon=True)
        self._line, self._process, self._given = line, process, given
        self._limit = round(given.seconds * given.rate)
        self.sent = 0

    def run(self) -> None:
        """Send."""
        while self.sent < self._limit and self._process.poll() is None:
            most = min(self._limit - self.sent, 10_000_000)
            options = ("--pps", str(self._given.rate), "--limit", str(most), "--loop", "0")
            self.sent += self._line.send(self._given.trace, *options, seconds=self._given.seconds * 3)


def sample(line: Wire, process: subprocess.Popen[str], url: str, began: float) -> dict[str, float]:
    """What the process takes and has counted now."""
    text = line.inside(lambda: urllib.request.urlopen(url, timeout=30).read().decode())
    found = {
        "seconds": time.monotonic() - began, "resident": resident(process.pid),
        "packets": metric(text, "wiresonde_packets_total"), "live": metric(text, "wiresonde_live_connections"),
    }  # fmt: skip
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def soaked(given: argparse.Namespace) -> dict[str, Any]:
    """Watch the trace for as long as wanted; the report."""
    samples: list[dict[str, float]] = []
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
        sender = Sending(line, process, given)
        sender.start()
        while sender.is_alive():
            sender.join(EVERY)
            samples.append(sample(line, process, url, began))
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        report = json.loads(process.stdout.read().splitlines()[-1])
        process.wait(timeout=60)
    lost = sum(report["dropped"].values())
    return {
        "machine": machine(), "commit": commit(), "rate": given.rate, "sent": sender.sent,
        "received": report["received"], "scored": report["published"], "dropped": report["dropped"],
        "unaccounted": sender.sent - report["published"] - lost, "connections": report["connections"],
        "samples": samples,
    }  # fmt: skip


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
    document = soaked(arguments)
    text = json.dumps(document, indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(text)
    if document["unaccounted"]:
        sys.exit(f"{document['unaccounted']} packets are neither scored nor counted as lost")


if __name__ == "__main__":
    main()
