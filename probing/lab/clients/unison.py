"""unison: both directions in one connection, with a memory of what was equal the last time."""

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
        """idle, put, put-edit, put-delete, put-edit-delete, large."""
        folders.perform(session, synchronise, remember)

    def version(self) -> str:
        """Its version."""
        return program_version("unison", "-version").split()[2]


def synchronise(session: Session, host: Host, local: Path, name: str, _news: bool) -> None:
    """Both directions: unison finds out itself on which side something has changed."""
    home = str(ROOM / "clients" / host.name)
    session.run(
        "unison", local, f"socket://{session.server}:{PORT}/{folders.HUB / name}", "-batch", "-silent", "-log=false",
        seconds=folders.PATIENCE_S,
        env={"UNISON": f"{home}/.unison", "HOME": home, "UNISONLOCALHOSTNAME": host.name},
    )  # fmt: skip


def remember(made: folders.Folders) -> None:
    """Let hosts have synchronised before: on the server's host, whose own address is never behind the link."""

    def work() -> None:
        for host, local in made.local.items():
            synchronise(made.session, host, local, made.name, False)

    made.session.server_host.in_thread(work)


UNISON = Unison()
