"""The AF_PACKET ring against what was sent into a wire of its own namespace."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from connectors.files.frames import FrameBlock
from connectors.live import capture as capture_module
from connectors.live.bpf import FilterError
from connectors.live.capture import RingCapture
from connectors.live.netdev import InterfaceError
from connectors.live.settings import CaptureSettings, Counters
from connectors.live.sniffer import SniffedCapture
from engine.headers.decode import decode
from engine.types import Packets, concatenate
from tests.integration.live.ring import of_file, tagged
from tests.support.capture_bytes import pcap
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]
Capture = RingCapture | SniffedCapture


raw: list[bytes] = []  # frames of the last capture


def bytes_of(frames: FrameBlock) -> list[bytes]:
    spans = zip(frames.start.tolist(), frames.captured.tolist())
    return [frames.buffer[start : start + size].tobytes() for start, size in spans]


def captured(
    line: Wire, capture: Path, settings: CaptureSettings | None = None, *options: str,
    kind: Callable[..., Capture] = RingCapture, pause: float = 0.0, interface: str = "tap0",
) -> tuple[Packets, int, Counters, int]:  # fmt: skip
    """Packets that came out while a file was sent, how many were sent, counters, and losses told with blocks."""

    def work() -> tuple[Packets, int, Counters, int]:
        source = kind(interface, settings or CaptureSettings())
        sent: list[int] = []

        def send() -> None:
            try:
                sent.append(line.send(capture, *(options or ("--topspeed",))))
            finally:
                source.stop()

        sender = threading.Thread(target=send)
        sender.start()
        parts, dropped = [], 0
        raw.clear()
        for frames in source.frames():
            parts.append(decode(frames))
            raw.extend(bytes_of(frames))
            dropped += frames.dropped
            if len(frames):
                time.sleep(pause)
        sender.join()
        source.close()
        return concatenate(parts), sent[0], source.counters, dropped

    return line.inside(work)


def assert_same(got: Packets, wanted: Packets) -> None:
    """Every column but the time is equal, and times go on."""
    assert got.ts.size == wanted.ts.size
    for name in Packets._fields:
        if name != "ts":
            assert np.array_equal(getattr(got, name), getattr(wanted, name)), name
    assert (np.diff(got.ts) >= 0).all()
    assert 0 < got.ts[-1] - got.ts[0] < 60_000_000_000
    assert abs(int(got.ts[-1]) - time.time_ns()) < 60_000_000_000


def test_what_is_captured_is_what_was_sent_packet_for_packet(line: Wire, mixed: Path) -> None:
    got, sent, counters, dropped = captured(line, mixed)
    wanted = of_file(mixed)
    assert sent == wanted.ts.size == counters.received
    assert (counters.ring, counters.kernel, dropped) == (0, 0, 0)
    assert_same(got, wanted)


def test_vlan_tags_that_the_kernel_took_off_are_put_back(line: Wire, tmp_path: Path) -> None:
    frames = [
        tagged(), tagged((0x8100, 5)), tagged((0x8100, 0xE123)), tagged((0x88A8, 7), (0x8100, 8)), tagged((0x8100, 0)),
    ]  # fmt: skip
    path = tmp_path / "tagged.pcap"
    path.write_bytes(pcap([(k, frame, len(frame)) for k, frame in enumerate(frames)]))
    got, _, _, _ = captured(line, path)
    assert_same(got, of_file(path))
    assert set(got.dport.tolist()) == {53}
    assert got.size.tolist() == [len(frame) for frame in frames]
    assert raw == frames


def test_at_overload_what_was_sent_is_what_came_and_what_was_counted_as_lost(line: Wire, mixed: Path) -> None:
    small = CaptureSettings(ring_bytes=1 << 18, block_bytes=1 << 16)
    got, sent, counters, dropped = captured(line, mixed, small, pause=0.05)
    assert counters.received == got.ts.size
    assert counters.ring > 0
    assert sent == counters.received + counters.ring + counters.kernel
    assert dropped == counters.ring + counters.kernel


def test_a_loss_is_told_behind_what_came_before_it(
    line: Wire, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring was full of packets when the first was lost: those are given first, in several blocks."""
    monkeypatch.setattr(capture_module, "MOST", 500)

    def work() -> tuple[int, list[tuple[int, int]]]:
        source = RingCapture("tap0", CaptureSettings(ring_bytes=1 << 20, block_bytes=1 << 16))
        sent = line.send(mixed, "--topspeed")  # nobody reads meanwhile
        blocks = source.frames()
        told = []
        while len(frames := next(blocks)):
            told.append((len(frames), frames.dropped))
        told.append((0, frames.dropped))
        sent += line.send(mixed, "--topspeed", "--limit", "10")
        told += [(len(frames), frames.dropped) for frames in (next(blocks) for _ in range(3))]
        source.close()
        return sent, told

    sent, told = line.inside(work)
    before = [n for n, _ in told if n][:-1]
    assert len(before) > 3
    assert [dropped for n, dropped in told if n] == [0] * (len(before) + 1)
    assert sum(n + dropped for n, dropped in told) == sent
    assert told[len(before)] == (0, sent - sum(before) - 10)


