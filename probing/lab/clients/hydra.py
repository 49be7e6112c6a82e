"""hydra: guesses passwords with several connections at once."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

from probing.lab.clients.dialogue import wait_for
from probing.lab.clients.guessing import FORM_TRIED, guesses
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import Session, program_version

LIMIT_S = 280.0
TIME_WAIT = "06"
FOUND = re.compile(rb"^\[\d+\]\[[\w-]+\] host: .* password: (.*)$", re.MULTILINE)
FORM = f"{FORM_TRIED}:name=^USER^&password=^PASS^:F=Wrong name or password"
SSH_TRIES = 4  # of a task, about; after the sixth the server hangs up, and the task with it for half a minute
# Its connections when it has found the password: it knows one user and ends as if the list were over. With -f it would
# kill the others in the middle of theirs.
OPTIONS = ("-I", "-w", "32", "-l", USER)


class Hydra:
    """hydra."""

    programs = ("hydra",)

    def perform(self, session: Session) -> None:
        """form-guess, ftp-guess, ssh-guess."""
        words = guesses(session).words
        listed = session.folder / "words"
        listed.write_text("".join(f"{word}\n" for word in words))
        service, tasks, more = {
            "form-guess": (
                "http-post-form",
                1,
                (FORM,),
            ),  # more of them leave connections of which nothing comes
            "ftp-guess": ("ftp", 2, ()),  # with more it has reported passwords that were none
            "ssh-guess": ("ssh", min(16, -(-len(words) // SSH_TRIES)), ()),
        }[session.activity]
        session.mark("guess")
        done = session.run("hydra", *OPTIONS, "-t", str(tasks), "-P", listed, session.server, service, *more,
                           seconds=LIMIT_S)  # fmt: skip
        session.outcome(PASSWORD.encode() in FOUND.findall(done.stdout))
        wait_for(lambda: not _open(session.server), "hydra: its server's FINs")

    def version(self) -> str:
        """Its version."""
        return program_version("hydra", "-h").split(" ")[1]


def _open(server: str) -> bool:
    """Whether this host has connections to a server that are not over, those of programs that are gone included."""
    address = f"{int.from_bytes(socket.inet_aton(server), sys.byteorder):08X}"
    lines = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return any(words[2].startswith(address) and words[3] != TIME_WAIT for words in lines)


HYDRA = Hydra()
