"""ssh, scp, sftp and ssh-keyscan of OpenSSH."""

from __future__ import annotations

import socket
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Literal

from probing.lab.clients.dialogue import (
    BROKEN,
    Dialogue,
    break_off,
    fail_amid,
    moved,
    unconfirmed,
    wait_for,
    wait_for_failure,
)
from probing.lab.clients.ssh_passwords import log_in
from probing.lab.clients.typos import mistyped_words
from probing.lab.errors import LabError
from probing.lab.isolation import GUEST, PASSWORD, USER
from probing.lab.services.openssh import KEYS, KINDS
from probing.lab.session import COMMAND_S, Session, program_version

CONFIGURATION = """
Host *
    User {user}
    IdentityFile {keys}/user
    IdentitiesOnly yes
    UserKnownHostsFile {place}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking accept-new
    UpdateHostKeys yes
    ExitOnForwardFailure yes
    PreferredAuthentications publickey,password
    NumberOfPasswordPrompts 1
    ConnectTimeout {seconds:.0f}
    LogLevel ERROR
    ControlPath {place}/control
"""
COMMANDS = (  # commands whose answers never change
    "uname -s", "id", "pwd", "cat /etc/passwd", "ls /usr/bin", "cat /etc/services", "wc -l /etc/protocols",
    "ls -d /usr/*", "sha256sum /etc/services", "cat /etc/shells",
)  # fmt: skip
ENTRANCE = 2222  # port of a tunnel's entrance, on the client
GREETINGS = 1000  # bytes that each side surely sends beside a file
SCANNED = len(KINDS) + 2  # connections of a key-scan: it also asks for keys on security tokens


