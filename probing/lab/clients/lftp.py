"""lftp: FTP by an interactive program, driven line by line."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from probing.lab.clients.dialogue import Dialogue, break_off, moved, wait_for
from probing.lab.clients.ftp_files import ASKS_AGAIN, Files, is_broken, prepare
from probing.lab.errors import LabError
from probing.lab.isolation import USER
from probing.lab.session import COMMAND_S, Session, program_version

SETTINGS = (
    "set cmd:fail-exit yes", "set xfer:log no", "set net:max-retries 1", f"set net:timeout {COMMAND_S:.0f}",
    "set ftp:ssl-allow no", "set ftp:prefer-epsv no", "set dns:order inet",
)  # fmt: skip
# commands by activity, a list for each phase; NAME: the first file, HERE: the client's folder
WORK: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "get": (("transfer", ("get NAME -o HERE/got",)),),
    "mget": (("list", ("cls -q1 > HERE/list",)), ("transfer", ("mget -O HERE *.dat",))),
    "delete": (("delete", ("rm NAME",)),),
    "mdelete": (("list", ("cls -q1 > HERE/list",)), ("delete", ("mrm *.dat",))),
    "mkdir-put": (("make", ("mkdir new", "cd new")), ("transfer", ("put HERE/NAME",))),
    "rename": (("rename", ("mv NAME renamed.dat",)),),
    "put": (("transfer", ("put HERE/NAME",)),),
    "put-get": (("upload", ("put HERE/NAME",)), ("download", ("get NAME -o HERE/got",))),
    "mput": (("transfer", ("mput HERE/*.dat",)),),
    "make-remove": (
        ("make", ("mkdir new", "cd new")), ("upload", ("mput HERE/*.dat",)), ("delete", ("mrm *.dat",)),
        ("remove", ("cd ..", "rmdir new")),
    ),
}  # fmt: skip
PIPE = 1 << 16  # capacity of a pipe in bytes
# number of times that the files cross the link
TIMES = {"get": 1, "mget": 1, "mkdir-put": 1, "put": 1, "put-get": 2, "mput": 1, "make-remove": 1}


class Lftp:
    """lftp."""

    programs = ("lftp",)

    def perform(self, session: Session) -> None:
        """Log in and do the activity."""
        files = prepare(session)
        mode = "on" if session.activity.startswith("passive") else "off"
        with Dialogue(session, "lftp", "--norc") as lftp:
            lftp.say(*SETTINGS, f"set ftp:passive-mode {mode}")
            lftp.say(f"open -u {USER},{files.password} {session.server}")
            session.mark("login")
            lftp.say(f"cd {files.there}")
            if session.activity.startswith("wrong-password"):
                self._refused(session, lftp)
                return
            lftp.say("echo logged-in")
            lftp.hear("logged-in")
            if session.activity == "idle":
                self._idle(session, lftp)
            elif is_broken(session):
                self._broken(session, lftp, files)
            else:
                self._work(session, lftp, files)

    def _refused(self, session: Session, lftp: Dialogue) -> None:
        lftp.hear("530")
        session.outcome(False)
        if lftp.end() == 0:
            raise LabError("a wrong password was accepted")

    def _work(self, session: Session, lftp: Dialogue, files: Files) -> None:
        activity = session.activity.removeprefix("passive-")
        for phase, commands in WORK[activity]:
            session.mark(phase)
            for command in commands:
                lftp.say(command.replace("HERE", str(files.here)).replace("NAME", files.names[0]))
            lftp.say(f"echo done-{phase}")
            lftp.hear(f"done-{phase}")
        if lftp.end():
            raise LabError(f"{session.activity}: lftp ended with an error")
        if times := TIMES.get(activity, 0):
            session.transferred(files.total * times)
        got = files.here / "got"
        if got.exists() and got.read_bytes() != files.contents[0]:
            raise LabError(f"{files.names[0]}: the received file differs from the sent one")
        session.outcome(True)

    def _idle(self, session: Session, lftp: Dialogue) -> None:
        """Wait until the server closes the idle connection."""
        session.mark("idle")

        def closed() -> bool:
            sockets = lftp.sockets()
            for sock in sockets:
                sock.close()
            return not sockets

        wait_for(closed, "end of an idle connection")
        lftp.end()
        session.outcome(True)

    def _broken(self, session: Session, lftp: Dialogue, files: Files) -> None:
        """Break off in the middle of a transfer; an upload reads from a pipe that is not filled."""
        session.mark("transfer")
        session.transferred(files.total)
        rest = b""
        if session.activity.endswith("get"):
            lftp.say(f"get {files.names[0]} -o {files.here}/got")
            sockets = self._connections(lftp, lambda data: moved(data)[1] > 0)
        else:
            pipe = files.here / "pipe"
            os.mkfifo(pipe)
            half = files.contents[0][: min(files.total // 2, PIPE)]
            rest = files.contents[0][len(half) :]
            both = os.open(pipe, os.O_RDWR)  # opening one end alone would wait for the other
            with os.fdopen(both, "wb", buffering=0) as end:
                end.write(half)
                lftp.say(f"put {pipe} -o {files.names[0]}")
                sockets = self._connections(lftp, lambda data: moved(data)[0] > len(half) // 2)
                lftp.kill()
        lftp.kill()
        break_off(session, sockets, ASKS_AGAIN, rest)
        session.outcome(False)

    def _connections(self, lftp: Dialogue, ready: Callable[[socket.socket], bool]) -> list[socket.socket]:
        """The control and the data connection, when the latter is ``ready``."""
        found: list[socket.socket] = []

        def both() -> bool:
            for sock in found:
                sock.close()
            found[:] = sorted(lftp.sockets(), key=lambda sock: sock.getpeername()[1] != 21)
            return len(found) == 2 and ready(found[1])

        wait_for(both, "lftp's transfer")
        return found

    def version(self) -> str:
        """The version of the program."""
        return program_version("lftp", "--version").split(" ")[3]


LFTP = Lftp()
