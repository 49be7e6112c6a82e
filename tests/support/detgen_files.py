"""Captures and label files as DetGen names and writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.types import Kind
from probing.imports.detgen import HEADER, Imported, import_folder
from tests.support.capture_bytes import Record, pcap
from tests.support.frames import frame_of

TIME = "2021-03-10_19-13-15"
T0 = 1_615_403_600_000_000_000  # some seconds later
SECOND = 1_000_000_000
CLIENT, SERVER = 10 << 24 | 2, 10 << 24 | 1


def packet(at: int, sport: int = 40000, back: bool = False, flags: int = 2, dport: int = 22) -> Record:
    src, dst = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    ports = {"sport": dport, "dport": sport} if back else {"sport": sport, "dport": dport}
    frame = frame_of({
        "kind": Kind.IPV4, "src_mac": 1, "dst_mac": 2, "src_lo": src, "dst_lo": dst, "proto": 6, "payload": 0,
        "ip_id": 1, "ttl": 64, "seq": 1, "ack": 0, "tcp_flags": flags, "window": 1000, **ports,
    })  # fmt: skip
    return at, frame, len(frame)


def capture(path: Path, *packets: Record) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pcap(packets, magic=0xA1B23C4D))
    return path


def label_file(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in (header, *rows) if line))
    return path


SSH = "1;capture-090-openssh;9;4321;12;8;0.52;0100.23;020.5;0.05;0.012;;2;Filetransfer Client to server with password"


def ssh(folder: Path, *rows: str, name: str = "dump-090-sshd-server-sc2", **options: Any) -> Imported:
    """One capture of an SSH run, with a label file."""
    capture(folder / f"{name}-{TIME}-1.pcap", packet(T0), packet(T0 + 2 * SECOND, back=True, flags=18))
    label_file(folder / f"capture-090-openssh-{TIME}-labels.csv", *(rows or (SSH,)), **options)
    return import_folder(folder)


def host(number: int) -> int:
    """An address of the network that the SQL scenarios' containers share."""
    return 172 << 24 | 16 << 16 | 238 << 8 | number


def spoken(at: int, client: int, server: int, sport: int, dport: int = 80) -> list[Record]:
    """A TCP connection that both sides close; the last ACK comes two seconds after the last FIN."""
    sizes = iter(range(1, 10))
    up, down = {"seq": 100, "ack": 0}, {"seq": 500, "ack": 101}
    steps = [
        (0, up, 2, 0), (1, down, 18, 0), (2, {"seq": 101, "ack": 501}, 16, 0), (3, {"seq": 101, "ack": 501}, 24, 10),
        (4, {"seq": 501, "ack": 111}, 24, 20), (5, {"seq": 111, "ack": 521}, 17, 0),
        (6, {"seq": 521, "ack": 112}, 17, 0), (2006, {"seq": 112, "ack": 522}, 16, 0),
    ]  # fmt: skip
    records = []
    for ms, numbers, flags, payload in steps:
        back = numbers["seq"] >= 500
        ends = (server, client, dport, sport) if back else (client, server, sport, dport)
        frame = frame_of({
            "kind": Kind.IPV4, "src_mac": 1, "dst_mac": 2, "src_lo": ends[0], "dst_lo": ends[1], "proto": 6,
            "payload": payload, "ip_id": next(sizes), "ttl": 64, "tcp_flags": flags, "window": 1000, "sport": ends[2],
            "dport": ends[3], **numbers,
        })  # fmt: skip
        records.append((at + ms * 1_000_000, frame, len(frame)))
    return records


def asked(at: int, client: int, server: int, sport: int, dport: int) -> list[Record]:
    """A UDP datagram and its answer."""
    records = []
    for k, ends in enumerate(((client, server, sport, dport), (server, client, dport, sport))):
        frame = frame_of({
            "kind": Kind.IPV4, "src_mac": 1, "dst_mac": 2, "src_lo": ends[0], "dst_lo": ends[1], "proto": 17,
            "payload": 8, "ip_id": k, "ttl": 64, "sport": ends[2], "dport": ends[3],
        })  # fmt: skip
        records.append((at + k * 1_000_000, frame, len(frame)))
    return records
