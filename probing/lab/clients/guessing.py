"""Guessers of passwords of our own: at the shop's login form, at an FTP server and at an SSH server."""

from __future__ import annotations

import platform
import socket
from typing import NamedTuple

from probing.lab.clients.sql import FOUND, PATIENCE_S, Visit
from probing.lab.errors import LabError
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import Session, program_version

FORM_TRIED = "/login.php"
FTP_PORT = 21
FTP_TRIES, SSH_TRIES = 3, 5  # in one connection; one more and the servers would hang up
BASES = ("password", "welcome", "dragon", "monkey", "sunshine", "shadow", "master", "letmein", "football", "princess",
         "qwerty", "iloveyou", "charlie", "summer", "winter", "autumn", "spring", "london", "secret", "hunter",
         "tigger", "flower", "coffee", "purple", "orange", "banana", "guitar", "freedom", "trustno", "starwars")  # fmt: skip
ASKPASS = """#!/bin/sh
# says the next password of a list
head -n 1 "$LAB_GUESSES"
sed -i 1d "$LAB_GUESSES"
"""


class Guesses(NamedTuple):
    """Passwords to try, in order, and whether the right one is among them."""

    words: list[str]
    holds: bool


def guesses(session: Session) -> Guesses:
    """``guesses`` different passwords; in half of the lists one of them is right."""
    rng, words = session.rng, dict[str, None]()
    while len(words) < session.parameters.guesses:
        word = rng.choice(BASES)
        words[
            f"{word.capitalize() if rng.random() < 0.3 else word}{rng.choice(('', '!', '#'))}{rng.randrange(2100)}"
        ] = None
    listed = list(words)
    holds = rng.random() < 0.5
    if holds:
        listed[rng.randrange(len(listed))] = PASSWORD
    return Guesses(listed, holds)


def in_parts(words: list[str], most: int) -> list[list[str]]:
    """Words, ``most`` at a time."""
    return [words[k : k + most] for k in range(0, len(words), most)]


class Form:
    """Tries at the shop's login."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """form-guess."""
        visit = Visit(session, ends=session.parameters.termination)
        for word in guesses(session):
            page = visit.ask(FORM_TRIED, {"name": USER, "password": word}, phase="guess")
            if page.status == FOUND:
                session.outcome(True)
                break
        else:
            session.outcome(False)
        visit.leave()

    def version(self) -> str:
        """That of its Python."""
        return platform.python_version()


class Ftp:
    """Tries in the language of FTP."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """ftp-guess."""
        session.outcome(False)
        for some in in_parts(guesses(session).words, min(session.parameters.requests, FTP_TRIES)):
            if self._connection(session, some):
                session.outcome(True)
                return

    def _connection(self, session: Session, words: list[str]) -> bool:
        session.mark("connect")
        with (
            socket.create_connection((session.server, FTP_PORT), PATIENCE_S) as at,
            at.makefile("rb") as lines,
        ):
            session.claim(at.getsockname()[1])

            def say(line: str, *answers: bytes) -> bytes:
                if line:
                    at.sendall(f"{line}\r\n".encode())
                said = lines.readline()
                if said[:3] not in answers:
                    raise LabError(
                        f"FTP: {line.split(' ', maxsplit=1)[0] or 'a greeting'}: {said.decode(errors='replace')!r}"
                    )
                return said[:3]

            say("", b"220")
            came_in = False
            for word in words:
                session.pause()
                session.mark("guess")
                say(f"USER {USER}", b"331")
                came_in = say(f"PASS {word}", b"230", b"530") == b"230"
                if came_in:
                    break
            if came_in or len(words) < FTP_TRIES:
                say("QUIT", b"221")
            while lines.read(1):  # after three wrong ones the server has already closed
                pass
            return came_in

    def version(self) -> str:
        """That of its Python."""
        return platform.python_version()


class Ssh:
    """OpenSSH's client, told a next password whenever it asks."""

    programs = ("ssh",)

    def perform(self, session: Session) -> None:
        """ssh-guess."""
        helper = session.folder / "askpass"
        helper.write_text(ASKPASS)
        helper.chmod(0o700)
        session.outcome(False)
        for some in in_parts(guesses(session).words, min(session.parameters.requests, SSH_TRIES)):
            session.mark("guess")
            if self._connection(session, some):
                session.outcome(True)
                return
            session.pause()

    def _connection(self, session: Session, words: list[str]) -> bool:
        listed = session.folder / "guesses"
        listed.write_text("".join(f"{word}\n" for word in words))
        options = {
            "NumberOfPasswordPrompts": len(words), "PreferredAuthentications": "password", "PubkeyAuthentication": "no",
            "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "LogLevel": "ERROR", "ConnectTimeout": 60,
        }  # fmt: skip
        done = session.run(
            "ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items()), f"{USER}@{session.server}",
            "true", ok=(0, 255), seconds=PATIENCE_S * 2,
            env={"SSH_ASKPASS": f"{session.folder}/askpass", "SSH_ASKPASS_REQUIRE": "force", "LAB_GUESSES": f"{listed}"},
        )  # fmt: skip
        if done.returncode and b"Permission denied" not in done.stderr:
            raise LabError(f"ssh: {done.stderr.decode(errors='replace').strip()[-400:]}")
        return done.returncode == 0

    def version(self) -> str:
        """Its version."""
        return program_version("ssh", "-V").split(",")[0]


FORM, FTP, SSH = Form(), Ftp(), Ssh()
