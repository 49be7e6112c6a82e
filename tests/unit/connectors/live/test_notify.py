"""Messages to systemd, on real sockets."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.live import notify

SENDERS: list[Callable[[], None]] = [
    notify.ready, notify.reloading, notify.stopping, notify.alive, lambda: notify.ready("1,000 packets a second"),
]  # fmt: skip


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A socket that stands for systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "path" else f"@wiresonde-test-{os.getpid()}"
        sock.bind(name.replace("@", "\0"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def nothing_came(sock: socket.socket) -> bool:
    try:
        sock.recv(4096)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    ("send", "text"),
    [
        (notify.ready, b"READY=1"),
        (lambda: notify.ready("on eth0"), b"READY=1\nSTATUS=on eth0"),
        (notify.stopping, b"STOPPING=1"),
        (lambda: notify.stopping("flushing"), b"STOPPING=1\nSTATUS=flushing"),
        (notify.alive, b"WATCHDOG=1"),
        (lambda: notify.ready("µ"), b"READY=1\nSTATUS=\xc2\xb5"),
        (lambda: notify.ready(" two\nlines\tREADY=1\n"), b"READY=1\nSTATUS=two lines READY=1"),
        (lambda: notify.ready("\udcff"), b"READY=1\nSTATUS=?"),
    ],
)
def test_each_message_is_one_datagram(systemd: socket.socket, send: Callable[[], None], text: bytes) -> None:
    send()
    assert systemd.recv(4096) == text
    assert nothing_came(systemd)


def test_a_reload_says_when_it_began(systemd: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify.reloading()
    first, second = systemd.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("name", [None, "", "vsock:2:1234", "relative"])
def test_nothing_is_sent_or_said_outside_of_systemd(
    name: str | None,
    systemd: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    if name is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    for send in SENDERS:
        send()
    assert nothing_came(systemd)
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["{}/gone", "@wiresonde-test-gone", "{}", "/" + "long" * 100])
def test_a_socket_that_cannot_be_reached_does_not_stop_a_service(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name.format(tmp_path))
    for send in SENDERS:
        send()
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * len(SENDERS)
    assert caplog.messages[0].startswith("cannot send READY=1 to systemd: ")


def test_a_queue_that_nobody_empties_is_waited_for_without_work_and_not_for_long(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.3)
    begin, work = time.monotonic(), time.thread_time()
    while not caplog.messages and time.monotonic() - begin < 20:
        notify.alive()
    assert time.monotonic() - begin >= 0.3
    assert time.thread_time() - work < 0.15
    assert caplog.messages == ["cannot send WATCHDOG=1 to systemd: timed out"]
    assert systemd.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", "own", 30.0), ("500000", None, 0.5), ("30000000", "1", None), (None, "own", None),
        (None, None, None), ("0", "own", None), ("-5", "own", None), ("", "own", None),
        ("30s", "own", None), ("30000000", "", None),
    ],
)  # fmt: skip
def test_the_watchdog_is_heard_where_it_watches_this_process(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_seconds() == seconds
