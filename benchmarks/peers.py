"""Speed of other tools on the same capture. A peer that is not installed is left out, with a message."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

Run = tuple[int, Callable[[], float]]


def first_packets(trace: Path, n: int, folder: Path) -> Path:
    """A capture of the first n packets of a classic pcap file."""
    import dpkt

    out = folder / f"first-{n}.pcap"
    with trace.open("rb") as source, out.open("wb") as target:
        reader = dpkt.pcap.UniversalReader(source)
        writer = dpkt.pcap.Writer(target, linktype=reader.datalink(), nano=True)
        for ts, data in islice(reader, n):
            writer.writepkt(data, ts)
    return out


def peers(trace: Path, total: int, folder: Path, kitsune_py: Path | None) -> dict[str, Run]:
    """Peers by name: rounds, and a run that returns packets a second."""
    found: dict[str, Run] = {}
    if importlib.util.find_spec("dpkt"):
        found["dpkt"] = (3, lambda: _dpkt(trace, total))
    short = first_packets(trace, 10_000, folder) if "dpkt" in found else trace
    n = 10_000 if "dpkt" in found else total
    if importlib.util.find_spec("scapy"):
        found["scapy"] = (3, lambda: _scapy(short, n))
    if shutil.which("tshark"):
        middle = first_packets(trace, 100_000, folder) if "dpkt" in found else trace
        found["tshark"] = (3, lambda: _tshark(middle, 100_000 if "dpkt" in found else total))
    if importlib.util.find_spec("nfstream"):
        found["nfstream"] = (3, lambda: _nfstream(trace, total))
    if kitsune_py is not None:
        found["kitsune_py"] = (0, lambda: _kitsune_py(kitsune_py, trace))  # minutes, without warming up
    for name in ("dpkt", "scapy", "tshark", "nfstream", "kitsune_py"):
        if name not in found:
            print(f"{name}: not installed, left out", file=sys.stderr)
    return found


def _dpkt(trace: Path, n: int) -> float:
    """Parse every packet down to its transport header."""
    import dpkt

    began = time.perf_counter()
    with trace.open("rb") as file:
        for _, data in dpkt.pcap.UniversalReader(file):
            try:
                dpkt.ethernet.Ethernet(data)
            except dpkt.UnpackError:
                continue
    return n / (time.perf_counter() - began)


def _scapy(trace: Path, n: int) -> float:
    from scapy.layers import inet, inet6, l2  # noqa: F401 -- registers the dissectors
    from scapy.utils import PcapReader

    began = time.perf_counter()
    with PcapReader(str(trace)) as reader:
        for packet in reader:
            packet.getlayer(1)
    return n / (time.perf_counter() - began)


def _tshark(trace: Path, n: int) -> float:
    fields = (
        "frame.time_epoch",
        "frame.len",
        "ip.src",
        "ip.dst",
        "tcp.srcport",
        "tcp.dstport",
        "udp.srcport",
    )
    command = ["tshark", "-n", "-r", str(trace), "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return n / (time.perf_counter() - began)


def _nfstream(trace: Path, n: int) -> float:
    """Flows with packet statistics, no nDPI dissection, one meter."""
    code = (
        "import sys, time\n"
        "from nfstream import NFStreamer\n"
        "if __name__ == '__main__':\n"
        "    t = time.perf_counter()\n"
        "    flows = sum(1 for _ in NFStreamer(sys.argv[1], n_dissections=0, n_meters=1,"
        " statistical_analysis=True))\n"
        "    print(time.perf_counter() - t)\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        out = subprocess.run(
            [sys.executable, script.name, str(trace)], capture_output=True, text=True, check=True
        ).stdout
    return n / float(out.strip().splitlines()[-1])


_KITSUNE = """
import sys, time, types, csv, numpy
sys.modules['pyximport'] = types.SimpleNamespace(install=lambda *a, **k: None)
numpy.Inf = numpy.inf
sys.path.insert(0, sys.argv[1])
import netStat
from KitNET.KitNET import KitNET
rows = list(csv.reader(open(sys.argv[2]), delimiter='\\t'))
stat = netStat.netStat(numpy.nan, 100000000000, 100000000000)
net = KitNET(100, 10, len(rows) // 100, len(rows) // 10 - len(rows) // 100)
for t, size, smac, dmac, s4, d4, ts, td, us, ud, s6, d6 in rows:
    src, dst = s4 or s6, d4 or d6
    kind = 0 if s4 else 1
    sport, dport = ts + us, td + ud
    if not src:
        src, dst, kind, sport, dport = smac, dmac, float('nan'), 'arp', 'arp'
    x = stat.updateGetStats(kind, smac, dmac, src, sport, dst, dport, int(size), float(t))
    net.process(x)
print(len(rows))
"""


def _kitsune_py(folder: Path, trace: Path) -> float:
    """The public code's complete path, as ours: tshark's table, features, learning on a tenth, scores of the rest."""
    fields = (
        "frame.time_epoch", "frame.len", "eth.src", "eth.dst", "ip.src", "ip.dst", "tcp.srcport", "tcp.dstport",
        "udp.srcport", "udp.dstport", "ipv6.src", "ipv6.dst",
    )  # fmt: skip
    command = ["tshark", "-n", "-r", str(trace), "-T", "fields", "-E", "occurrence=f"]
    for field in fields:
        command += ["-e", field]
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile("w+", suffix=".tsv") as table:
        subprocess.run(command, stdout=table, stderr=subprocess.DEVNULL, check=True)
        out = subprocess.run(
            [sys.executable, "-c", _KITSUNE, str(folder), table.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return int(out.strip().splitlines()[-1]) / (time.perf_counter() - began)
