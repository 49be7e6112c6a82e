"""The client's end of a tunnel through names, and ordinary look-ups of long names and texts at the same server.

Nothing but random bytes of the seed goes through the tunnel.
"""

from __future__ import annotations

import platform
import socket
import struct
import time
import zlib
from collections.abc import Callable

from probing.lab.errors import LabError
from probing.lab.services.tunnel import CARGO, PORT
from probing.lab.services.tunnel_daemon import (
    DOWN,
    NULL,
    TXT,
    UP,
    A,
    Piece,
    asked,
    carried,
    ordinary,
    question,
)
from probing.lab.session import Session

AGAIN_S, TRIES = 2.0, 8  # seconds after which a query is sent again, and most queries
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ("cdn", "edge", "static", "img", "assets", "media", "eu-west", "cache", "node", "pool", "origin")
SELECTORS = ("_dmarc", "selector1._domainkey", "google._domainkey", "_spf", "_acme-challenge")


class DnsTunnel:
    """The tunnel's client, which is an ordinary resolver, too."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do one of long-names, texts, upload, download, exchange."""
        work: dict[str, Callable[[_Asker], bool]] = {
            "long-names": _names, "texts": _names, "upload": _upload, "download": _download, "exchange": _exchange,
        }  # fmt: skip
        session.mark("query")
        asker = _Asker(session)
        try:
            session.outcome(work[session.activity](asker))
        finally:
            asker.socket.close()
            (CARGO / f"{asker.id}.down").unlink(missing_ok=True)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


class _Asker:
    """A socket for the queries of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        # unique among the clients of a run, so that sessions at the server do not mix
        self.id = f"{int(session.host.address.rpartition('.')[2]):02x}{session.sample & 0xFF:02x}"
        self.kind = session.rng.choice((TXT, NULL))
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((session.server, PORT))
        session.claim(self.socket.getsockname()[1])

    def ask(self, name: str, kind: int) -> bytes:
        """The answer's message; the query is sent again while there is none."""
        number = self.session.rng.randrange(1 << 16)
        message = question(number, name, kind)
        for _ in range(TRIES):
            self.socket.send(message)
            end = time.monotonic() + AGAIN_S
            while (left := end - time.monotonic()) > 0:
                self.socket.settimeout(left)
                try:
                    answer = self.socket.recv(4096)
                    if asked(answer)[:2] == (number, name):
                        return answer
                except (TimeoutError, IndexError, UnicodeDecodeError, struct.error):
                    continue  # late, or damaged on its way
        raise LabError(f"{name}: no answer to {TRIES} queries")

    def piece(self, verb: str, number: int, data: bytes = b"") -> bytes:
        """What a piece of the tunnel brings back."""
        return carried(self.ask(Piece(self.id, verb, number, data).name(), self.kind))


def _names(asker: _Asker) -> bool:
    """Look up long names or texts; returns whether all answers are right."""
    session, right = asker.session, True
    for k in range(session.parameters.requests):
        if k:
            session.pause()
        kind = A if session.activity == "long-names" else TXT
        name = _long_name(session) if kind == A else _name_of_text(session)
        answer = asker.ask(name, kind)
        right &= answer.endswith(ordinary(name, kind))
    return right


def _word(session: Session, low: int, high: int) -> str:
    return "".join(session.rng.choices(LETTERS, k=session.rng.randint(low, high)))


def _long_name(session: Session) -> str:
    """A name as content networks have: drawn characters, and words, 40 to 120 characters in all."""
    rng = session.rng
    parts = [_word(session, 12, 40), *rng.sample(WORDS, rng.randint(1, 3)), _word(session, 8, 24)]
    return ".".join([*parts, rng.choice(WORDS), "lab.test"])


def _name_of_text(session: Session) -> str:
    return f"{session.rng.choice(SELECTORS)}.{_word(session, 5, 14)}.lab.test"


def _upload(asker: _Asker) -> bool:
    """Send content up in names; returns whether all of it arrived."""
    return _send_up(asker, asker.session.content(asker.session.size()))


def _send_up(asker: _Asker, content: bytes, first: int = 0, before: bytes = b"") -> bool:
    session = asker.session
    session.transferred(len(content))
    pieces = range(0, max(1, len(content)), UP)
    for k, at in enumerate(pieces, first):
        if k:
            session.pause()
        asker.piece("up", k, content[at : at + UP])
    return asker.piece("sum", first + len(pieces)) == struct.pack(">I", zlib.crc32(before + content))


def _download(asker: _Asker) -> bool:
    """Fetch content in answers; returns whether all of it arrived."""
    session = asker.session
    content, size = session.content(session.size()), DOWN[asker.kind]
    session.transferred(len(content))
    (CARGO / f"{asker.id}.down").write_bytes(content)
    got = b""
    for k in range(-(-len(content) // size) + 1):  # one more, to learn that this is all
        if k:
            session.pause()
        got += asker.piece("down", k)
    return got == content


def _exchange(asker: _Asker) -> bool:
    """Short messages up and down in turn, as of a shell: as many as requests."""
    session, right, sent = asker.session, True, b""
    size = DOWN[asker.kind]
    answers = [session.content(session.rng.randint(20, size)) for _ in range(session.parameters.requests)]
    # each answer is a piece of its own; all but the last are filled up
    (CARGO / f"{asker.id}.down").write_bytes(
        b"".join(a.ljust(size, b"\0") for a in answers[:-1]) + answers[-1]
    )
    for k, answer in enumerate(answers):
        if k:
            session.pause()
        said = session.content(session.rng.randint(5, UP))
        right &= _send_up(asker, said, 2 * k, sent)
        sent += said
        session.transferred(len(answer))
        right &= asker.piece("down", k).rstrip(b"\0") == answer.rstrip(b"\0")
    return right


DNS_TUNNEL = DnsTunnel()
