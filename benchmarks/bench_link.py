"""How exact is the lab's link, and how much does it carry?

    sudo python -m benchmarks.bench_link --json docs/figures/bench_link.json

Two hosts in a private machine. Delay: UDP packets of 200 bytes at a steady rate through a delay of 10 ms; each carries
its time of sending, and the kernel notes its arrival. Two errors are given: of the release (when the link wrote the
frame, against when it should have) and end to end, which includes the way through two kernels. Throughput: one TCP
connection through 10 ms each way, and the highest steady rate of small packets without a loss. Peers, in turn with it:
the same link in plain Python (select, a heap), and the hosts joined directly.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import report
from probing.lab.hosts import Host
from probing.lab.isolation import OUT, ROOM, alone
from probing.lab.link.link import Link
from probing.lab.run import How
from probing.lab.settings import Link as Setting
from probing.lab.worker import warm_up

DELAY_MS = 10.0
RATES = (500, 1000, 2000, 4000, 8000, 16_000)
SECONDS = 3.0
STEPS = (20_000, 40_000, 60_000, 80_000, 120_000)  # packets a second to try
ROUNDS = 3
HERE = Path(__file__).resolve().parent.parent


class PythonLink:
    """The obvious link, as a peer: carries everything to the other port after a delay."""

    def __init__(self, hosts: list[Host], delay_ms: float) -> None:
        self._fds = [host.fd for host in hosts]
        self._delay = delay_ms / 1e3
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._thread.join()

    def _run(self) -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        heap: list[tuple[float, int, int, bytes]] = []
        n = 0
        other = {self._fds[0]: self._fds[1], self._fds[1]: self._fds[0]}
        while not self._over:
            now = time.monotonic()
            while heap and heap[0][0] <= now:
                _, _, fd, frame = heapq.heappop(heap)
                os.write(fd, frame)
            wait = min(0.02, max(0.0, heap[0][0] - now)) if heap else 0.02
            for fd in select.select(self._fds, [], [], wait)[0]:
                for _ in range(16):
                    try:
                        frame = os.read(fd, 9216)
                    except BlockingIOError:
                        break
                    heapq.heappush(heap, (time.monotonic() + self._delay, n, other[fd], frame))
                    n += 1


def send(address: str, rate: float, seconds: float) -> None:
    """Send UDP packets at a steady rate."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    began = time.monotonic()
    total = int(rate * seconds)
    pad = bytes(142)  # 200 bytes with all headers
    for i in range(total):
        due = began + i / rate
        while (left := due - time.monotonic()) > 0:
            if left > 2e-4:
                time.sleep(left - 1e-4)
        sock.sendto(struct.pack("<IQ", i, time.time_ns()) + pad, (address, 9))
    print(json.dumps({"sent": total, "seconds": time.monotonic() - began}))


