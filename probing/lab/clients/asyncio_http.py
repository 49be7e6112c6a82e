"""Our own client on asyncio's streams: it can end a connection in any way, and knows when its phases begin.

Made for tens of thousands of connections: no process of its own, and one event loop a thread for all samples.
"""

from __future__ import annotations

import asyncio
import platform
import re
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, NamedTuple

from probing.lab.clients import web
from probing.lab.errors import LabError
from probing.lab.services.web_site import host_name
from probing.lab.session import Session

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a RST and no FIN
CHUNK = 1 << 16
LOOK_S = 0.005  # seconds between two looks whether the network has failed
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LOCATION = re.compile(rb"\r\nlocation: *\S*?//[^/]+/(\S*)", re.IGNORECASE)
_own = threading.local()


class Asyncio:
    """An HTTP/1.1 client written by hand."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do any activity, in one connection that ends in any way."""
        if not hasattr(_own, "runner"):
            _own.runner = asyncio.Runner()
        with web.visit(session) as requests:
            _own.runner.run(_Conversation(session, requests).go())

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


class _Break(NamedTuple):
    """The place at which a connection breaks off."""

    request: int
    share: float | None  # share of that request's content; None: after its answer, in a pause
    answer: bool = False  # True: the network fails amid that request's answer


class _VanishedError(Exception):
    """The network has failed, as was planned."""


