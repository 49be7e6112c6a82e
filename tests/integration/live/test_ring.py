"""The AF_PACKET ring against what was sent into a wire of its own namespace."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from connectors import capture as capture_module
from connectors.bpf import FilterError
from connectors.capture import RingCapture
from connectors.capture_settings import CaptureLostError, CaptureSettings, Counters
from connectors.clock_steps import ClockSteps
from connectors.frames import FrameBlock
from connectors.netdev import InterfaceError
from connectors.pcap import CaptureFile
from connectors.sniffer import SniffedCapture
from engine.decode import decode
from engine.types import Packets, concatenate
from tests.capture_bytes import pcap
from tests.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]
Capture = RingCapture | SniffedCapture
SECONDS = 60.0  # after which a test that waits has failed


def of_file(path: Path) -> Packets:
    with CaptureFile(path) as capture:
        return concatenate([decode(frames) for frames in capture])


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


def tagged(*tags: tuple[int, int]) -> bytes:
    """A UDP datagram under VLAN tags (TPID, TCI)."""
    ip = bytes.fromhex("4500001c000100004011000a0a0000010a000002") + struct.pack(">HHHH", 5000, 53, 8, 0)
    stack = b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in tags)
    return bytes.fromhex("020000000002020000000001") + stack + b"\x08\x00" + ip + bytes(18)


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


def test_an_interface_that_goes_down_and_comes_back_goes_on(line: Wire, mixed: Path) -> None:
    def work() -> tuple[int, int]:
        source = RingCapture("tap0", CaptureSettings())
        sent: list[int] = []

        def change() -> None:
            try:
                sent.append(line.send(mixed, "--topspeed", "--limit", "500"))
                time.sleep(0.2)
                line.ip("link", "set", "tap0", "down")
                time.sleep(0.5)
                line.ip("link", "set", "tap0", "up")
                time.sleep(0.2)
                sent.append(line.send(mixed, "--topspeed", "--limit", "700"))
                time.sleep(0.2)
            finally:
                source.stop()

        changer = threading.Thread(target=change)
        changer.start()
        for frames in source.frames():
            decode(frames)
        changer.join()
        source.close()
        return sum(sent), source.counters.received

    sent, received = line.inside(work)
    assert sent == received == 1200


def test_an_interface_that_is_removed_ends_the_capture_behind_what_it_gave(line: Wire, mixed: Path) -> None:
    def work() -> tuple[int, str]:
        source = RingCapture("tap0", CaptureSettings())
        line.send(mixed, "--topspeed", "--limit", "500")
        remover = threading.Timer(0.5, lambda: line.ip("link", "del", "tap0"))
        remover.start()
        n, ends = 0, time.monotonic() + SECONDS
        blocks = source.frames()
        try:
            while time.monotonic() < ends:
                n += len(next(blocks))
        except CaptureLostError as error:
            return n, str(error)
        finally:
            remover.join()
            source.close()
        raise AssertionError("the capture went on")

    assert line.inside(work) == (500, "tap0: the interface is gone")


def test_a_silent_interface_tells_the_time(line: Wire) -> None:
    def work() -> list[int]:
        source = RingCapture("tap0", CaptureSettings())
        blocks = source.frames(wait=0.01)
        times = [next(blocks).now for _ in range(5)]
        source.close()
        return [t for t in times if t is not None]

    times = line.inside(work)
    assert len(times) == 5
    assert times == sorted(times)
    assert 0 < time.time_ns() - times[-1] < 10_000_000_000


def test_the_clock_of_the_hardware_is_kept_apart_from_the_machines(line: Wire) -> None:
    """No interface here has one, so the kernel's times stand for it: counted, and taken as they are."""

    def work() -> tuple[list[int | None], int]:
        source = RingCapture("tap0", CaptureSettings())
        source._settings, source._ahead = CaptureSettings(timestamps="hardware"), None
        source.clock = ClockSteps(lambda: time.time_ns() + 37_000_000_000)  # the machine's is ahead
        blocks = source.frames(wait=0.01)
        told = [next(blocks).now]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("wire0", 0))
            sender.send(tagged())
        while not len(frames := next(blocks)):
            pass
        told += [int(frames.ts[0]), next(blocks).now]
        source.close()
        return told, source.counters.unstamped

    (before, stamped, after), unstamped = line.inside(work)
    assert before is None
    assert unstamped == 1
    assert stamped is not None
    assert after is not None
    assert abs(after - stamped) < 2_000_000_000


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
        with pytest.raises(InterfaceError, match="eth77: no such interface; there are lo, "):
            RingCapture("eth77", CaptureSettings())
        with pytest.raises(FilterError, match="vlan: the kernel takes tags off"):
            RingCapture("tap0", CaptureSettings(filter="vlan 5 and tcp"))
        with pytest.raises(FilterError, match="filter of 7700 characters: at most 2048"):
            RingCapture("tap0", CaptureSettings(filter="tcp or " * 1100))
        with pytest.raises(InterfaceError, match="tap0: no time stamps by the hardware"):
            RingCapture("tap0", CaptureSettings(timestamps="hardware"))
        first = RingCapture("tap0", CaptureSettings(fanout=5))
        with pytest.raises(InterfaceError, match="fanout group 5"):
            RingCapture("tap0", CaptureSettings(fanout=5, fanout_by="hash"))
        first.close()

    line.inside(work)
