"""curl: HTTP requests of a command line."""

from __future__ import annotations

from probing.lab.isolation import ROOM
from probing.lab.session import Session, program_version


class Curl:
    """curl."""

    programs = ("curl",)

    def perform(self, session: Session) -> None:
        """get."""
        n = session.size()
        (ROOM / "www" / f"{session.sample}.txt").write_bytes(session.content(n))
        session.transferred(n)
        session.mark("request")
        session.run("curl", "-q", "-s", "-o", "/dev/null", f"http://{session.server}/{session.sample}.txt")
        session.outcome(True)

    def version(self) -> str:
        """Its version."""
        return program_version("curl", "--version").split(" ")[1]


CURL = Curl()