class _Conversation:
    """One connection, from its start to its end."""

    def __init__(self, session: Session, requests: list[web.Request]) -> None:
        self.session, self.requests = session, requests
        self.name = host_name(session.server_host)
        self.pause_s = session.parameters.pause_ms / 1e3
        self.ends = session.parameters.termination
        self.broken = _break(session, requests)
        self.statuses: list[int] = []

    async def go(self) -> None:
        """Connect, make the requests, and end the connection."""
        async with asyncio.timeout(web.LIMIT_S):
            await self._connect()
            try:
                await self._converse()
            finally:
                self.writer.transport.abort()  # no effect where it is closed

    async def _connect(self) -> None:
        tls: dict[str, Any] = {}
        if web.secure(self.session):
            tls = {"ssl": _context(), "server_hostname": self.name,
                   "ssl_handshake_timeout": web.LIMIT_S, "ssl_shutdown_timeout": web.LIMIT_S}  # fmt: skip
        try:
            self.reader, self.writer = await asyncio.open_connection(
                self.session.server, 443 if tls else 80, **tls
            )
        except OSError as error:
            raise LabError(f"{self.session.server} cannot be reached: {error}") from error
        self.port = self.writer.get_extra_info("sockname")[1]
        self.session.claim(self.port)

    async def _converse(self) -> None:
        try:
            for k, request in enumerate(self.requests):
                if k:
                    await self._pause()
                if self.broken.answer and self.broken.request == k:
                    share = self.broken.share or 0.0
                    self.session.vanish_amid(self.port, "server", int(share * request.content))
                if not (await self._ask(k, request) and await self._take(k, request)):
                    await self._break_off()
                    return
        except _VanishedError:
            self.session.outcome(False)
            self.session.keep(self._socket())
            return
        except (asyncio.IncompleteReadError, ConnectionError):
            if self.ends != "timeout" or not self.statuses:
                raise
            # on a slow link the server may time out between two requests, which ends this connection as wanted
            self.session.outcome(False)
            if not self.writer.transport.is_closing():
                await self._wait_for_the_server()
            return
        web.judge(self.session, self.requests, self.statuses)
        if self.ends == "timeout":
            await self._wait_for_the_server()
        else:
            self.writer.close()
            await self.writer.wait_closed()

    async def _ask(self, k: int, request: web.Request) -> bool:
        """Send a request and its content; returns whether the connection continues."""
        self.session.mark("request")
        self.writer.write(self._head(request))
        if request.body is None:
            return True
        self.session.mark("transfer")
        body = request.body
        if self.broken.request == k and self.broken.share is not None and not self.broken.answer:
            body = body[: int(self.broken.share * len(body))]
        self.writer.write(body)
        await self.writer.drain()
        return len(body) == len(request.body)

    async def _take(self, k: int, request: web.Request) -> bool:
        """Receive an answer; returns whether the connection continues."""
        head = await self._heard(self.reader.readuntil(b"\r\n\r\n"))
        self.session.mark("response")
        status, length, location = STATUS.match(head), LENGTH.search(head), LOCATION.search(head)
        if status is None or (length is None and request.status != 304):
            raise LabError(f"{request.path}: the answer has no status or length: {head[:200]!r}")
        self.statuses.append(int(status[1]))
        if request.status == 301 and (location is None or location[1].decode() != self.requests[k + 1].path):
            raise LabError(f"{request.path}: redirected to an unexpected place: {head[:400]!r}")
        left = int(length[1]) if length else 0
        if request.content:
            self.session.mark("transfer")
            if left != request.content:
                raise LabError(f"{request.path}: the answer has {left} bytes, expected {request.content}")
        if self.broken.request == k and self.broken.share is not None and not self.broken.answer:
            left = int(self.broken.share * left)
        await self._read(left)
        return self.broken.request != k

    async def _pause(self) -> None:
        """Wait between two requests: for pause_ms, and for a think time where a user reads a page meanwhile."""
        reads = self.session.activity.removeprefix(web.TLS) == "keep-alive"
        seconds = self.pause_s + (self.session.thought() if reads else 0.0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _read(self, left: int) -> None:
        while left:
            part = await self._heard(self.reader.read(min(left, CHUNK)))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)

    async def _heard(self, reading: Coroutine[Any, Any, bytes]) -> bytes:
        """What is read. Raises _VanishedError when the network fails amid an answer, as was planned."""
        if not self.broken.answer:
            return await reading
        task = asyncio.ensure_future(reading)
        while not (await asyncio.wait([task], timeout=LOOK_S))[0]:
            if self.session.vanished(self.port):
                task.cancel()
                raise _VanishedError
        return task.result()

    async def _break_off(self) -> None:
        whole = len(self.statuses) == len(self.requests) and self.broken.share is None
        self.session.outcome(whole and self.requests[-1].status < 400)
        if self.ends == "rst":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.writer.transport.abort()
            await self.writer.wait_closed()
            return
        self.session.vanish(self.port)
        request = self.requests[self.broken.request]
        if self.broken.share is not None:  # amid an upload, which goes on
            body = request.body or b""
            self.writer.write(body[int(self.broken.share * len(body)) :])
        else:  # the client does not notice, and asks again
            following = self.requests[min(self.broken.request + 1, len(self.requests) - 1)]
            await self._pause()
            self.session.mark("request")
            self.writer.write(self._head(following))
        self.session.keep(self._socket())

    def _head(self, request: web.Request) -> bytes:
        lines = [
            f"{'GET' if request.body is None else 'POST'} /{request.path} HTTP/1.1",
            f"Host: {self.name}", "User-Agent: wiresonde-lab", "Accept: */*",
        ]  # fmt: skip
        if request.body is not None:
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {len(request.body)}"]
        if request.changed is not None:
            lines += [f"If-Modified-Since: {web.date(request.changed)}"]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _wait_for_the_server(self) -> None:
        """Close after the server, below TLS, which would answer the server's farewell into a closed connection."""
        loop = asyncio.get_running_loop()
        with self._socket() as raw:
            try:
                while await loop.sock_recv(raw, CHUNK):
                    pass
            except ConnectionError:  # a request and the server's farewell crossed
                self.session.claim(self.port, termination="rst")

    def _socket(self) -> socket.socket:
        """The socket of the connection, after its streams have ended."""
        raw: socket.socket = self.writer.get_extra_info("socket").dup()
        raw.setblocking(False)
        self.writer.transport.abort()
        return raw


def _break(session: Session, requests: list[web.Request]) -> _Break:
    """The place of a break: a reset hits a transfer; a network failure as often the client's data as the server's."""
    ends = session.parameters.termination
    if ends not in ("rst", "sudden"):
        return _Break(-1, None)
    request, share = session.rng.randrange(len(requests)), session.rng.uniform(0.1, 0.9)
    if ends == "rst":
        return _Break(request, share)
    if session.rng.random() < 0.5:
        return _Break(request, share, answer=True)
    uploads = requests[request].body is not None and session.rng.random() < 0.5
    return _Break(request, share if uploads else None)


@cache
def _context() -> ssl.SSLContext:
    """The TLS context of all connections: the certificate is self-signed, and no session is resumed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


ASYNCIO = Asyncio()