def receive(seconds: float) -> None:
    """Receive them; print arrivals and one-way times."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 1 << 26
    )
    sock.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    sock.bind(("0.0.0.0", 9))
    sock.settimeout(0.2)
    print("ready", flush=True)
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            data, more, _, _ = sock.recvmsg(256, 64)
        except TimeoutError:
            continue
        at, ns = struct.unpack("qq", more[0][2])
        took.append(at * 1_000_000_000 + ns - struct.unpack_from("<IQ", data)[1])
    np.save(ROOM / "took.npy", np.array(took, np.int64))
    print(json.dumps({"received": len(took)}))


def sink() -> None:
    """Take one TCP connection to its end."""
    server = socket.create_server(("0.0.0.0", 9))
    print("ready", flush=True)
    sock, _ = server.accept()
    n = 0
    while data := sock.recv(1 << 18):
        n += len(data)
    sock.sendall(b"!")


def pour(address: str, n: int) -> None:
    """Send n bytes; print the time until all were received."""
    began = time.monotonic()
    sock = socket.create_connection((address, 9))
    block = bytes(1 << 16)
    for _ in range(n >> 16):
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)
    print(json.dumps({"bytes": n, "seconds": time.monotonic() - began}))


PARTS: dict[str, Callable[..., None]] = {"send": send, "receive": receive, "sink": sink, "pour": pour}


def _at(host: Host, part: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.bench_link", "--part", part, *map(str, arguments)]
    return host.in_thread(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE))


def _flow(server: Host, client: Host, rate: float, seconds: float) -> tuple[int, int, Any]:
    """Send a steady flow; packets sent, packets received and one-way times in ns."""
    receiver = _at(server, "receive", seconds + 1.5)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    sent = json.loads(_at(client, "send", server.address, rate, seconds).communicate()[0])
    got = json.loads(receiver.communicate()[0].splitlines()[-1])
    return (
        sent["sent"] if sent["seconds"] < 1.05 * seconds else 0,
        got["received"],
        np.load(ROOM / "took.npy"),
    )


def _tcp(server: Host, client: Host, n: int) -> float:
    """Mbit/s of one connection."""
    receiver = _at(server, "sink")
    assert receiver.stdout is not None
    receiver.stdout.readline()
    done = json.loads(_at(client, "pour", server.address, n).communicate()[0])
    receiver.communicate()
    return float(done["bytes"] * 8 / 1e6 / done["seconds"])


def _errors(late: Any) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(late, q)), 4) for q in (50, 99, 99.9)} | {
        "max": round(float(late.max()), 4), "mean": round(float(late.mean()), 4),
    }  # fmt: skip


def measure(kind: str, what: str, rate: float) -> None:
    """One measurement in a private machine; the result goes to OUT."""
    server = Host("server", "10.0.0.1", 1, ROOM / "logs", client=False)
    client = Host("client", "10.0.0.10", 2, ROOM / "logs", client=True)
    hosts = [server, client]
    for host in hosts:
        host.connect(hosts)
    delay = DELAY_MS if kind != "none" else 0.0
    link = (
        Link(hosts, [Setting(), Setting(delay_ms=delay)], 1) if kind == "link" else PythonLink(hosts, delay)
    )
    link.start()
    result: dict[str, Any] = {}
    if what == "tcp":
        result["mbit"] = _tcp(server, client, 100_000_000 if kind == "link" else 20_000_000)
    else:
        sent, got, took = _flow(server, client, rate, SECONDS)
        late = np.abs(took / 1e6 - delay)
        result = {"sent": sent, "received": got, "end_to_end_ms": _errors(late), "frames": int(rate)}
    log = link.stop()
    if log is not None and what == "udp":
        released = log.records[(log.records["out_ts"] > 0) & (log.records["flow"] >= 0)]
        result["release_ms"] = _errors((released["out_ts"] - released["due"]) / 1e6)
        result["real_time"] = log.real_time
    (OUT / "result.json").write_text(json.dumps(result))


def once(kind: str, what: str, rate: float = 0.0) -> dict[str, Any]:
    """Measure in a fresh private machine."""
    folder = Path(tempfile.mkdtemp(prefix="bench-link-"))
    try:
        ended = alone(lambda: measure(kind, what, rate), folder, 120)
        if ended.code:
            raise RuntimeError((folder / "error.txt").read_text())
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def highest(kind: str) -> float:
    """The highest of STEPS that was sent and carried without loss."""
    best = 0.0
    for rate in STEPS:
        got = once(kind, "udp", rate)
        if not got["sent"] or got["received"] < got["sent"]:
            break
        best = rate
    return best


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    if given.part:
        PARTS[given.part](*(word if "." in word and word.count(".") > 1 else float(word) if "." in word else int(word)
                            for word in given.words))  # fmt: skip
        return
    warm_up(How())
    runs: dict[str, list[float]] = {name: [] for name in ("tcp", "tcp_python", "packets", "packets_python")}
    for turn in range(given.rounds):
        for name, kind in (("", "link"), ("_python", "python")):
            runs[f"tcp{name}"].append(once(kind, "tcp")["mbit"])
            runs[f"packets{name}"].append(highest(kind))
        print(turn, {name: values[-1] for name, values in runs.items()}, file=sys.stderr)
    accuracy = {}
    for rate in RATES:
        rounds = [once("link", "udp", rate) for _ in range(given.rounds)]
        python = once("python", "udp", rate)
        accuracy[rate] = {
            what: {q: float(np.median([r[what][q] for r in rounds])) for q in rounds[0][what]}
            for what in ("release_ms", "end_to_end_ms")
        } | {"python_end_to_end_ms": python["end_to_end_ms"], "real_time": rounds[0]["real_time"]}
        print(rate, accuracy[rate], file=sys.stderr)
    units = {"tcp": "Mbit/s", "tcp_python": "Mbit/s", "packets": "packets/s", "packets_python": "packets/s"}
    report(runs, units, given.json, delay_ms=DELAY_MS, seconds=SECONDS, accuracy=accuracy)


if __name__ == "__main__":
    main()
