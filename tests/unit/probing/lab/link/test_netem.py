"""What the kernel's netem is told, and how frames are recognised behind its queues."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from probing.lab.errors import LabError
from probing.lab.link import netem, tables
from probing.lab.link import relay as relay_kernels
from probing.lab.link.link import Bounds
from probing.lab.settings import Link
from probing.lab.vantage import seen
from tests.support.lab_link import Port


@pytest.mark.parametrize(
    ("setting", "towards", "words"),
    [
        ({}, "client", "netem limit 10000"),
        ({"delay_ms": 10}, "server", "netem limit 10000 delay 10ms"),
        ({"delay_ms": 10, "jitter_ms": 2.5}, "client", "netem limit 10000 delay 10ms 2.5ms distribution normal"),
        ({"delay_ms": 10, "jitter_ms": 2, "distribution": "uniform"}, "client", "netem limit 10000 delay 10ms 2ms"),
        (
            {"delay_ms": 1, "loss_pct": 1, "corrupt_pct": 2, "duplicate_pct": 3, "reorder_pct": 4},
            "client", "netem limit 10000 delay 1ms loss 1% corrupt 2% duplicate 3% reorder 4%",
        ),
        ({"delay_ms": 1, "loss_pct": 1, "impaired": "client"}, "server", "netem limit 10000 delay 1ms"),
        ({"delay_ms": 1, "loss_pct": 1, "impaired": "client"}, "client", "netem limit 10000 delay 1ms loss 1%"),
        (
            {"burst_loss_pct": 2, "burst_packets": 4}, "client",
            "netem limit 10000 loss gemodel 0.510204% 25%",
        ),
        ({"rate_kbit": 500, "queue_packets": 20}, "client", "netem limit 20 rate 500kbit"),
    ],
)  # fmt: skip
def test_a_setting_in_the_words_of_tc(setting: dict[str, object], towards: str, words: str) -> None:
    assert " ".join(netem.words(Link.model_validate(setting), towards)) == words


def test_what_the_delay_holds_takes_no_room_from_what_waits_for_the_rate() -> None:
    words = netem.words(Link(delay_ms=10, rate_kbit=8000, queue_packets=20), "client")
    assert words[:3] == ["netem", "limit", "27"]  # 10 kB: seven frames


def test_what_netem_cannot_do_is_refused() -> None:
    for setting, key in (
        ({"ordered_jitter_ms": 1}, "ordered_jitter_ms"),
        ({"outage_every_ms": 1, "outage_ms": 1}, "outage_every_ms"),
        ({"rate_kbit": 1, "queue_discipline": "codel"}, "queue_discipline"),
        ({"rate_kbit": 1, "cross_kbit": 1}, "cross_kbit"),
        ({"segmentation_offload": "on"}, "segmentation_offload"),
        ({"loss_pct": 1, "burst_loss_pct": 1, "burst_packets": 2}, "burst_loss_pct with loss_pct"),
    ):
        with pytest.raises(LabError, match=f"link.{key}: .*use --link user"):
            netem.words(Link.model_validate(setting), "client")


class Silent(Port):
    """A host without a network namespace: no queues are made for it."""

    def in_thread(self, work: Callable[[], None]) -> None:
        """Do nothing."""


class Bench:
    """A server, a client and their relay; what the kernel's queues would do is done by hand."""

    def __init__(self, sink: int, **setting: Any) -> None:
        self.server, self.client = Silent(1, False, sink), Silent(10, True, sink)
        hosts: Any = [self.server, self.client]
        self.link = netem.NetemLink(hosts, [Link(), Link(**setting)], 1, Bounds(1 << 16, 64))
        self.state, self.lines = self.link._state, self.link._lines
        self.lines.into[1] = sink

    def frame(self, number: int) -> bytes:
        """A TCP segment of the client's with 100 bytes of payload."""
        tcp = struct.pack(">HHIIBBHHH", 40_000, 80, number, 0, 5 << 4, 16, 1000, 0, 0) + b"x" * 100
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), number, 0, 64, 6, 0)
        return (
            self.server.mac
            + self.client.mac
            + b"\x08\x00"
            + ip
            + self.client.address
            + self.server.address
            + tcp
        )

    def put(self, frame: bytes, ts: int) -> bytes:
        """A frame from the client goes into its queue."""
        base = self._keep(frame)
        relay_kernels.enter(self.state, self.lines, base, 1, len(frame), ts)
        return frame

    def take(self, frame: bytes, ts: int) -> None:
        """A frame comes out of the client's queue towards the server."""
        base = self._keep(frame)
        relay_kernels.leave(self.state, self.lines, base, 1, 0, len(frame), ts)

    def _keep(self, frame: bytes) -> int:
        used = int(self.state.control[tables.USED])
        self.state.store[used : used + len(frame)] = np.frombuffer(frame, np.uint8)
        return self.state.store.ctypes.data

    def counts(self, *names: str) -> list[int]:
        """Of the client's packets in its one connection."""
        (flow,) = self.link.log().flows
        assert not any(flow[name][1] for name in names)
        return [int(flow[name][0]) for name in names]


