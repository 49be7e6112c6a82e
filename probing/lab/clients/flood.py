"""Pings and datagrams: some at an ordinary rate, or a bounded flood of them while another host measures the answers."""

from __future__ import annotations

import contextlib
import platform
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from probing.lab.errors import LabError
from probing.lab.services.echo_host import PORT
from probing.lab.session import Session

ECHO_REQUEST, ECHO_REPLY = 8, 0  # types of ICMP (RFC 792)
ANSWER_S = 1.0  # seconds after which an answer counts as lost
PROBE_EVERY_S = 0.05  # seconds between two probes of the measuring host
BEFORE = 10  # number of its probes before a flood
SUFFERED = 2.0  # times the round trip before a flood from which its probes have suffered
LOST = 0.05  # share of lost probes from which they have
NUMBERED = 4  # bytes of a message that number it
BATCH_S = 0.01  # seconds of a flood that are sent at once: a host cannot pause for less reliably


class Measured(NamedTuple):
    """The answers to some messages."""

    times: list[float]  # seconds of each answered round trip
    sent: int

    @property
    def lost(self) -> float:
        """The share of messages without an answer."""
        return 1 - len(self.times) / self.sent if self.sent else 0.0


class Flood:
    """Our own pinger and flooder."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of ping, datagrams, icmp-flood, udp-flood."""
        icmp = session.activity in ("ping", "icmp-flood")
        if session.activity.endswith("flood"):
            _flood(session, icmp)
            return
        session.mark("ask")
        with _Asker(session, icmp) as asker:
            measured = asker.ask(session.parameters.requests, session.parameters.pause_ms / 1e3)
        session.outcome(measured.lost == 0)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


class _Asker:
    """A socket of this thread's host for numbered messages that the server sends back."""

    def __init__(self, session: Session, icmp: bool) -> None:
        self.session, self.icmp, self.number = session, icmp, 0
        if icmp:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            self.socket.connect((session.server, 0))
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.connect((session.server, PORT))
        self.identifier = int(
            self.socket.getsockname()[0].rpartition(".")[2]
        )  # one row for all pings of a host
        self.socket.setblocking(False)

    def __enter__(self) -> _Asker:
        return self

    def __exit__(self, *how: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        """Send the next message; one that the host's queue has no room for is lost."""
        body = struct.pack(">I", self.number) + content
        if self.icmp:
            head = struct.pack(">BBHHH", ECHO_REQUEST, 0, 0, self.identifier, self.number & 0xFFFF)
            body = head[:2] + struct.pack(">H", _checksum(head + body)) + head[4:] + body
        self.number += 1
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self.socket.send(body)

    def answered(self, seconds: float) -> int | None:
        """The number of the next message that is answered within some seconds; None without one."""
        end = time.monotonic() + seconds
        while select.select([self.socket], [], [], max(0.0, end - time.monotonic()))[0]:
            with contextlib.suppress(ConnectionRefusedError):
                data = self.socket.recv(1 << 16)
                if self.icmp:
                    data = data[(data[0] & 15) * 4 :]
                    if data[0] != ECHO_REPLY or data[4:6] != struct.pack(">H", self.identifier):
                        continue
                    data = data[8:]
                return int(struct.unpack_from(">I", data)[0])
        return None

    def ask(self, count: int, pause_s: float, stop: Callable[[], bool] = lambda: False) -> Measured:
        """Send messages, each after the answer to the one before, or after ANSWER_S."""
        times, sent = [], 0
        while sent < count and not stop():
            if sent:
                time.sleep(pause_s)
            began, number = time.monotonic(), self.number
            self.send(self.session.content(max(0, self.session.size() - NUMBERED)))
            sent += 1
            while (left := began + ANSWER_S - time.monotonic()) > 0:
                if self.answered(left) == number:
                    times.append(time.monotonic() - began)
                    break
        return Measured(times, sent)


def _flood(session: Session, icmp: bool) -> None:
    """Flood the server from the first host while the second asks it; succeeded: the second's answers suffered."""
    if len(session.hosts) < 2:
        raise LabError(
            f"{session.activity}: parameters.hosts 2 must be 3: the attacker, the one who measures, the server"
        )
    attacker, prober = session.hosts[:2]
    kind = "ping" if icmp else "datagrams"
    session.claim_next(prober, activity=kind, attack=0, attack_kind="none")
    sizes = [session.size() for _ in range(session.parameters.packets)]
    content = session.content(max(sizes))
    over, results = threading.Event(), list[Measured]()

    def probe() -> None:
        prober.enter()
        with _Asker(session, icmp) as asker:
            results.append(asker.ask(BEFORE, PROBE_EVERY_S))
            ready.set()
            results.append(asker.ask(session.parameters.packets, PROBE_EVERY_S, over.is_set))

    ready = threading.Event()
    session.mark("ask")
    probing = threading.Thread(target=probe, daemon=True)
    probing.start()
    if not ready.wait(2 * BEFORE * ANSWER_S):
        raise LabError("the measuring host did not get ready")
    session.mark("flood")
    answered: int = attacker.in_thread(
        lambda: _send_all(session, icmp, [content[: max(0, n - NUMBERED)] for n in sizes])
    )
    over.set()
    probing.join()
    before, during = results
    lost = 1 - answered / len(sizes)
    slower = bool(during.times and before.times) and median(during.times) > SUFFERED * median(before.times)
    session.outcome(during.lost > LOST + before.lost or slower or lost > LOST)


def _send_all(session: Session, icmp: bool, contents: list[bytes]) -> int:
    """Send messages at the configured rate; returns the number of those that were answered."""
    answered, rate = 0, session.parameters.rate_pps
    with _Asker(session, icmp) as asker:
        began = time.monotonic()
        for k, content in enumerate(contents):
            if (ahead := began + k / rate - time.monotonic()) > BATCH_S:
                time.sleep(ahead)
            asker.send(content)
            while asker.answered(0) is not None:
                answered += 1
        while asker.answered(ANSWER_S) is not None:
            answered += 1
    return answered


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


FLOOD = Flood()
