"""The files of an FTP activity, made on both sides before it begins, so that no transfer is needed to make them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits

from probing.lab.clients.dialogue import BROKEN
from probing.lab.isolation import PASSWORD, UID, USER
from probing.lab.services.vsftpd import CHUNK
from probing.lab.session import Session

# activities whose files are on the server from the beginning
THERE = ("get", "passive-get", "mget", "delete", "mdelete", "rename", "wrong-password-get", "mistyped-login")
SEVERAL = ("mget", "mdelete", "mput", "make-remove")
LEAST_BROKEN = 4 * CHUNK  # least bytes of a file whose transfer is broken off in its middle
LONG_AGO = 1_500_000_000  # modification time of all files: clients send it to servers


@dataclass(frozen=True)
class Files:
    """The files of a sample. ``here``: the client's folder; ``there``: the server's, as its user sees it."""

    here: Path
    there: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    contents: tuple[bytes, ...]
    password: str

    @property
    def total(self) -> int:
        """The number of bytes of all files."""
        return sum(self.sizes)


BREAKABLE = ("get", "put", "passive-get", "passive-put")  # activities whose transfer can be broken off
ASKS_AGAIN = b"NOOP\r\n"  # a client's question on the control connection, when its network has failed


def is_broken(session: Session) -> bool:
    """Whether the session breaks its transfer off."""
    return session.activity in BREAKABLE and session.parameters.termination in BROKEN


def prepare(session: Session) -> Files:
    """Make the files of a sample where the activity needs them; returns them."""
    count = session.parameters.requests if session.activity in SEVERAL else 1
    names = tuple(f"{_word(session, 4, 16)}-{k}.dat" for k in range(count))
    sizes = tuple(session.size() for _ in names)
    if session.parameters.termination in BROKEN:  # vsftpd pauses after CHUNK bytes, lftp sends from 8,192 on
        sizes = tuple(max(LEAST_BROKEN, n) for n in sizes)
    contents = tuple(session.content(n) for n in sizes)
    there = f"{session.host.name}-{session.sample}"
    here, served = session.folder / there, Path("/home") / USER / there
    here.mkdir()
    served.mkdir()
    os.chown(served, UID, UID)
    folder = served if session.activity in THERE else here
    for name, content in zip(names, contents):
        (folder / name).write_bytes(content)
        os.chown(folder / name, UID, UID)
        os.utime(folder / name, (LONG_AGO, LONG_AGO))
    wrong = session.activity.startswith("wrong-password")
    password = _word(session, 8, 16) if wrong else PASSWORD
    return Files(here, there, names, sizes, contents, password)


def _word(session: Session, least: int, most: int) -> str:
    rng = session.rng
    return "".join(rng.choices(ascii_lowercase + digits, k=rng.randint(least, most)))
