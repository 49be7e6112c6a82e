"""Small corpora for tests: synthetic connections with the lab's labels, clean unless a smell is planted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zstandard
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from engine.types import ACK, FIN, KIND_TRANSPORT, SYN, Kind
from probing.lab import labels
from tests.support.capture_bytes import Record, pcap
from tests.support.corpora import ROW
from tests.support.frames import frame_of

T0 = 1_700_000_000_000_000_000
MS, SECOND = 1_000_000, 1_000_000_000
PSH = 8
V4 = 0xFFFF << 32
SERVER = 0x0A000001  # 10.0.0.1
NANOSECONDS = 0xA1B23C4D


@dataclass
class Exchange:
    """A TCP connection to be written: the payloads of its packets, upwards if positive."""

    start: int
    client: int = 0x0A00000A
    sport: int = 40000
    payloads: list[int] = field(default_factory=lambda: [300, -900])
    delay_ms: float = 10.0
    ttl: int = 64
    jitter: Callable[[], float] = lambda: 1.0
    server: int = SERVER

    def packets(self) -> list[Record]:
        """Its frames, cut behind their headers, in order of time."""
        now, out = self.start, []
        seq, ids = [1, 1], [7, 9]

        def send(up: bool, flags: int, payload: int = 0) -> None:
            nonlocal now
            ends = ((V4 | self.client, self.sport), (V4 | self.server, 80))
            macs = (0x02 << 40 | self.client & 0xFFFFFF, 0x06 << 40 | self.server & 0xFFFFFF)
            (src, sport), (dst, dport) = ends if up else ends[::-1]
            mine = 0 if up else 1
            ids[mine] += 1
            row = {
                "kind": Kind.IPV4 | KIND_TRANSPORT, "src_lo": src, "dst_lo": dst, "sport": sport, "dport": dport,
                "src_mac": macs[not up], "dst_mac": macs[up], "proto": 6,
                "ttl": self.ttl if up else 64, "tcp_flags": flags, "seq": seq[mine], "ack": seq[1 - mine],
                "payload": payload, "window": 1000, "ip_id": ids[mine],
            }  # fmt: skip
            frame = frame_of(row)
            out.append((now, frame, len(frame) + payload))
            seq[mine] += payload + (1 if flags & (SYN | FIN) else 0)
            now += max(1, round(self.delay_ms * MS * self.jitter()))

        send(True, SYN)
        send(False, SYN | ACK)
        send(True, ACK)
        for payload in self.payloads:
            send(payload > 0, ACK | PSH, abs(payload))
        for up in (True, False):
            send(up, FIN | ACK)
        send(True, ACK)
        return out


Entry = tuple[Exchange, dict[str, Any]]  # a connection, and its labels beside ROW


def entries(
    runs: int, seed: int, each: int = 5, first: int = 0, exchanges: int = 6, **given: Any
) -> list[Entry]:
    """Connections of runs, with sizes and times that are drawn by the same law whatever their labels."""
    rng = np.random.default_rng(seed)
    found: list[Entry] = []
    for run in range(first, first + runs):
        delay = float(rng.choice([5, 10, 20]))
        for sample in range(each):
            payloads = []
            for _ in range(int(rng.integers(3, exchanges + 1))):
                payloads += [int(rng.integers(100, 1400)), -int(rng.integers(100, 1400))]
            exchange = Exchange(
                T0 + (run * 100 + sample * 10) * SECOND, 0x0A00000A + run, 40000 + sample, payloads, delay,
                jitter=lambda: float(rng.uniform(0.5, 1.5)),
            )  # fmt: skip
            row = {"run": f"{run:03d}-run", "sample": sample, "delay_ms": delay, "succeeded": True} | given
            found.append((exchange, row))
    return found


ATTACK: dict[str, Any] = {
    "attack": 1,
    "attack_kind": "injection",
    "activity": "union",
    "scenario": "injection",
}


def clean(runs: int = 10, each: int = 5, seed: int = 1, **given: Any) -> list[Entry]:
    """A corpus without a smell: attacks and benign connections of one law, in as many runs each."""
    attacks = entries(runs, seed, each, **{**ATTACK, **given})
    return attacks + entries(runs, seed + 1000, each, first=runs, **given)


def apart(made: list[Entry]) -> list[Entry]:
    """Each run with a server of its own, as in the lab."""
    for exchange, row in made:
        exchange.server = SERVER + 256 * int(row["run"][:3])
        row["dst"] = ".".join(str(byte) for byte in exchange.server.to_bytes(4, "big"))
    return made


def whole(record: Record) -> Record:
    """A frame that was cut behind its headers, with its payload and checksums."""
    ts, frame, wire = record
    packet = Ether(frame + b"x" * (wire - len(frame)))
    del packet[IP].chksum, packet[TCP].chksum
    return ts, bytes(packet), wire


def write(folder: Path, made: Sequence[Entry], name: str = "made", *, intact: bool = False) -> Path:
    """The files of a corpus; returns FOLDER/NAME. intact: frames have their payload and valid checksums."""
    records: list[Record] = []
    rows = []
    for exchange, given in made:
        packets = exchange.packets()
        records += packets
        rows.append(
            ROW
            | {
                "src": _text(exchange.client),
                "sport": exchange.sport,
                "start": packets[0][0],
                "end": packets[-1][0],
            }
            | given
        )
    records.sort(key=lambda record: record[0])
    if intact:
        records = [whole(record) for record in records]
    folder.mkdir(exist_ok=True)
    data = zstandard.compress(pcap(records, magic=NANOSECONDS))
    (folder / f"{name}.pcap.zst").write_bytes(data)
    pq.write_table(labels.table(rows), folder / f"{name}.labels.parquet")
    manifest = {
        "format": 1, "name": name, "seed": 1, "snap": "headers", "link": "user", "connections": len(rows),
        "captures": {"client": {"file": f"{name}.pcap.zst", "packets": len(records), "sha256": ""}},
        "labels": f"{name}.labels.parquet", "runs": [],
    }  # fmt: skip
    (folder / f"{name}.manifest.json").write_text(json.dumps(manifest))
    return folder / name


def _text(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))