class OpenSSH:
    """The programs of openssh-client."""

    programs = ("ssh", "scp", "sftp", "ssh-keyscan", "sshpass")

    def perform(self, session: Session) -> None:
        """Prepare the known hosts and do the activity, which is a method of its name."""
        place = session.folder / f"ssh-{session.sample}"
        place.mkdir()
        # a first visit stores one key; on the next, the client asks for the others
        if session.parameters.cache == "warm":
            keys = (KEYS / "known_hosts").read_text().splitlines(keepends=True)
            (place / "known_hosts").write_text(keys[0])
        (place / "config").write_text(
            CONFIGURATION.format(user=USER, keys=KEYS, place=place, seconds=COMMAND_S)
        )
        getattr(self, "_" + session.activity.replace("-", "_"))(session, place)

    def _commands(self, session: Session, place: Path) -> None:
        """Run commands one by one in a shell without a terminal; the last one shows a file."""
        shown = self._file(session, Path("/home") / USER / f"{session.host.name}-{session.sample}.dat")
        chosen = session.rng.choices(COMMANDS, k=session.parameters.requests - 1)
        broken = session.parameters.termination in BROKEN
        session.mark("login")
        with Dialogue(session, "ssh", "-F", place / "config", session.server, "sh") as shell:
            shell.say("echo logged-in")
            shell.hear("logged-in\n")
            for number, command in enumerate([*chosen, f"cat {shown}"]):
                if number:
                    session.pause()
                session.mark("command")
                if broken and number == len(chosen):
                    self._broken(session, shell, command)
                    session.transferred(shown.stat().st_size)
                    return
                shell.say(f"{command}; echo done-{number}")
                shell.hear(f"done-{number}\n")
            if shell.end():
                raise LabError("the shell ended with an error")
        session.transferred(shown.stat().st_size)
        session.outcome(True)

    def _broken(self, session: Session, shell: Dialogue, command: str) -> None:
        """Break off after the first answer of the last command, which does not end."""
        sockets = shell.sockets()
        before, sudden = moved(sockets[0])[1], session.parameters.termination == "sudden"
        session.outcome(False)
        if sudden and session.rng.random() < 0.5:
            fail_amid(session, sockets[0], "server")
            shell.say(command)
            wait_for_failure(session, sockets[0])
            return
        shell.say(f"{command}; sleep 1000")
        wait_for(lambda: moved(sockets[0])[1] > before, "answer of a command")
        if sudden:
            session.vanish(sockets[0].getsockname()[1])
            shell.say(command)
            wait_for(lambda: unconfirmed(sockets[0]) > 0, "a command that is not heard")
        shell.kill()
        break_off(session, sockets)

    def _lost(
        self, session: Session, sender: Literal["client", "server"], *argv: str | Path, feed: str = ""
    ) -> None:
        """Do a transfer amid which, or amid the login before it, the network fails."""
        found: list[socket.socket] = []
        size = session.span.content_bytes or 0
        size //= 2 if session.activity == "sftp" else 1  # each way once
        after = GREETINGS + int(session.rng.uniform(0.1, 0.8) * size)
        with Dialogue(session, *argv) as program:
            program.say(*feed.splitlines())

            def is_connected() -> bool:
                found[:] = program.sockets()
                return bool(found)

            wait_for(is_connected, f"{argv[0]}: connection")
            fail_amid(session, found[0], sender, after)
            wait_for_failure(session, found[0])
        session.outcome(False)

    def _idle(self, session: Session, place: Path) -> None:
        """Run a command in a shared connection, and leave it unused until the server closes it."""
        session.mark("login")
        options = ("-F", place / "config")
        with Dialogue(session, "ssh", *options, "-M", "-N", session.server) as master:
            wait_for((place / "control").exists, "shared connection")
            session.mark("command")
            only = ("-o", "ProxyCommand=false")  # no connection of its own
            session.run("ssh", *options, *only, session.server, session.rng.choice(COMMANDS))
            session.mark("idle")
            master.end()
        session.outcome(True)

    def _scp_down(self, session: Session, place: Path) -> None:
        served = self._file(session, Path("/home") / USER / f"{session.host.name}-{session.sample}.dat")
        session.mark("transfer")
        argv = ("scp", "-q", "-F", place / "config", f"{session.server}:{served}", place / "got")
        session.transferred(served.stat().st_size)
        if session.parameters.termination == "sudden":
            self._lost(session, "server", *argv)
            return
        session.run(*argv)
        self._compare(session, served, place / "got")

    def _scp_up(self, session: Session, place: Path) -> None:
        own = self._file(session, place / "own")
        target = Path("/home") / USER / f"{session.host.name}-{session.sample}.dat"
        session.mark("transfer")
        argv = ("scp", "-q", "-F", place / "config", own, f"{session.server}:{target}")
        session.transferred(own.stat().st_size)
        if session.parameters.termination == "sudden":
            self._lost(session, "client", *argv)
            return
        session.run(*argv)
        self._compare(session, own, target)

    def _sftp(self, session: Session, place: Path) -> None:
        """List a folder, upload a file and download it."""
        own = self._file(session, place / "own")
        target = Path("/home") / USER / f"{session.host.name}-{session.sample}.dat"
        batch = f"ls -l /etc\nput {own} {target}\nget {target} {place / 'got'}\n"
        session.mark("transfer")
        argv = ("sftp", "-q", "-F", place / "config", "-b", "-", session.server)
        session.transferred(2 * own.stat().st_size)
        if session.parameters.termination == "sudden":
            self._lost(session, session.rng.choice(("client", "server")), *argv, feed=batch)
            return
        session.run(*argv, feed=batch.encode())
        self._compare(session, own, place / "got")

    def _tunnel(self, session: Session, place: Path) -> None:
        """Log in through a first connection to the same server."""
        shown = self._file(session, Path("/home") / GUEST / f"{session.host.name}-{session.sample}.dat")
        options = ("-F", place / "config")
        session.mark("login")
        with Dialogue(
            session, "ssh", *options, "-L", f"{ENTRANCE}:127.0.0.1:22", session.server, "sh"
        ) as outer:
            outer.say("echo logged-in")
            outer.hear("logged-in\n")
            session.mark("command")
            done = session.run("ssh", *options, "-p", str(ENTRANCE), f"{GUEST}@127.0.0.1", f"cat {shown}")
            if outer.end():
                raise LabError("the outer shell ended with an error")
        if done.stdout != shown.read_bytes():
            raise LabError("the file from the tunnel differs from the original")
        session.transferred(len(done.stdout))
        session.outcome(True)

    def _wrong_password(self, session: Session, place: Path) -> None:
        rng = session.rng
        password = "".join(rng.choices(ascii_lowercase + digits, k=rng.randint(6, 16)))
        session.mark("login")
        done = session.run(
            "sshpass", "-p", password, "ssh", "-F", place / "config", "-o", "PubkeyAuthentication=no", session.server,
            "true", ok=(255,),
        )  # fmt: skip
        if b"Permission denied" not in done.stderr:
            raise LabError(
                f"the login was not refused but failed: {done.stderr.decode(errors='replace')[-400:]}"
            )
        session.outcome(False)

    def _password_login(self, session: Session, _place: Path) -> None:
        self._typed(session, [PASSWORD])

    def _mistyped_login(self, session: Session, _place: Path) -> None:
        self._typed(session, mistyped_words(session.rng, PASSWORD))

    def _typed(self, session: Session, words: list[str]) -> None:
        """Log in by a password, the last of those typed, and run a command."""
        command = session.rng.choice(COMMANDS)
        session.mark("login")
        session.outcome(log_in(session, words, command, attack=False))

    def _key_scan(self, session: Session, place: Path) -> None:
        """Ask for all kinds of host keys, and keep them."""
        session.mark("scan")
        done = session.run("ssh-keyscan", "-T", f"{COMMAND_S:.0f}", session.server, seconds=2 * COMMAND_S)
        lines = done.stdout.decode().splitlines()
        found = {line.split()[2] for line in lines if line and not line.startswith("#")}
        known = {line.split()[2] for line in (KEYS / "known_hosts").read_text().splitlines()}
        with (place / "known_hosts").open("ab") as file:
            file.write(done.stdout)
        session.outcome(found == known)

    def _file(self, session: Session, path: Path) -> Path:
        path.write_bytes(session.content(session.size()))
        path.chmod(0o644)
        return path

    def _compare(self, session: Session, sent: Path, received: Path) -> None:
        if sent.read_bytes() != received.read_bytes():
            raise LabError(f"{received}: differs from the original")
        session.outcome(True)

    def version(self) -> str:
        """The version of the program."""
        return program_version("ssh", "-V").partition(",")[0]


OPENSSH = OpenSSH()
