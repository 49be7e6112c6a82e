"""A ring whose interface goes down, goes away, is silent or has a clock of its own."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from connectors.live.capture import RingCapture
from connectors.live.clock_steps import ClockSteps
from connectors.live.settings import CaptureLostError, CaptureSettings
from engine.headers.decode import decode
from tests.integration.live.ring import tagged
from tests.support.netns import Wire

pytestmark = [pytest.mark.live, pytest.mark.compiled]
SECONDS = 60.0  # after which a test that waits has failed


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
