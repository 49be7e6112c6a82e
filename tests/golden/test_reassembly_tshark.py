"""Bytes that the policy ``stream`` lets through against tshark's own reassembly (``-z follow,tcp,raw``), by direction.

``follow`` shows captured bytes only: where a file's packets were cut short, the union of the sequence ranges that
tshark's fields give takes its place. Both directions of all connections between the same two ends are added up: tshark
and we do not begin a new connection at the same SYN everywhere.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from connectors.files.pcap import CaptureFile
from connectors.files.window import CaptureError
from engine.connections.tracker import Tracker
from engine.features.tokens import LOG_PAYLOAD, TokenConfig, Tokens
from engine.headers.cursor import TUNNELS
from engine.headers.decode import DecodeConfig, decode
from engine.scoring.detector import slots_needed
from engine.scoring.token_pass import TokenPass
from engine.types import Packets, concatenate
from tests.support.captures import CAPTURES, capture_files, needs_captures
from tests.support.token_runs import steps

pytestmark = [
    needs_captures, pytest.mark.captures, pytest.mark.compiled,
    pytest.mark.skipif(not shutil.which("tshark"), reason="no tshark"),
]  # fmt: skip

Way = tuple[str, int, str, int]  # sender's address and port, receiver's
MISSING = re.compile(rb"\[\d+ bytes missing in capture file\]\.?\0?")  # tshark's text in place of them
FIELDS = (
    "tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport", "frame.len",
    "frame.cap_len", "tcp.seq", "tcp.len", "tcp.flags.reset",
)  # fmt: skip

_PADDING = (
    "frames whose padding IP counts as payload: tshark takes bytes of a RST, and those at a FIN's number, too"
)
_AGAIN = "sent again after our connection had timed out: a new one begins, and its bytes count again"
_FRAGMENTS = "in fragments of IP, of which tshark assembles packets and we do not"
_TEREDO = "tshark takes no TCP in Teredo here for a stream"
_GIGABYTES = "the capture lost gigabytes; the first segments behind each loss are not trusted (OUT_OF_WINDOW)"

# (file, direction) -> why it differs
REASONS = {
    ("conn/ndpi__android.pcap", "17.248.176.75 443 > 192.168.2.17 50580"): _AGAIN,
    ("conn/ndpi__android.pcap", "17.248.176.75 443 > 192.168.2.17 50584"): _AGAIN,
    ("conn/ndpi__android.pcap", "17.248.185.10 443 > 192.168.2.17 50702"): _AGAIN,
    ("conn/zeek__tcp_retransmit-timeout.pcapng", "10.0.0.1 51889 > 192.168.0.1 80"): _AGAIN,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "194.226.199.103 62580 > 217.69.139.59 443"): _PADDING,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "194.226.199.226 34101 > 8.247.226.126 80"): _PADDING,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "194.226.199.61 27453 > 35.241.9.150 443"): _PADDING,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "194.226.199.9 49756 > 92.223.106.21 443"): _PADDING,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "35.241.9.150 443 > 194.226.199.61 27453"): _PADDING,
    ("conn/ndpi__heuristic_tcp_ack_payload.pcap", "52.18.127.189 443 > 194.226.199.21 58155"): _PADDING,
    ("conn/zeek__ftp_bigtransfer.pcap", "192.168.56.101 37150 > 192.168.56.1 59764"): _GIGABYTES,
    (
        "conn/zeek__tunnels_gtp_gtp1_gn_normal_incl_fragmentation.pcap",
        "10.131.47.185 1923 > 79.101.110.141 80",
    ): _FRAGMENTS,
    (
        "conn/zeek__tunnels_gtp_gtp1_gn_normal_incl_fragmentation.pcap",
        "79.101.110.141 80 > 10.131.47.185 1923",
    ): _FRAGMENTS,
    (
        "conn/zeek__tunnels_teredo_bubble_with_payload.pcap",
        "2001:0:4137:9e50:8000:f12a:b9c8:2815 1286 > 2001:4860:0:2001::68 80",
    ): _TEREDO,
    (
        "conn/zeek__tunnels_teredo_bubble_with_payload.pcap",
        "2001:4860:0:2001::68 80 > 2001:0:4137:9e50:8000:f12a:b9c8:2815 1286",
    ): _TEREDO,
}


def tshark(file: Path, *options: str) -> str:
    return subprocess.run(
        ["tshark", "-n", "-o", "tcp.relative_sequence_numbers:TRUE", "-r", str(file), *options],
        capture_output=True, check=False, timeout=300,
    ).stdout.decode(errors="replace")  # fmt: skip


def rows_of(file: Path) -> list[list[str]]:
    """FIELDS of the innermost TCP segment of each frame."""
    options = [word for name in FIELDS for word in ("-e", name)]
    text = tshark(file, "-Y", "tcp", "-T", "fields", "-E", "occurrence=l", *options)
    return [line.split("\t") for line in text.splitlines() if line.split("\t")[0]]


def way_of(row: list[str]) -> Way:
    """Who sends to whom."""
    return row[1] or row[2], int(row[3] or 0), row[4] or row[5], int(row[6] or 0)


def by_ranges(rows: list[list[str]]) -> dict[Way, int]:
    """Bytes of each direction that some segment held."""
    held: dict[tuple[Way, str], set[int]] = defaultdict(set)
    for row in rows:
        if row[10] and row[9] and row[11] not in ("1", "True"):
            held[way_of(row), row[0]] |= set(range(int(row[9]), int(row[9]) + int(row[10])))
    out: dict[Way, int] = defaultdict(int)
    for (way, _), numbers in held.items():
        out[way] += len(numbers)
    return out


def by_following(file: Path, rows: list[list[str]]) -> dict[Way, int]:
    """Bytes of each direction in tshark's reassembled streams."""
    streams = sorted({int(row[0]) for row in rows})
    text = tshark(file, "-q", *(word for n in streams for word in ("-z", f"follow,tcp,raw,{n}")))
    out: dict[Way, int] = defaultdict(int)
    nodes = [("", 0), ("", 0)]
    for line in text.splitlines():
        if found := re.match(r"Node ([01]): (.*):(\d+)$", line):
            nodes[int(found[1])] = (found[2].strip("[]"), int(found[3]))
        elif re.fullmatch(r"\t?([0-9a-f]{2})+", line):
            data, side = bytes.fromhex(line.strip()), int(line.startswith("\t"))
            out[*nodes[side], *nodes[1 - side]] += len(MISSING.sub(b"", data))
    return out


