"""Label files and packets for tests."""

from __future__ import annotations

import csv
import ipaddress
from pathlib import Path
from typing import Any, NamedTuple

from engine.labels.file import read_labels
from engine.labels.rules import Labels
from engine.types import Packets, empty_packets

T0 = 1_700_000_000_000_000_000
ROW = {
    "src": "10.0.0.1", "sport": "1000", "dst": "10.0.0.2", "dport": "80", "proto": "tcp",
    "start": "1700000000", "end": "1700000010", "task": "http",
}  # fmt: skip


class Packet(NamedTuple):
    """A packet as a label sees it."""

    src: str = "10.0.0.1"
    sport: int = 1000
    dst: str = "10.0.0.2"
    dport: int = 80
    proto: int = 6
    ts: int = T0


def words(text: str) -> tuple[int, int]:
    address = ipaddress.ip_address(text)
    whole = int(address) if address.version == 6 else 0xFFFF << 32 | int(address)
    return whole >> 64, whole & (1 << 64) - 1


def packets(*rows: Packet) -> Packets:
    p = empty_packets(len(rows))
    for i, row in enumerate(rows):
        p.src_hi[i], p.src_lo[i] = words(row.src)
        p.dst_hi[i], p.dst_lo[i] = words(row.dst)
        p.sport[i], p.dport[i], p.proto[i], p.ts[i] = row.sport, row.dport, row.proto, row.ts
    return p


def as_csv(path: Path, *rows: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels(path: Path, *rows: dict[str, Any], **options: Any) -> Labels:
    return read_labels(as_csv(path / "labels.csv", *rows), **options)


def tasks(known: Labels, *rows: Packet) -> list[str]:
    """The label `task` of each packet, - without a probe."""
    return [known.probes[k].get("task", "-") for k in known.tag(packets(*rows)).probe.tolist()]
