"""How equal are the packets of a repeated run?

    sudo python -m benchmarks.bench_repeat --json docs/figures/bench_repeat.json

Every activity of every scenario (each with one client, the first with all) is run ten times with the same seed, each
time in fresh hosts, and the connections of each repetition are compared with those of the first. A connection is the
sequence of its packets: direction, payload and TCP flags. Bare acknowledgements depend on the scheduler, so two
figures are given: the share of connections with equal sequences when these are left out, and the similarity of the
complete sequences (difflib's ratio, 1 = equal).
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import report
from engine.commands.reading import read_packets
from engine.config import Config
from probing.lab import catalog
from probing.lab.campaign import Worker
from probing.lab.run import How
from probing.lab.settings import Corpus, Entry, Run, Scenario
from probing.lab.vantage import HEADERS

TIMES = 10
SAMPLES = 1
DELAY_MS = 5
LONGEST = 400  # most packets of a sequence that are compared: difflib's time grows with their square
Packet = tuple[bool, int, int]  # whether from the originator, payload, flags


def sequences(folder: Path) -> list[list[Packet]]:
    """Packet sequences of a run's connections, in the order of samples, roles and starts."""
    rows = json.loads((folder / "rows.json").read_text())
    by_key: dict[tuple[Any, ...], tuple[int, int]] = {}
    rows.sort(key=lambda r: (r["sample"], r["proto"], r["role"], r["start"]))
    for k, row in enumerate(rows):
        by_key[row["src"], row["sport"], row["dst"], row["dport"], row["proto"]] = k, 1
        by_key[row["dst"], row["dport"], row["src"], row["sport"], row["proto"]] = k, 0
    found: list[list[Packet]] = [[] for _ in rows]
    names = {6: "tcp", 17: "udp"}
    for p in read_packets([folder / "client.pcap"], Config()):
        columns = (p.src_lo, p.sport, p.dst_lo, p.dport, p.proto, p.payload, p.tcp_flags)
        for src, sport, dst, dport, proto, payload, flags in zip(*(c.tolist() for c in columns)):
            key = _address(src), sport, _address(dst), dport, names.get(proto, "icmp")
            if key in by_key:
                k, up = by_key[key]
                found[k].append((bool(up), payload, flags))
    return found


def _address(word: int) -> str:
    return ".".join(str(word >> shift & 255) for shift in (24, 16, 8, 0))


def bare(packet: Packet) -> bool:
    """Whether the packet only acknowledges."""
    return packet[1] == 0 and packet[2] == 16


def alike(first: Sequence[Packet], again: Sequence[Packet]) -> float:
    """Similarity of two sequences; 1 when equal."""
    return difflib.SequenceMatcher(None, first[:LONGEST], again[:LONGEST], autojunk=False).ratio()


def compare(first: list[list[Packet]], again: list[list[Packet]]) -> tuple[int, int, int, list[float]]:
    """Numbers of connections, of those equal without bare acknowledgements, and with them; similarity of each."""
    n = max(len(first), len(again))
    pairs = list(zip(first, again))
    without = sum([p for p in a if not bare(p)] == [p for p in b if not bare(p)] for a, b in pairs)
    return (
        n,
        without,
        sum(a == b for a, b in pairs),
        [alike(a, b) for a, b in pairs] + [0.0] * (n - len(pairs)),
    )


def chosen(word: str) -> list[Run]:
    """A scenario's activities, each with its first server and first client; the first activity with every client."""
    given = catalog.scenario(word)
    runs = []
    for k, activity in enumerate(given.activities):
        client: Any = "all" if k == 0 else given.clients_of(activity)[0]
        entry = Entry(
            scenario=word, activity=activity, server=_server(given, activity, client), client=client,
            samples=SAMPLES, link={"delay_ms": DELAY_MS},
        )  # fmt: skip
        runs += catalog.expand(Corpus(name=f"repeat-{activity}", about="", runs=(entry,)))
    return runs


def _server(given: Scenario, activity: str, client: str) -> Any:
    """The first server for a client."""
    if client == "all":
        return given.servers_of(activity)[0] if not given.pairs else "all"
    return next(server for server in given.servers_of(activity) if given.fits(client, server))


def measure(run: Run, worker: Worker, folder: Path) -> dict[str, Any]:
    """Repeat a run."""
    first: list[list[Packet]] | None = None
    total, without, whole, failed = 0, 0, 0, 0
    likeness: list[float] = []
    for k in range(TIMES):
        mine = run.model_copy(update={"id": f"{run.scenario}-{run.id}-{k}"})
        if problem := worker.do(mine):
            print(f"{mine.id}: {problem.splitlines()[-1]}", file=sys.stderr)
            failed += 1
            continue
        found = sequences(folder / mine.id)
        shutil.rmtree(folder / mine.id)
        if first is None:
            first = found
            continue
        n, a, b, ratios = compare(first, found)
        total, without, whole, likeness = total + n, without + a, whole + b, likeness + ratios
    result = {
        "scenario": run.scenario, "activity": run.activity, "client": run.client, "server": run.server,
        "failed": failed, "connections": total, "equal_without_acks": without / total if total else 0.0,
        "equal": whole / total if total else 0.0, "alike": statistics.mean(likeness) if likeness else 0.0,
    }  # fmt: skip
    print(result, file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("scenarios", nargs="*")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-repeat-"))
    workers = [Worker(folder, How(snap=HEADERS)) for _ in range(given.jobs)]
    try:
        runs = [run for word in given.scenarios or catalog.scenarios() for run in chosen(word)]

        def share(k: int) -> list[dict[str, Any]]:
            return [measure(run, workers[k], folder) for run in runs[k :: given.jobs]]

        with ThreadPoolExecutor(given.jobs) as pool:
            rows = [row for part in pool.map(share, range(given.jobs)) for row in part]
    finally:
        for worker in workers:
            worker.kill()
        shutil.rmtree(folder, ignore_errors=True)
    rows.sort(key=lambda row: (row["scenario"], row["activity"], row["client"]))
    report({"equal": [row["equal"] for row in rows]}, "share", given.json, times=TIMES, samples=SAMPLES,
           delay_ms=DELAY_MS, rows=rows)  # fmt: skip


if __name__ == "__main__":
    main()
