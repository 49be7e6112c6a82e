"""hydra: guesses passwords with several connections at once."""

from __future__ import annotations

import re

from probing.lab.clients.guessing import FORM_TRIED, guesses
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import Session, program_version

LIMIT_S = 280.0
FOUND = re.compile(rb"^\[\d+\]\[[\w-]+\] host: .* password: (.*)$", re.MULTILINE)
# service, tasks at once, arguments of its module
SERVICES = {
    "form-guess": (
        "http-post-form",
        4,
        (f"{FORM_TRIED}:name=^USER^&password=^PASS^:F=Wrong name or password",),
    ),
    "ftp-guess": ("ftp", 2, ()),  # with more of them it reported passwords that were none
    "ssh-guess": ("ssh", 4, ()),
}


class Hydra:
    """hydra."""

    programs = ("hydra",)

    def perform(self, session: Session) -> None:
        """form-guess, ftp-guess, ssh-guess."""
        service, tasks, more = SERVICES[session.activity]
        words = guesses(session)
        listed = session.folder / "words"
        listed.write_text("".join(f"{word}\n" for word in words.words))
        session.mark("guess")
        done = session.run(
            "hydra", "-I", "-f", "-t", "2", "-w", "60", "-l", USER, "-P", listed, session.server, service, *more,
            seconds=LIMIT_S, ok=(0, 1),
        )  # fmt: skip
        session.outcome(PASSWORD.encode() in FOUND.findall(done.stdout))

    def version(self) -> str:
        """Its version."""
        return program_version("hydra", "-h").split(" ")[1]


HYDRA = Hydra()