def theirs(file: Path) -> dict[Way, int]:
    rows = rows_of(file)
    if any(row[7] != row[8] for row in rows):
        return by_ranges(rows)
    return by_following(file, rows)


def packets_of(file: Path) -> Packets:
    parts = []
    with CaptureFile(file) as capture:
        try:
            for frames in capture:
                parts.append(decode(frames, DecodeConfig(tunnels=tuple(sorted(TUNNELS)))))
        except CaptureError:
            pass
    return concatenate(parts)


def address(high: np.uint64, low: np.uint64) -> str:
    one = ipaddress.IPv6Address(int(high) << 64 | int(low))
    return str(one.ipv4_mapped or one)


def ours(file: Path) -> dict[Way, int]:
    """Sum of the payloads of tokens by direction."""
    p = packets_of(file)
    config = TokenConfig(patience=3600)
    tracker = Tracker()
    one = TokenPass(config, None, slots_needed(tracker.config))
    out: dict[Way, int] = defaultdict(int)

    def add(tokens: Tokens) -> None:
        for m, i in enumerate(tokens.number.tolist()):
            at = np.flatnonzero(tokens.rows[m] == LOG_PAYLOAD)
            end = np.flatnonzero(tokens.rows[m] < 0)
            if at.size and (not end.size or at[0] < end[0]):
                ends = address(p.src_hi[i], p.src_lo[i]), address(p.dst_hi[i], p.dst_lo[i])
                way = ends[0], int(p.sport[i]), ends[1], int(p.dport[i])
                out[way] += round(2 ** (16 * float(tokens.values[m, at[0]])))

    assert not p.ts.size or p.payload.max() < 65535
    for part, t in steps(tracker, p):
        add(one.update(part, t))
    for slots in tracker.flush():
        add(one.close(slots))
    return out


def differences(file: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """(file, direction) -> tshark's bytes and ours, where they differ."""
    a, b = theirs(file), ours(file)
    name = str(file.relative_to(CAPTURES))
    return {
        (name, f"{way[0]} {way[1]} > {way[2]} {way[3]}"): (a.get(way, 0), b.get(way, 0))
        for way in sorted(a.keys() | b.keys())
        if a.get(way, 0) != b.get(way, 0)
    }


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], tuple[int, int]]:
    out: dict[tuple[str, str], tuple[int, int]] = {}
    for file in capture_files("conn"):
        out |= differences(file)
    return out


def test_every_direction_has_tsharks_bytes_or_a_reason(found: dict[tuple[str, str], tuple[int, int]]) -> None:
    assert {key: sizes for key, sizes in found.items() if key not in REASONS} == {}


def test_every_reason_is_needed(found: dict[tuple[str, str], tuple[int, int]]) -> None:
    assert REASONS.keys() - found.keys() == set()
