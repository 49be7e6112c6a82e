"""Reports the state of a service to systemd: its sd_notify protocol.

Written here because the packages for it do not fit: sdnotify has had no release since 2017, and systemd-python,
cysystemd and pystemd bind libsystemd.

One datagram for each message, to the socket in NOTIFY_SOCKET. Without that variable nothing is sent. A failure to
send is logged, and the service goes on.
"""

from __future__ import annotations

import logging
import os
import socket
import time

SECONDS = 1.0  # most seconds to wait for systemd: its queue is full while it reloads
logger = logging.getLogger(__name__)


def ready(text: str = "") -> None:
    """The service has started, or finished a reload; ``text``: one line for ``systemctl status``."""
    _send("READY=1", *_status(text))


def reloading() -> None:
    """The service reads its configuration again; ``ready`` must follow."""
    _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(text: str = "") -> None:
    """The service flushes and ends."""
    _send("STOPPING=1", *_status(text))


def alive() -> None:
    """The service makes progress; due every half of ``watchdog_seconds``."""
    _send("WATCHDOG=1")


def watchdog_seconds() -> float | None:
    """Seconds of silence before systemd kills this process; None without a watchdog. Call ``alive`` twice as often."""
    try:
        limit = int(os.environ["WATCHDOG_USEC"]) / 1e6
        mine = int(os.environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
    except (KeyError, ValueError):
        return None
    return limit if mine and limit > 0 else None


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _send(*lines: str) -> None:
    """Send one datagram with a line for each assignment."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # abstract socket, not a file
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SECONDS)
            sock.connect(address)  # without connect, a full queue is polled without a pause
            sock.send("\n".join(lines).encode(errors="replace"))
    except OSError as error:
        logger.warning("cannot send %s to systemd: %s", lines[0], error)
