"""The shop as its visitors see it: HTTP over our own sockets, in one connection or several."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from probing.lab.services.sql_pages import PORT
from probing.lab.services.web_site import host_name
from probing.lab.session import Session

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
PATIENCE_S = 60.0
FORM_TYPE = "application/x-www-form-urlencoded"
FOUND = 302
LOGIN, ACCOUNT, STYLE = "/login.php", "/account.php", "/style.css"
ATTACK_PHASES = ("injection", "guess")  # phases whose requests are the attack itself
Form = Mapping[str, str]


class Step(NamedTuple):
    """A page to ask for. at_once: a browser asks by itself (a style sheet, a redirection), so nobody thinks before."""

    path: str
    form: Form | None = None
    at_once: bool = False
    phase: str = "request"  # mark of the request
    then: str = ""  # mark of the answer's first byte
    mirrored: bool = False  # True: harmless, but as long as an injection


class Page(NamedTuple):
    """An answer. cookie: the cookie that it sets, "" for none."""

    status: int
    cookie: str
    text: bytes


class Visit:
    """A visitor with a cookie, whose connections carry ``most`` requests each."""

    def __init__(self, session: Session, most: int = 0, ends: str = "fin") -> None:
        """most: by default the session's ``requests``; 1 sends `Connection: close`. ends: how connections end."""
        self.session, self.most, self.ends = session, most or session.parameters.requests, ends
        self.cookie = ""
        self._socket: socket.socket | None = None
        self._asked = self._answered = 0  # requests in this connection, answers in all

    def ask(self, step: Step, last: str = "") -> Page:
        """Ask for a page, after some thought. last: the way in which the connection ends after it."""
        if self._answered and not step.at_once:
            self.session.think()
        at = self._connection()
        close = self.most == 1 and (last or self.ends) == "fin"
        self._begin(at, step)
        at.sendall(self._request(step, close))
        if step.then:
            at.recv(1, socket.MSG_PEEK)
            self.session.mark(step.then)
        page = self._answer(at)
        self._asked += 1
        self._answered += 1
        if close:
            while at.recv(65_536):  # the server's FIN comes first
                pass
        if close or (self._asked >= self.most and not last):
            self.leave()
        self.session.pause()
        return page

    def lose(self, step: Step) -> None:
        """Ask for a page while the network fails, so that nothing comes back."""
        if self._answered and not step.at_once:
            self.session.think()
        at = self._connection()
        self._begin(at, step)
        port = at.getsockname()[1]
        self.session.vanish(port)
        self.session.claim(port, termination="sudden")
        at.sendall(self._request(step, False))
        self.session.keep(at)
        self._socket = None

    def leave(self, way: str = "") -> None:
        """End the connection, if there is one."""
        if self._socket is not None:
            way = way or self.ends
            self.session.claim(self._socket.getsockname()[1], termination=way)
            end(self._socket, way)
            self._socket = None

    def _connection(self) -> socket.socket:
        if self._socket is None:
            self.session.mark("connect")
            self._socket = socket.create_connection((self.session.server, PORT), PATIENCE_S)
            port = self._socket.getsockname()[1]
            self.session.claim(port, termination="fin", attempts=0, carries_attack=False)
            self._asked = 0
        return self._socket

    def _begin(self, at: socket.socket, step: Step) -> None:
        """Mark a request, and report to the session what its connection carries."""
        if step.phase:
            self.session.mark(step.phase)
        port = at.getsockname()[1]
        attack = step.phase in ATTACK_PHASES
        if attack or (step.path == LOGIN and step.form is not None):
            self.session.attempt(port, attack=attack)
        if step.mirrored:
            self.session.claim(port, mirrored=True)

    def _request(self, step: Step, close: bool) -> bytes:
        form = step.form
        body = b"" if form is None else urlencode(form).encode()
        host = host_name(self.session.server_host)
        lines = [f"{'GET' if form is None else 'POST'} {step.path} HTTP/1.1", f"Host: {host}",
                 f"User-Agent: {AGENT}", "Accept: text/html,text/css,*/*;q=0.8", "Accept-Language: en"]  # fmt: skip
        lines += [f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(body)}"] if form is not None else []
        lines += [f"Cookie: {self.cookie}"] if self.cookie else []
        lines += [f"Connection: {'close' if close else 'keep-alive'}", "", ""]
        self.session.transferred(len(body))
        return "\r\n".join(lines).encode() + body

    def _answer(self, at: socket.socket) -> Page:
        with http.client.HTTPResponse(at) as response:
            response.begin()
            text = response.read()
            cookie = (response.getheader("Set-Cookie") or "").split(";")[0]
        self.session.transferred(len(text))
        self.cookie = cookie or self.cookie
        return Page(response.status, cookie, text)


def end(at: socket.socket, way: str) -> None:
    """End a connection by fin, rst, or timeout, which waits until the other side closes."""
    if way == "rst":
        at.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        if way == "fin":
            at.shutdown(socket.SHUT_WR)
        while at.recv(65_536):
            pass
    at.close()


def way_of(session: Session, *possible: str) -> str:
    """The termination of connections: the session's, or the first possible one where that is not possible."""
    wanted = session.parameters.termination
    return wanted if wanted in possible else possible[0]