def test_a_reader_that_is_too_slow_can_be_stopped_while_packets_keep_coming(line: Wire, mixed: Path) -> None:
    def work() -> float:
        source = RingCapture("tap0", CaptureSettings(ring_bytes=1 << 17, block_bytes=1 << 16))
        sender = threading.Thread(target=lambda: line.send(mixed, "--pps", "4000"))
        sender.start()
        stopped = threading.Timer(1.0, source.stop)
        stopped.start()
        began = time.monotonic()
        for frames in source.frames():
            time.sleep(0.1 if len(frames) else 0.0)
        took = time.monotonic() - began
        sender.join()
        source.close()
        return took

    assert 0.9 < line.inside(work) < 3.5  # the sender takes 5.5 s


def test_a_filter_a_snaplen_and_a_direction_are_the_kernels_to_keep(line: Wire, mixed: Path) -> None:
    wanted = of_file(mixed)
    got, _, _, _ = captured(line, mixed, CaptureSettings(filter="tcp port 22", snaplen=64))
    chosen = (wanted.proto == 6) & ((wanted.sport == 22) | (wanted.dport == 22))
    assert 0 < got.ts.size == int(chosen.sum())
    assert np.array_equal(got.size, wanted.size[chosen])
    assert max(len(frame) for frame in raw) == 64 < wanted.size[chosen].max()
    got, _, counters, _ = captured(
        line, mixed, CaptureSettings(direction="out"), "--topspeed", "--limit", "100"
    )
    assert (got.ts.size, counters.skipped) == (0, 100)
    got, _, counters, _ = captured(
        line, mixed, CaptureSettings(direction="in"), "--topspeed", "--limit", "100", interface="wire0"
    )
    assert (got.ts.size, counters.skipped) == (0, 100)


def test_the_portable_fallback_gives_the_same(line: Wire, mixed: Path) -> None:
    wanted = of_file(mixed)
    got, sent, counters, _ = captured(
        line, mixed, None, "--pps", "500", "--limit", "1000", kind=SniffedCapture
    )
    assert sent == 1000 == counters.received
    assert_same(got, Packets._make(column[:1000] for column in wanted))


def test_what_came_before_the_stop_is_given(line: Wire) -> None:
    """The kernel hands a block over when it is full, or 20 ms later."""

    def work() -> int:
        source = RingCapture("tap0", CaptureSettings())
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("wire0", 0))
            sender.send(tagged())
        source.stop()
        n = sum(len(frames) for frames in source.frames())
        source.close()
        return n

    assert line.inside(work) == 1


def test_a_change_of_the_filter_counts_from_then_on(line: Wire, mixed: Path) -> None:
    def work() -> tuple[int, int]:
        source = RingCapture("tap0", CaptureSettings(filter="tcp"))
        blocks = source.frames()

        def taken() -> int:
            n = 0
            while len(block := next(blocks)):
                n += len(block)
            return n

        line.send(mixed, "--topspeed", "--limit", "2000")
        time.sleep(0.2)
        first = taken()
        with pytest.raises(FilterError, match="filter 'tcp nonsense'"):
            source.change("tcp nonsense", 128)
        source.change("udp", 128)
        line.send(mixed, "--topspeed", "--limit", "2000")
        time.sleep(0.2)
        second = taken()
        source.close()
        return first, second

    wanted = of_file(mixed)
    assert line.inside(work) == tuple(int((wanted.proto[:2000] == k).sum()) for k in (6, 17))


def test_what_cannot_be_captured_is_named(line: Wire) -> None:
    def work() -> None:
        with pytest.raises(InterfaceError, match="eth77: no such interface; choose one of lo, "):
            RingCapture("eth77", CaptureSettings())
        with pytest.raises(FilterError, match="vlan cannot match: the kernel removes tags"):
            RingCapture("tap0", CaptureSettings(filter="vlan 5 and tcp"))
        with pytest.raises(FilterError, match="filter of 7700 characters must have at most 2048"):
            RingCapture("tap0", CaptureSettings(filter="tcp or " * 1100))
        with pytest.raises(InterfaceError, match="tap0: no hardware time stamps"):
            RingCapture("tap0", CaptureSettings(timestamps="hardware"))
        first = RingCapture("tap0", CaptureSettings(fanout=5))
        with pytest.raises(InterfaceError, match="fanout group 5"):
            RingCapture("tap0", CaptureSettings(fanout=5, fanout_by="hash"))
        first.close()

    line.inside(work)
