"""Our own password guessers: for the shop's login form, for an FTP server and for an SSH server."""

from __future__ import annotations

import platform
import socket
from random import Random

from probing.lab.clients.shop import ACCOUNT, FOUND, LOGIN, PATIENCE_S, Step, Visit, end, way_of
from probing.lab.clients.shop_pages import first_pages, last_pages
from probing.lab.clients.ssh_passwords import log_in
from probing.lab.errors import LabError
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import Session, program_version

FTP_PORT = 21
FTP_TRIES, SSH_TRIES = 3, 5  # most guesses in one connection; after these, or one more, the servers close it
NAMES = (
    USER,
    "root",
    "admin",
    "administrator",
    "test",
    "oracle",
    "postgres",
    "www-data",
    "backup",
    "webmaster",
)
BASES = ("password", "welcome", "dragon", "monkey", "sunshine", "shadow", "master", "letmein", "football", "qwerty",
         "princess", "iloveyou", "charlie", "summer", "winter", "autumn", "spring", "london", "secret", "hunter",
         "tigger", "flower", "coffee", "purple", "orange", "banana", "guitar", "freedom", "starwars")  # fmt: skip


def guesses(session: Session) -> list[str]:
    """The passwords that this sample tries: its part of a list of ``guesses`` different ones.

    Consecutive samples share a list, as many as ``parts``.
    """
    parts = session.parameters.parts
    rng = session.rng if parts == 1 else Random(f"{session.seed}/list {session.sample // parts}")
    return word_list(rng, session.parameters.guesses)[session.sample % parts :: parts]


def word_list(rng: Random, n: int) -> list[str]:
    """n different passwords, as people choose them; in half of all lists one of them is the right one."""
    words = dict[str, None]()
    while len(words) < n:
        word = rng.choice(BASES)
        word = word.capitalize() if rng.random() < 0.3 else word
        words[f"{word}{rng.choice(('', '!', '#'))}{rng.randrange(10 ** rng.randint(1, 7))}"] = None
    listed = list(words)
    if rng.random() < 0.5:
        listed[rng.randrange(len(listed))] = PASSWORD
    return listed


def in_parts(session: Session, most: int) -> list[list[str]]:
    """The words to guess, in groups of one connection each."""
    words, most = guesses(session), min(session.parameters.requests, most)
    return [words[k : k + most] for k in range(0, len(words), most)]


def only_fin(session: Session, program: str) -> None:
    """Raise LabError for a termination that a program cannot bring about."""
    if session.parameters.termination == "rst":
        raise LabError(f"{program} cannot be made to reset a connection; use termination fin")


class Form:
    """A guesser at the shop's login form."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do form-guess or form-visit."""
        visit = Visit(session, ends=way_of(session, "fin", "rst"))
        around = session.activity == "form-visit"
        before = [*first_pages(session, login_follows=True), Step(LOGIN)] if around else []
        after = last_pages(session) if around else []
        words = guesses(session)
        for step in before:
            visit.ask(step)
        session.outcome(self._guess(visit, words))
        if session.span.succeeded and around:
            visit.ask(Step(ACCOUNT, at_once=True))
        for step in after:
            visit.ask(step)
        visit.leave()
        session.span.content_bytes = None  # forms and pages do not count as content

    def _guess(self, visit: Visit, words: list[str]) -> bool:
        """Fill in the form until a password is right; whether one is."""
        for word in words:
            page = visit.ask(Step(LOGIN, {"name": USER, "password": word}, phase="guess"))
            if page.status == FOUND:
                return True
        return False

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


class Ftp:
    """A guesser that speaks FTP."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Do ftp-guess."""
        session.outcome(False)
        for words in in_parts(session, FTP_TRIES):
            if self._connection(session, words):
                session.outcome(True)
                break

    def _connection(self, session: Session, words: list[str]) -> bool:
        """Whether one of a connection's words is accepted."""
        session.mark("connect")
        at = socket.create_connection((session.server, FTP_PORT), PATIENCE_S)
        port = at.getsockname()[1]
        session.claim(port, attempts=0, carries_attack=False)
        said = _hear(at, b"220")
        for word in words:
            session.pause()
            session.think()
            session.mark("guess")
            session.attempt(port, attack=True)
            _say(at, f"USER {USER if word == PASSWORD else session.rng.choice(NAMES)}", b"331")
            said = _say(at, f"PASS {word}", b"230", b"530")
            if said == b"230":
                break
        way = way_of(session, "fin", "rst")
        if way == "fin" and (said == b"230" or len(words) < FTP_TRIES):
            _say(at, "QUIT", b"221")
        end(at, "timeout" if way == "fin" else way)  # after a farewell or three wrong words the server closes
        return said == b"230"

    def version(self) -> str:
        """The version of Python, which runs this."""
        return platform.python_version()


def _say(at: socket.socket, line: str, *answers: bytes) -> bytes:
    at.sendall(f"{line}\r\n".encode())
    return _hear(at, *answers)


def _hear(at: socket.socket, *answers: bytes) -> bytes:
    """The code of the answer, which must be one of those wanted."""
    said = b""
    while not said.endswith(b"\n"):
        part = at.recv(1024)
        if not part:
            break
        said += part
    if said[:3] not in answers:
        raise LabError(f"FTP: {said.decode(errors='replace')!r}, expected {b' or '.join(answers).decode()}")
    return said[:3]


class Ssh:
    """A guesser with OpenSSH's client, which gets the next password whenever it asks."""

    programs = ("ssh",)

    def perform(self, session: Session) -> None:
        """Do ssh-guess."""
        only_fin(session, "ssh")
        session.outcome(False)
        for words in in_parts(session, SSH_TRIES):
            session.mark("guess")
            if log_in(session, words, attack=True):
                session.outcome(True)
                break
            session.pause()

    def version(self) -> str:
        """The version of the program."""
        return program_version("ssh", "-V").split(",")[0]


FORM, FTP, SSH = Form(), Ftp(), Ssh()
