"""Captures at a vantage, from the log of a link."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from probing.lab.link import kernels, tables
from probing.lab.link.link import Bounds, Link
from probing.lab.settings import Link as Setting
from probing.lab.vantage import FULL, HEADERS, PCAP_HEADER, seen, write_pcap
from tests.support.lab_link import ACK, MS, SYN, Bench, Port

pytestmark = pytest.mark.compiled


def release(bench: Bench) -> None:
    """As if the loop had sent all that waits."""
    records = bench.state.records[: bench.state.control[tables.RECORDS]]
    gone = records["verdict"] & tables.DROPPED != 0
    records["out_ts"] = np.where(gone, 0, records["due"] + 1)


def packets(path: Path) -> list[tuple[int, int, int]]:
    """Time, bytes kept, bytes on the wire."""
    data = path.read_bytes()
    assert data[:24] == PCAP_HEADER
    at, found = 24, []
    while at < len(data):
        s, ns, kept, wire = struct.unpack_from("<4I", data, at)
        found.append((s * 10**9 + ns, kept, wire))
        at += 16 + kept
    return found


def test_what_is_lost_is_seen_at_its_senders_side_only(tmp_path: Path) -> None:
    bench = Bench(Setting(delay_ms=10, loss_pct=30))
    for i in range(100):
        bench.put(bench.client, 40_000, 80, ts=(2 * i + 1) * MS, payload=5)
        bench.put(bench.server, 80, 40_000, ts=(2 * i + 2) * MS, payload=7)
    release(bench)
    log = bench.link.log()
    records = bench.state.records[:200]
    lost = (records["verdict"] & tables.LOST) != 0
    up = records["origin"] == 1
    sides = {side: len(packets_of(bench, side, tmp_path)) for side in ("client", "server")}
    assert sides == {"client": 200 - int((lost & ~up).sum()), "server": 200 - int((lost & up).sum())}
    for side, here in (("client", up), ("server", ~up)):
        number, ts, outgoing = seen(log, side)
        assert (np.diff(ts) >= 0).all()
        epoch = bench.link.epoch_ns(0)
        assert (outgoing == here[number]).all()
        wanted = np.where(here[number], records["in_ts"][number], records["out_ts"][number]) + epoch
        assert (ts == wanted).all()


def packets_of(bench: Bench, side: str, folder: Path) -> list[tuple[int, int, int]]:
    """What is written for a vantage."""
    path = folder / f"{side}.pcap"
    n = write_pcap(path, bench.link.log(), side)
    found = packets(path)
    assert len(found) == n
    return found


def test_copies_are_seen_where_they_arrive(tmp_path: Path) -> None:
    bench = Bench(Setting(duplicate_pct=100))
    bench.put(bench.server, 80, 40_000, payload=5)
    release(bench)
    assert len(packets_of(bench, "server", tmp_path)) == 1
    assert len(packets_of(bench, "client", tmp_path)) == 2


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"flags": SYN}, 54),
        ({"flags": ACK, "payload": 100}, 54),
        ({"proto": 17, "payload": 100}, 42),
        ({"proto": 17, "payload": 0}, 42),
    ],
)
def test_frames_are_cut_behind_their_headers_and_their_length_is_kept(
    tmp_path: Path, more: dict[str, int], headers: int
) -> None:
    bench = Bench(Setting())
    record = bench.put(bench.client, 40_000, 80, **more)
    release(bench)
    for snap, kept in (
        (HEADERS, headers),
        (60, min(60, int(record["length"]))),
        (FULL, int(record["length"])),
    ):
        write_pcap(tmp_path / "x.pcap", bench.link.log(), "client", snap)
        assert [p[1:] for p in packets(tmp_path / "x.pcap")] == [(kept, int(record["length"]))]


def test_a_frame_for_all_is_seen_once() -> None:
    ports = [Port(1, False), Port(10, True), Port(11, True)]
    link = Link(ports, [Setting()] * 3, 1, Bounds(1 << 24, 1 << 17))  # type: ignore[arg-type]
    state = link._state
    frame = b"\xff" * 6 + ports[0].mac + b"\x08\x06" + bytes(46)
    state.store[: len(frame)] = np.frombuffer(frame, np.uint8)
    assert kernels.decide(state, 0, len(frame), 1, 0) == 2
    state.records["out_ts"][:2] = 2
    log = link.log()
    assert log.records["target"].tolist() == [1, 2]
    for vantage in ("client", "server"):
        number, _, outgoing = seen(log, vantage)
        assert number.tolist() == [0]
        assert outgoing.tolist() == [vantage == "server"]
