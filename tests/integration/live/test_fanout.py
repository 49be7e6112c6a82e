"""Several workers at one interface."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from connectors.live.capture import RingCapture
from connectors.live.settings import CaptureSettings
from engine.headers.decode import decode
from engine.types import Packets, concatenate
from tests.integration.live.ring import of_file
from tests.support.capture_bytes import pcap
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]


def shared(line: Wire, capture: Path, by: str) -> list[Packets]:
    """What two captures of one fanout group get."""

    def work() -> list[Packets]:
        sources = [RingCapture("tap0", CaptureSettings(fanout=77, fanout_by=by)) for _ in range(2)]
        parts: list[list[Packets]] = [[], []]

        def read(k: int) -> None:
            parts[k] += [decode(frames) for frames in sources[k].frames()]

        readers = [threading.Thread(target=read, args=(k,)) for k in range(2)]
        for reader in readers:
            reader.start()
        line.send(capture, "--topspeed")
        time.sleep(0.3)
        for source in sources:
            source.stop()
        for reader in readers:
            reader.join()
        for source in sources:
            source.close()
        return [concatenate(p) for p in parts]

    return line.inside(work)


def keys(p: Packets, *, ports: bool) -> set[Any]:
    """Unordered pairs of the ends of all IP packets."""
    ip = (p.kind & 0x0F) >= 3
    ends = zip(
        *(column[ip].tolist() for column in (p.src_hi, p.src_lo, p.sport, p.dst_hi, p.dst_lo, p.dport))
    )
    found = set()
    for a_hi, a_lo, a_port, b_hi, b_lo, b_port in ends:
        pair = ((a_hi, a_lo, a_port if ports else 0), (b_hi, b_lo, b_port if ports else 0))
        found.add(tuple(sorted(pair)))
    return found


def rows(p: Packets) -> NDArray[Any]:
    """All columns but the time, for comparing as sets."""
    return np.stack([getattr(p, name).astype("u8") for name in Packets._fields if name != "ts"], axis=1)


@pytest.mark.parametrize("by", ["hosts", "hash"])
def test_two_workers_see_each_packet_once_and_each_connection_whole(line: Wire, mixed: Path, by: str) -> None:
    first, second = shared(line, mixed, by)
    wanted = of_file(mixed)
    assert min(first.ts.size, second.ts.size) > 0
    together = np.concatenate([rows(first), rows(second)])
    assert together.shape == rows(wanted).shape
    order, other = np.lexsort(together.T), np.lexsort(rows(wanted).T)
    assert np.array_equal(together[order], rows(wanted)[other])
    assert not keys(first, ports=by == "hash") & keys(second, ports=by == "hash")
    both_ways = {tuple(e) for e in zip(first.src_lo.tolist(), first.dst_lo.tolist())}
    assert any((b, a) in both_ways for a, b in both_ways if a != b)  # the traffic is two-way


def test_fragments_stay_with_the_other_packets_of_their_connection(line: Wire, tmp_path: Path) -> None:
    """They have no ports: a hash of ports would send them elsewhere."""
    frames = []
    ethernet = bytes.fromhex("0200000000020200000000010800")
    for host in range(1, 65):
        for offset in (0, 0x2000, 0x0001):  # a whole datagram, and another in two fragments
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 28, host, offset, 64, 17, 0)
            ip += bytes([10, 1, 0, host, 10, 2, 0, 1])
            frames.append(
                ethernet + ip + struct.pack(">HHHH", 99, 53, 8 if not offset else 16, 0) + bytes(18)
            )
    path = tmp_path / "fragments.pcap"
    path.write_bytes(pcap([(k, frame, len(frame)) for k, frame in enumerate(frames)]))
    torn = []
    for by in ("hosts", "hash"):
        first, second = shared(line, path, by)
        assert first.ts.size + second.ts.size == 192
        assert min(first.ts.size, second.ts.size) > 0
        torn.append(len(keys(first, ports=False) & keys(second, ports=False)))
    assert torn[0] == 0 < torn[1]