@pytest.fixture
def sink() -> Iterator[int]:
    """A file that takes whatever is written."""
    fd = os.open(os.devnull, os.O_WRONLY)
    yield fd
    os.close(fd)


def flipped(frame: bytes, at: int) -> bytes:
    """A frame with the lowest bit of a byte turned over."""
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


@pytest.mark.compiled
def test_what_never_came_out_was_lost(sink: int) -> None:
    bench = Bench(sink)
    first, _, third = (bench.put(bench.frame(k), k) for k in (1, 2, 3))
    bench.take(third, 5)
    bench.take(first, 6)
    log = bench.link.log()
    assert log.records["verdict"].tolist() == [0, tables.LOST, 0]
    assert (log.records["out_ts"] - bench.link.epoch_ns(0))[[0, 2]].tolist() == [6, 5]
    assert log.records["out_ts"][1] == 0
    assert bench.counts("packets", "lost", "lost_data", "reordered") == [3, 1, 1, 1]


@pytest.mark.compiled
@pytest.mark.parametrize(
    "at", [0, 11, 13, 14, 29, 37, 60, 153]
)  # in an address, in a port, in the payload ...
def test_a_damaged_frame_is_known_wherever_the_damage_is(sink: int, at: int) -> None:
    bench = Bench(sink)
    for k in (1, 2, 3):
        bench.put(bench.frame(k), k)
    bench.take(flipped(bench.frame(2), at), 5)
    log = bench.link.log()
    assert log.records["verdict"].tolist() == [tables.LOST, tables.CORRUPT, tables.LOST]
    assert bench.counts("corrupted", "lost", "duplicated") == [1, 2, 0]
    for vantage, frame in (("client", bench.frame(2)), ("server", flipped(bench.frame(2), at))):
        number, _, outgoing = seen(log, vantage)
        k = number.tolist().index(1)
        start = log.records[1]["start" if outgoing[k] else "sent"]
        assert log.store[start : start + len(frame)].tobytes() == frame


@pytest.mark.compiled
def test_a_frame_that_comes_out_again_is_a_copy_damaged_or_not(sink: int) -> None:
    bench = Bench(sink)
    frame = bench.put(bench.frame(1), 1)
    for ts, out in enumerate((frame, frame, flipped(frame, 100))):
        bench.take(out, 5 + ts)
    copy = tables.COPY
    assert bench.link.log().records["verdict"].tolist() == [0, copy, copy | tables.CORRUPT]
    assert bench.counts("packets", "duplicated", "corrupted", "lost") == [1, 2, 0, 0]


@pytest.mark.compiled
def test_frames_that_are_alike_come_out_in_their_order(sink: int) -> None:
    bench = Bench(sink)
    frame = bench.put(bench.put(bench.frame(1), 1), 2)
    bench.take(frame, 5)
    bench.take(frame, 6)
    assert (bench.link.log().records["out_ts"] - bench.link.epoch_ns(0)).tolist() == [5, 6]
    assert bench.counts("packets", "duplicated", "reordered") == [2, 0, 0]


@pytest.mark.compiled
def test_what_a_queue_does_not_take_found_it_full(sink: int) -> None:
    bench = Bench(sink)
    bench.lines.into[1] = -1
    frame = bench.put(bench.frame(1), 1)
    bench.lines.into[1] = sink
    bench.put(frame, 2)
    bench.take(frame, 3)
    assert bench.link.log().records["verdict"].tolist() == [tables.OVERFLOW, 0]
    assert bench.counts("packets", "overflow", "overflow_data", "lost") == [2, 1, 1, 0]


@pytest.mark.compiled
def test_what_did_not_go_in_is_not_logged(sink: int) -> None:
    bench = Bench(sink, delay_ms=5)
    longest = bench.lines.longest
    assert longest > 5_000_000
    bench.put(bench.frame(1), 1)
    bench.put(bench.frame(2), 10)
    bench.take(bench.frame(7), 20)
    bench.take(flipped(bench.frame(1), 100), longest + 5)  # went in too long ago
    bench.take(flipped(bench.frame(2), 100), longest + 5)
    assert bench.link.log().records["verdict"].tolist() == [tables.LOST, tables.CORRUPT]
