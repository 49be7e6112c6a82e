"""Requests and answers that do not end: many connections at once, each kept alive by a trickle."""

from __future__ import annotations

import errno
import platform
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from probing.lab.clients.shop import AGENT, end, way_of
from probing.lab.errors import LabError
from probing.lab.services.web_site import UPLOAD, WWW
from probing.lab.session import Session

PORT = 80
TRICKLES = range(4, 9)
WINDOW = 2048  # requested bytes of receive buffer; the kernel grants its minimum
PATIENCE_S = 60.0
ESTABLISHED, CLOSED = 1, 7
SPARE_FILES = 256


class SlowHttp:
    """The slow client."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of slow-headers, slow-body, slow-read."""
        count, rng = session.parameters.requests, session.rng
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + SPARE_FILES)), hard))
        trickles = rng.choice(TRICKLES)
        with _starts(session, count) as starts:
            connections = _open(session, starts)
            session.mark("trickle")
            for _ in range(trickles):
                session.pause()
                for at in connections:
                    _trickle(session, at)
            session.pause()
            session.outcome(all(_state(at) == ESTABLISHED for at in connections))
            _leave(session, connections)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


@contextmanager
def _starts(session: Session, count: int) -> Iterator[list[bytes]]:
    """The bytes that each connection begins with; the page that they ask for exists meanwhile."""
    agent = f"Host: {session.server}\r\nUser-Agent: {AGENT}\r\n"
    if session.activity == "slow-headers":
        yield [
            f"GET /?{session.rng.randrange(10_000):04d} HTTP/1.1\r\n{agent}".encode() for _ in range(count)
        ]
    elif session.activity == "slow-body":
        post = f"POST /{UPLOAD} HTTP/1.1\r\n{agent}Content-Type: text/plain\r\nContent-Length: "
        yield [f"{post}{session.size()}\r\n\r\n".encode() for _ in range(count)]
    else:
        file = WWW / f"slow-{session.host.name}-{session.sample}.bin"
        file.write_bytes(session.content(session.size()))
        yield [f"GET /{file.name} HTTP/1.1\r\n{agent}\r\n".encode()] * count
        file.unlink()


def _open(session: Session, starts: list[bytes]) -> list[socket.socket]:
    """Connections opened all at once; each sends its beginning as soon as it is established."""
    session.mark("connect")
    connections, waiting = [], select.poll()
    for _ in starts:
        at = socket.socket()
        connections.append(at)
        if session.activity == "slow-read":
            at.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        at.setblocking(False)
        if (problem := at.connect_ex((session.server, PORT))) != errno.EINPROGRESS:
            raise LabError(f"slow-http: connection {len(connections)}: {errno.errorcode[problem]}")
        session.claim(at.getsockname()[1])
        waiting.register(at, select.POLLOUT)
    first, start_of = True, {at.fileno(): (at, start) for at, start in zip(connections, starts)}
    deadline = time.monotonic() + PATIENCE_S
    while start_of:
        for fd, _ in waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3):
            at, start = start_of.pop(fd)
            waiting.unregister(fd)
            if problem := at.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise LabError(f"slow-http: no connection: {errno.errorcode[problem]}")
            if first:
                session.mark("request")
                first = False
            at.sendall(start)
        if start_of and time.monotonic() > deadline:
            raise LabError(
                f"slow-http: {len(start_of)} of {len(starts)} not connected within {PATIENCE_S:g} s"
            )
    return connections


def _trickle(session: Session, at: socket.socket) -> None:
    """Send, or read, a few bytes of what a connection waits for."""
    n = session.rng.randrange(1, 9)
    try:
        if session.activity == "slow-headers":
            at.sendall(f"X-{session.rng.randrange(1000):03d}: {'a' * n}\r\n".encode())
        elif session.activity == "slow-body":
            at.sendall(session.content(n))
            session.transferred(n)
        else:
            session.transferred(len(at.recv(n * 64)))
    except (BlockingIOError, ConnectionError):
        pass  # nothing has arrived yet, or the server has closed, which the outcome reports


def _state(at: socket.socket) -> int:
    """The state of a connection in the kernel."""
    return at.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _leave(session: Session, connections: list[socket.socket]) -> None:
    """End the connections; unread data turns the end of a slow reader into a RST."""
    way = way_of(
        session, *(("rst", "sudden") if session.activity == "slow-read" else ("fin", "rst", "sudden"))
    )
    for at in connections:
        if _state(at) == CLOSED:  # the server has reset it
            session.claim(at.getsockname()[1], termination="rst")
        elif way == "sudden":
            session.vanish(at.getsockname()[1])
            _trickle(session, at)
            session.keep(at)
        elif way == "fin":
            at.shutdown(
                socket.SHUT_WR
            )  # for all of them first: one after another would take a round trip each
    for at in connections:
        if way != "sudden" and _state(at) != CLOSED:
            at.settimeout(PATIENCE_S)
            end(at, "timeout" if way == "fin" else way)


SLOW_HTTP = SlowHttp()
