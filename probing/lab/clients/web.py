"""The shared part of web clients: the requests of an activity, each with a page of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path

from probing.lab.errors import LabError
from probing.lab.services.web_site import HTTP2, MOVED, STREAM, UPLOAD, WWW, host_name
from probing.lab.session import Session

TLS = "tls-"  # prefix of the activities that are encrypted
LIMIT_S = 300.0  # most seconds of a sample: a large page takes long where every twentieth packet is lost
WORDS = ("about", "contact", "faq", "home", "news", "offers", "prices", "shop", "team", "terms")
SUFFIX = {"text": "html", "binary": "bin"}
FIRST_DAY, SPAN_S = 1_704_067_200, 366 * 86_400  # first modification time of pages, and the span of all: 2024


@dataclass(frozen=True)
class Request:
    """One request and its expected answer."""

    path: str  # path of the URL, without its first slash
    status: int = 200
    content: int = 0  # bytes of the expected page
    body: bytes | None = None  # content of a POST; None: a GET
    changed: int | None = None  # modification time of the client's copy, s since the epoch
    redirected: bool = False  # True: follows the redirection of the answer before


@contextmanager
def visit(session: Session) -> Iterator[list[Request]]:
    """The requests of a session, in one connection; their pages are removed at the end.

    Reports to the session the bytes to be transferred.
    """
    name = session.activity.removeprefix(TLS)
    if name not in _REQUESTS:
        raise LabError(f"web clients do not have the activity {session.activity}")
    requests = _REQUESTS[name](session)
    if name != "not-found":
        session.transferred(sum(r.content + len(r.body or b"") for r in requests))
    try:
        yield requests
    finally:
        for request in requests:
            (WWW / request.path).unlink(missing_ok=True)


def url(session: Session, request: Request) -> str:
    """The URL of a request."""
    return f"{'https' if secure(session) else 'http'}://{host_name(session.server_host)}/{request.path}"


def secure(session: Session) -> bool:
    """Whether the activity is encrypted."""
    return session.activity.startswith(TLS)


def http2(session: Session) -> bool:
    """Whether the activity uses HTTP/2."""
    return session.activity.startswith(HTTP2)


def date(seconds: int) -> str:
    """A time in the format of HTTP's headers."""
    return formatdate(seconds, usegmt=True)


def only_fin(session: Session, program: str) -> None:
    """Raise LabError for a termination that a program cannot bring about."""
    if session.parameters.termination != "fin":
        raise LabError(
            f"{program} cannot end a connection by {session.parameters.termination}; use the client asyncio"
        )


def upload(session: Session, body: bytes) -> Path:
    """A file with the content to be sent."""
    file = session.folder / "upload"
    file.write_bytes(body)
    return file


def follow(
    session: Session, command: Sequence[str], said: re.Pattern[bytes], ok: tuple[int, ...] = (0,)
) -> list[int]:
    """Run a program that logs to stderr, and mark each phase of the session when its words arrive.

    said: groups of the names of phases; what ``response`` holds is the status. Returns the statuses.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True, cwd=session.folder, bufsize=0,
    )  # fmt: skip
    assert process.stderr is not None
    ready = select.poll()
    ready.register(process.stderr, select.POLLIN)
    text, at, statuses = b"", 0, list[int]()
    end = time.monotonic() + LIMIT_S
    while ready.poll(max(0.0, end - time.monotonic()) * 1e3):
        if not (part := os.read(process.stderr.fileno(), 1 << 16)):
            break
        text += part
        for found in said.finditer(text, at):
            at = found.end()
            phase = str(found.lastgroup)
            if phase == "response":
                statuses.append(int(found[phase]))
            if (
                phase != "transfer" or not statuses or statuses[-1] == 200
            ):  # the text of an error does not count as content
                session.mark(phase)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    if process.wait() not in ok:
        tail = text.decode(errors="replace").strip()[-400:]
        raise LabError(f"{' '.join(command)}: exit {process.returncode}: {tail}")
    return statuses


def judge(session: Session, requests: Sequence[Request], statuses: Sequence[int]) -> None:
    """Compare answers with those expected. A missing page is no success, but no error of the lab either."""
    wanted = [request.status for request in requests]
    if list(statuses) != wanted:
        raise LabError(f"{session.activity}: the answers have status {statuses}, expected {wanted}")
    session.outcome(max(wanted) < 400)


def _page(session: Session, k: int = 0, folder: str = "") -> Request:
    """Make the k-th page of the session."""
    n = session.size()
    name = f"{session.rng.choice(WORDS)}-{session.sample}-{k}.{SUFFIX[session.parameters.content_kind]}"
    path = f"{folder}{session.host.name}/{name}"
    changed = FIRST_DAY + session.rng.randrange(SPAN_S)
    file = WWW / path
    try:
        file.write_bytes(session.content(n))
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(session.content(n))
    os.utime(file, (changed, changed))
    return Request(path, content=n, changed=changed)


def _fresh(request: Request) -> Request:
    return replace(request, changed=None)


def _get(session: Session) -> list[Request]:
    return [_fresh(_page(session))]


def _pages(session: Session) -> list[Request]:
    return [_fresh(_page(session, k)) for k in range(session.parameters.requests)]


def _streaming(session: Session) -> list[Request]:
    return [_fresh(_page(session, folder=STREAM))]


def _post(session: Session) -> list[Request]:
    return [Request(UPLOAD, body=session.content(session.size()))]


def _not_found(session: Session) -> list[Request]:
    return [
        Request(f"{session.host.name}/{session.rng.choice(WORDS)}-{session.rng.randrange(10_000)}.html", 404)
    ]


def _redirect(session: Session) -> list[Request]:
    page = _fresh(_page(session))
    return [Request(MOVED + page.path, 301), replace(page, redirected=True)]


def _cached(session: Session) -> list[Request]:
    page = _page(session)
    if session.parameters.cache == "cold":
        return [_fresh(page)]
    return [replace(page, status=304, content=0)]


_REQUESTS: dict[str, Callable[[Session], list[Request]]] = {
    "get": _get,
    "h2-get": _get,
    "h2-multi-get": _pages,
    "multi-get": _pages,
    "keep-alive": _pages,
    "post": _post,
    "streaming": _streaming,
    "not-found": _not_found,
    "redirect": _redirect,
    "cached": _cached,
}
