"""unison: both directions in one connection, with a record of the last equal state."""

from __future__ import annotations

from pathlib import Path

from probing.lab.clients import folders
from probing.lab.hosts import Host
from probing.lab.isolation import ROOM
from probing.lab.services.unison import PORT
from probing.lab.session import Session, program_version


class Unison:
    """unison."""

    programs = ("unison",)

    def perform(self, session: Session) -> None:
        """Do one of idle, put, put-edit, put-delete, put-edit-delete, large."""
        folders.perform(session, synchronise, remember)

    def version(self) -> str:
        """The version of the program."""
        return program_version("unison", "-version").split()[2]


def synchronise(session: Session, host: Host, local: Path, name: str, _news: bool) -> None:
    """Synchronise both directions; unison finds out by itself on which side something has changed."""
    home = str(ROOM / "clients" / host.name)
    session.run(
        "unison", local, f"socket://{session.server}:{PORT}/{folders.HUB / name}", "-batch", "-silent", "-log=false",
        seconds=folders.PATIENCE_S,
        env={"UNISON": f"{home}/.unison", "HOME": home, "UNISONLOCALHOSTNAME": host.name},
    )  # fmt: skip


def remember(made: folders.Folders) -> None:
    """Synchronise hosts in advance, on the server's host, so that nothing crosses the link."""

    def work() -> None:
        for host, local in made.local.items():
            synchronise(made.session, host, local, made.name, False)

    made.session.server_host.in_thread(work)


UNISON = Unison()
