"""The traffic that the evaluations read: captures of other people, found by WIRESONDE_CAPTURES, and our own corpora."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.detection.features import connections_of
from benchmarks.detection.streams import coded, part, read
from engine.connections.layout import SIDE
from engine.connections.record import connection_table
from engine.types import Packets, take
from probing.corpus.corpus import read_corpus
from probing.corpus.join import join

ROOT = Path(__file__).parents[2]
CAPTURES = Path(os.environ.get("WIRESONDE_CAPTURES", ROOT.parent / "shared" / "captures"))
CORPORA, DEMO = ROOT / "corpora", ROOT / "demo" / "demo.pcap.zst"
DEMO_BENIGN = 16_329  # packets of the demo before its attacks (demo/README.md)

BENIGN_LAB = "kitsune/jsu__mirai_small.pcap.gz"
ATTACK_LAB = "kitsune/trafficmanipulator__mirai_attack_1_4000.pcap"
INFECTED = 0xFFFF << 32 | 0xC0_A8_02_6E  # 192.168.2.110

Pair = tuple[int, int]  # two IPv4 addresses


@dataclass(frozen=True)
class Source:
    """Traffic to merge into a base."""

    name: str
    kind: str  # kind of attack; benign: a control
    file: str  # below the captures; empty: of our own corpora
    pair: Pair | None = None  # the only hosts whose packets are taken

    @property
    def control(self) -> bool:
        """Whether it is benign."""
        return self.kind == "benign"


VALIDATION = (  # attacks with which the single feature is chosen
    Source("hydra", "guessing", "attack/dataset__hydra-1_tasks.pcap"),
    Source("synscan", "scan", "attack/ndpi__synscan.pcap"),
    Source("dns-exfiltration", "tunnel", "attack/ndpi__dns_exfiltration.pcap"),
)
ATTACKS = (  # attacks of the test
    Source("medusa", "guessing", "attack/dataset__medusa-1_tasks.pcap.gz"),
    Source("ncrack, slow", "guessing", "attack/dataset__ncrack-paranoid.pcap"),
    Source("nmap ssh-brute", "guessing", "attack/slips__malicious-ssh-bruteforce.pcap"),
    Source("nmap", "scan", "attack/kdd99-spark-ml__nmap.pcap", (0xC0_A8_2A_80, 0x7D_D4_F7_AF)),
    Source("tcp scan, slow", "scan", "attack/ndpi__tcp_scan.pcapng"),
    Source("icmp scan", "scan", "attack/slips__test12-icmp-portscan.pcap"),
    Source("iodine", "tunnel", "attack/ndpi__dns-tunnel-iodine.pcap"),
    Source("Tinba", "command and control", "attack/ustc__Tinba.pcap.gz"),
    Source("C&C over TLS", "command and control", "attack/slips__test-cc-capture-1.pcap"),
    Source("SQL injection", "web", "attack/ndpi__WebattackSQLinj.pcap"),
    Source("log4j", "web", "attack/ndpi__log4j-webapp-exploit.pcap"),
)
CONTROLS = (  # benign traffic of other hosts
    Source("browsing", "benign", "attack/kdd99-spark-ml__normal.pcap"),
    Source("Firefox", "benign", "conn/ndpi__443-firefox.pcap"),
    Source("FTP", "benign", "conn/ndpi__ftp.pcap"),
    Source("HTTP over IPv6", "benign", "conn/ndpi__http_ipv6.pcap"),
    Source("Android", "benign", "conn/ndpi__android.pcap"),
    Source("SMTP", "benign", "conn/ndpi__smtp.pcap"),
    Source("Telnet", "benign", "conn/ndpi__telnet.pcap"),
)
OWN_CONTROLS = ("web", "ssh", "sql", "dns", "ftp", "smtp")  # tasks of corpora/normal


def missing(*files: str) -> str | None:
    """Why captures cannot be read; None if all are there."""
    lacks = [file for file in files if file and not (CAPTURES / file).is_file()]
    return f"no {lacks[0]} in WIRESONDE_CAPTURES" if lacks else None


def benign_lab() -> Packets:
    """The benign beginning of the Mirai capture."""
    return coded(read(CAPTURES / BENIGN_LAB), 0)


def attack_lab() -> Packets:
    """Packets of its attack phase."""
    return coded(read(CAPTURES / ATTACK_LAB), 0)


def demo() -> Packets:
    """The benign part of the demo."""
    return coded(take(read(DEMO), slice(0, DEMO_BENIGN)), 0)


def packets_of(source: Source) -> Packets:
    """The packets of a source."""
    p = read(CAPTURES / source.file)
    if source.pair is None:
        return p
    wanted = np.array([0xFFFF << 32 | address for address in source.pair], np.uint64)
    return take(p, np.isin(p.src_lo, wanted) & np.isin(p.dst_lo, wanted) & (p.src_hi == 0) & (p.dst_hi == 0))


def own_controls() -> Iterator[tuple[Source, Packets]]:
    """Packets of each task of corpora/normal, and some of the demo."""
    corpus = Corpus.load("normal")
    tasks = np.array([None, *corpus.labels.column("task").to_pylist()])
    for task in OWN_CONTROLS:
        chosen = np.flatnonzero(tasks[corpus.packets.probe] == task)
        if chosen.size:
            yield Source(f"lab: {task}", "benign", ""), take(corpus.packets, chosen)
    yield Source("demo", "benign", ""), part(demo(), 0.7, 1.0)


@dataclass(frozen=True)
class Corpus:
    """A corpus; each packet's probe id is its label row's index and 1, 0 without a row."""

    packets: Packets
    labels: pa.Table

    @classmethod
    def load(cls, name: str) -> Corpus:
        """A corpus of this project."""
        corpus = read_corpus(CORPORA / name)
        p = read(corpus.capture)
        of, rows = connections_of(p)
        table = connection_table(rows, np.zeros((rows.size, 2), SIDE))
        row = join(corpus.labels, table)
        return cls(coded(p, np.where(of >= 0, row[of] + 1, 0)), corpus.labels)

    @property
    def runs(self) -> NDArray[np.int64]:
        """(rows + 1,) run of each code; -1: none."""
        names = self.labels.column("run").to_pylist()
        number = {name: k for k, name in enumerate(dict.fromkeys(names))}
        return np.array([-1, *(number[name] for name in names)], np.int64)

    def codes(self, column: str, *values: object) -> frozenset[int]:
        """Codes of the rows with one of these values."""
        given = self.labels.column(column).to_pylist()
        return frozenset(k + 1 for k, value in enumerate(given) if value in values)
