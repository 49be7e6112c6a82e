"""rsync against an rsync daemon: one connection a direction."""

from __future__ import annotations

from pathlib import Path

from probing.lab.clients import folders
from probing.lab.hosts import Host
from probing.lab.session import Session, program_version


class Rsync:
    """rsync."""

    programs = ("rsync",)

    def perform(self, session: Session) -> None:
        """Do one of idle, put, put-edit, put-delete, put-edit-delete, large."""
        folders.perform(session, synchronise)

    def version(self) -> str:
        """The version of the program."""
        return program_version("rsync", "--version").split()[2]


def synchronise(session: Session, _host: Host, local: Path, name: str, news: bool) -> None:
    """Upload when this host has changes, download otherwise; the receiving side becomes equal to the sending one."""
    here, there = f"{local}/", f"rsync://{session.server}/hub/{name}/"
    source, target = (here, there) if news else (there, here)
    session.run(
        "rsync",
        "-az",
        "--delete",
        "--contimeout=40",
        "--timeout=50",
        source,
        target,
        seconds=folders.PATIENCE_S,
    )


RSYNC = Rsync()
