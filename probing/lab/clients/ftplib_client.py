"""ftplib of Python's standard library: FTP by a program of our own."""

from __future__ import annotations

import ftplib
import platform
import socket

from probing.lab.clients.dialogue import break_off, moved, wait_for
from probing.lab.clients.ftp_files import ASKS_AGAIN, Files, is_broken, prepare
from probing.lab.clients.typos import mistyped_words
from probing.lab.errors import LabError
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import COMMAND_S, Session

ONLY_LOGS_IN = 0.4  # share of those who mistype that leave once they are in
HABITS = (
    "SYST",
    "TYPE I",
    "TYPE A",
    "OPTS UTF8 ON",
    "NOOP",
    "MODE S",
    "STRU F",
)  # what programs say after a login


class _Connection(ftplib.FTP):
    """A control connection that reports its data connections to the session."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Open a data connection, and claim it for the session."""
        sock, size = super().ntransfercmd(cmd, rest)
        self._session.claim(sock.getsockname()[1], termination="fin")
        return sock, size


class Ftplib:
    """A client made of ftplib."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Log in and do the activity, which is a method of its name."""
        files = prepare(session)
        ftp = _Connection(session)
        session.mark("login")
        ftp.connect(session.server, 21, timeout=COMMAND_S)
        assert ftp.sock is not None
        port = ftp.sock.getsockname()[1]
        session.claim(port)
        ftp.set_pasv(session.activity.startswith("passive"))
        if session.activity == "mistyped-login":
            self._mistype(session, ftp, port)
        session.attempt(port, attack=False)
        try:
            ftp.login(USER, files.password)
        except ftplib.error_perm:
            session.outcome(False)
            self._in_spite(session, ftp, files)
            ftp.quit()
            return
        if session.activity.startswith("wrong-password"):
            raise LabError("a wrong password was accepted")
        if session.activity == "mistyped-login" and session.rng.random() < ONLY_LOGS_IN:
            for command in session.rng.sample(HABITS, session.rng.randint(0, 4)):
                ftp.voidcmd(command)
            session.outcome(True)
            ftp.quit()
            return
        ftp.cwd(files.there)
        if is_broken(session):
            self._broken(session, ftp, files)
            return
        work = getattr(self, "_" + session.activity.removeprefix("passive-").replace("-", "_"))
        work(session, ftp, files)
        session.outcome(True)

    def _mistype(self, session: Session, ftp: ftplib.FTP, port: int) -> None:
        """Log in with the password mistyped once or twice."""
        *wrong, _ = mistyped_words(session.rng, PASSWORD)
        for word in wrong:
            session.attempt(port, attack=False)
            try:
                ftp.login(USER, word)
            except ftplib.error_perm:
                session.think()
                continue
            raise LabError("a mistyped password was accepted")

    def _in_spite(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        """Ask for the transfer although the login was refused."""
        try:
            ftp.sendcmd(("RETR " if session.activity.endswith("get") else "STOR ") + files.names[0])
        except ftplib.error_perm:
            return
        raise LabError("a transfer without a login was accepted")

    def _broken(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        """Break off in the middle of a transfer."""
        assert ftp.sock is not None
        session.mark("transfer")
        ftp.voidcmd("TYPE I")
        session.transferred(files.total)
        rest = b""
        if session.activity.endswith("get"):
            data = ftp.transfercmd(f"RETR {files.names[0]}")
            wait_for(lambda: moved(data)[1] > 0, "first bytes of a file")
        else:
            data = ftp.transfercmd(f"STOR {files.names[0]}")
            half, rest = files.contents[0][: files.total // 2], files.contents[0][files.total // 2 :]
            data.sendall(half)
            wait_for(lambda: moved(data)[0] > len(half) // 2, "half a file")
        break_off(session, (ftp.sock, data), ASKS_AGAIN, rest)
        session.outcome(False)

    def _get(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("transfer")
        self._fetch(session, ftp, files)
        ftp.quit()

    _mistyped_login = _get

    def _mget(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("list")
        names = ftp.nlst()
        if sorted(names) != sorted(files.names):
            raise LabError(f"the server listed {len(names)} files, but there are {len(files.names)}")
        self._get(session, ftp, files)

    def _put(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("transfer")
        self._send(session, ftp, files)
        ftp.quit()

    _mput = _put

    def _put_get(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("upload")
        self._send(session, ftp, files)
        session.mark("download")
        self._fetch(session, ftp, files)
        ftp.quit()

    def _mkdir_put(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("make")
        ftp.mkd("new")
        ftp.cwd("new")
        self._put(session, ftp, files)

    def _delete(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("delete")
        for name in files.names:
            ftp.delete(name)
        ftp.quit()

    def _mdelete(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("list")
        ftp.nlst()
        self._delete(session, ftp, files)

    def _rename(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("rename")
        ftp.rename(files.names[0], "renamed.dat")
        ftp.quit()

    def _make_remove(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        session.mark("make")
        ftp.mkd("new")
        ftp.cwd("new")
        session.mark("upload")
        self._send(session, ftp, files)
        session.mark("delete")
        for name in ftp.nlst():
            ftp.delete(name)
        session.mark("remove")
        ftp.cwd("..")
        ftp.rmd("new")
        ftp.quit()

    def _idle(self, session: Session, ftp: ftplib.FTP, _: Files) -> None:
        """Wait until the server closes the idle connection."""
        session.mark("idle")
        assert ftp.sock is not None
        while ftp.sock.recv(1 << 16):
            pass
        ftp.close()

    def _send(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        for name in files.names:
            with (files.here / name).open("rb") as file:
                ftp.storbinary(f"STOR {name}", file)
        session.transferred(files.total)

    def _fetch(self, session: Session, ftp: ftplib.FTP, files: Files) -> None:
        for name, content in zip(files.names, files.contents):
            parts: list[bytes] = []
            ftp.retrbinary(f"RETR {name}", parts.append)
            if b"".join(parts) != content:
                raise LabError(
                    f"{name}: received {sum(map(len, parts))} bytes, which are not its {len(content)}"
                )
        session.transferred(files.total)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"Python {platform.python_version()}"


FTPLIB = Ftplib()
