"""Labels of a recorded capture: its connections, joined with the clients' own log.

`connections` reads headers only: the flow keys are in the first bytes of every frame. A connection belongs to
the activity during which its originator sent its first packet; a host does one thing at a time.
"""

import csv
import ipaddress
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

PCAP_NS_LITTLE = 0xA1B23C4D
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}
SERVICES = {80: ("http", "nginx"), 53: ("dns", "dnsmasq"), 22: ("ssh", "sshd")}
COLUMNS = (
    "src",
    "sport",
    "dst",
    "dport",
    "proto",
    "start",
    "end",
    "task",
    "activity",
    "client",
    "server",
    "attack",
)


@dataclass
class Connection:
    """One connection, originator first. Times in ns since the epoch; an echo's identifier is its port."""

    src: str
    sport: int
    dst: str
    dport: int
    proto: int
    start: int
    end: int
    packets: int = 0
    first: int = 0  # place of its first packet in the capture, from 0


@dataclass(frozen=True)
class Span:
    """One activity of one host, as its client logged it. Times in ns since the epoch."""

    host: str
    start: int
    end: int
    activity: str
    client: str
    attack: int
    ok: bool


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Time in ns and captured bytes of each frame of a little-endian nanosecond pcap."""
    raw = path.read_bytes()
    if struct.unpack_from("<I", raw)[0] != PCAP_NS_LITTLE:
        raise ValueError(f"{path}: not a little-endian nanosecond pcap")
    at = 24
    while at < len(raw):
        seconds, nanoseconds, captured, _ = struct.unpack_from("<IIII", raw, at)
        at += 16
        yield seconds * 1_000_000_000 + nanoseconds, raw[at : at + captured]
        at += captured


def sort(path: Path) -> int:
    """Put a capture's packets in order of their times; returns how many stood before an earlier one.

    Two processors hand packets to the listener, so neighbours may come microseconds out of order.
    """
    raw = path.read_bytes()
    records, at = [], 24
    while at < len(raw):
        seconds, nanoseconds, captured, _ = struct.unpack_from("<IIII", raw, at)
        records.append((seconds, nanoseconds, raw[at : at + 16 + captured]))
        at += 16 + captured
    late = sum(b[:2] < a[:2] for a, b in pairwise(records))
    records.sort(key=lambda record: record[:2])
    path.write_bytes(raw[:24] + b"".join(record[2] for record in records))
    return late


def flow_key(frame: bytes) -> tuple[str, int, str, int, int] | None:
    """src, sport, dst, dport, protocol of an Ethernet frame; None when it carries no IP."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == 0x0800:
        at, proto = 14 + 4 * (frame[14] & 0x0F), frame[23]
        src, dst = frame[26:30], frame[30:34]
    elif kind == 0x86DD:
        at, proto = 54, frame[20]
        src, dst = frame[22:38], frame[38:54]
    else:
        return None
    if proto in (TCP, UDP):
        sport, dport = struct.unpack_from(">HH", frame, at)
    else:
        sport = dport = struct.unpack_from(">H", frame, at + 4)[0]
    return str(ipaddress.ip_address(src)), sport, str(ipaddress.ip_address(dst)), dport, proto


def connections(path: Path) -> list[Connection]:
    """The capture's connections in order of their first packets. No port is used twice in so short a time."""
    table: dict[tuple[str, int, str, int, int], Connection] = {}
    for i, (ts, frame) in enumerate(frames(path)):
        key = flow_key(frame)
        if key is None:
            continue
        src, sport, dst, dport, proto = key
        found = table.get(key) or table.get((dst, dport, src, sport, proto))
        if found is None:
            found = table[key] = Connection(src, sport, dst, dport, proto, ts, ts, first=i)
        found.end = max(found.end, ts)
        found.packets += 1
    return list(table.values())


def spans(folder: Path) -> list[Span]:
    """All clients' logs."""
    lines = (line for log in sorted(folder.glob("*.log")) for line in log.read_text().splitlines())
    return [Span(**json.loads(line)) for line in lines]


def labels_of(connection: Connection, span: Span) -> dict[str, str | int]:
    """The label columns of a connection opened during `span`."""
    if span.activity == "port-scan":
        return {
            "task": "scan",
            "activity": span.activity,
            "client": span.client,
            "server": "linux",
            "attack": 1,
        }
    activity, client = span.activity, span.client
    task, server = SERVICES.get(connection.dport, ("ping", "linux"))
    if task == "dns" and client != "dig":  # the name behind a page or a login
        activity, client = "lookup", "glibc"
    return {"task": task, "activity": activity, "client": client, "server": server, "attack": span.attack}


def join(
    found: Iterable[Connection], logged: Iterable[Span], host_of: dict[str, str]
) -> tuple[list[tuple[Connection, dict[str, str | int]]], list[Connection]]:
    """Labelled connections, and those that nobody logged."""
    by_host: dict[str, list[Span]] = {}
    for span in logged:
        by_host.setdefault(span.host, []).append(span)
    labelled: list[tuple[Connection, dict[str, str | int]]] = []
    unknown: list[Connection] = []
    for connection in found:
        mine = by_host.get(host_of.get(connection.src, ""), [])
        during = [span for span in mine if span.start <= connection.start <= span.end]
        if during:
            labelled.append((connection, labels_of(connection, during[0])))
        else:
            unknown.append(connection)
    return labelled, unknown


def seconds(ts: int) -> str:
    """Epoch seconds with nine decimals; a float would lose the last two."""
    return f"{ts // 1_000_000_000}.{ts % 1_000_000_000:09d}"


def write(path: Path, labelled: Iterable[tuple[Connection, dict[str, str | int]]]) -> None:
    """The labels file: a row a connection. ICMP has no ports, so its rows leave them empty."""
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        rows.writeheader()
        for connection, labels in labelled:
            ports = connection.proto in (TCP, UDP)
            rows.writerow(
                {
                    "src": connection.src,
                    "sport": connection.sport if ports else "",
                    "dst": connection.dst,
                    "dport": connection.dport if ports else "",
                    "proto": NAMES[connection.proto],
                    "start": seconds(connection.start),
                    "end": seconds(connection.end),
                    **labels,
                }
            )


def summary(labelled: Iterable[tuple[Connection, dict[str, str | int]]]) -> str:
    """Connections and packets by activity, as a Markdown table."""
    counts: Counter[tuple[str, ...]] = Counter()
    packets: Counter[tuple[str, ...]] = Counter()
    for connection, labels in labelled:
        key = tuple(str(labels[name]) for name in ("task", "activity", "client", "server", "attack"))
        counts[key] += 1
        packets[key] += connection.packets
    lines = [
        "| task | activity | client | server | attack | connections | packets |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in sorted(counts, key=lambda k: (k[-1], k)):
        lines.append("| " + " | ".join(key) + f" | {counts[key]:,} | {packets[key]:,} |")
    return "\n".join(lines)
