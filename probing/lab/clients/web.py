"""What web clients share: the requests that an activity consists of, with pages of their own to ask for."""

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
from probing.lab.services.web_site import MOVED, STREAM, UPLOAD, WWW, host_name
from probing.lab.session import Session

TLS = "tls-"  # prefix of the activities that are encrypted
LIMIT_S = 300.0  # of a sample: where every twentieth packet is lost, a large page takes its time
WORDS = ("about", "contact", "faq", "home", "news", "offers", "prices", "shop", "team", "terms")
SUFFIX = {"text": "html", "binary": "bin"}
FIRST_DAY, SPAN_S = 1_704_067_200, 366 * 86_400  # pages were changed last in 2024


@dataclass(frozen=True)
class Request:
    """One request and what is to come of it."""

    path: str  # of the URL, without its first slash
    status: int = 200
    content: int = 0  # bytes of the page that is to come
    body: bytes | None = None  # of a POST; None: it is a GET
    changed: int | None = None  # when the client's own copy was changed last, s since the epoch
    redirected: bool = False  # made because the answer to the one before says so


@contextmanager
def visit(session: Session) -> Iterator[list[Request]]:
    """The requests of a session, in one connection; their pages are gone when it is over.

    Tells the session what is to be transferred.
    """
    name = session.activity.removeprefix(TLS)
    if name not in _REQUESTS:
        raise LabError(f"no web client knows the activity {session.activity}")
    requests = _REQUESTS[name](session)
    if name != "not-found":
        session.transferred(sum(r.content + len(r.body or b"") for r in requests))
    try:
        yield requests
    finally:
        for request in requests:
            (WWW / request.path).unlink(missing_ok=True)


def url(session: Session, request: Request) -> str:
    """Its URL."""
    return f"{'https' if secure(session) else 'http'}://{host_name(session.server_host)}/{request.path}"


def secure(session: Session) -> bool:
    """Whether the activity is encrypted."""
    return session.activity.startswith(TLS)


def date(seconds: int) -> str:
    """A time as HTTP's headers have it."""
    return formatdate(seconds, usegmt=True)


def only_fin(session: Session, program: str) -> None:
    """Refuse an end that a program cannot bring about."""
    if session.parameters.termination != "fin":
        raise LabError(f"{program} cannot end a connection by {session.parameters.termination}; asyncio can")


def upload(session: Session, body: bytes) -> Path:
    """A file that holds what is to be sent."""
    file = session.folder / "upload"
    file.write_bytes(body)
    return file


def follow(
    session: Session, command: Sequence[str], said: re.Pattern[bytes], ok: tuple[int, ...] = (0,)
) -> list[int]:
    """Run a program that says on stderr what it does, and tell the session of each phase when its words arrive.

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
            if phase != "transfer" or not statuses or statuses[-1] == 200:  # an error's text is no content
                session.mark(phase)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    if process.wait() not in ok:
        tail = text.decode(errors="replace").strip()[-400:]
        raise LabError(f"{' '.join(command)}: exit {process.returncode}: {tail}")
    return statuses


def judge(session: Session, requests: Sequence[Request], statuses: Sequence[int]) -> None:
    """Compare answers with what was to come; a page that is not there is no success, and no failure of the lab."""
    wanted = [request.status for request in requests]
    if list(statuses) != wanted:
        raise LabError(f"{session.activity}: answers {statuses}, wanted {wanted}")
    session.outcome(max(wanted) < 400)


def _page(session: Session, k: int = 0, folder: str = "") -> Request:
    """Make a page, the k-th of the session."""
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
    "multi-get": _pages,
    "keep-alive": _pages,
    "post": _post,
    "streaming": _streaming,
    "not-found": _not_found,
    "redirect": _redirect,
    "cached": _cached,
}
