"""swaks: mails from the command line."""

from __future__ import annotations

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
from probing.lab.clients.mails import Mail, compose
from probing.lab.errors import LabError
from probing.lab.session import COMMAND_S, Session, program_version

REFUSED = 24  # exit status: no recipient was accepted
COMMANDS = 150  # bytes; more than the commands before a mail, less than those and the mail's head


class Swaks:
    """swaks."""

    programs = ("swaks",)

    def perform(self, session: Session) -> None:
        """Send a mail."""
        mail = compose(session)
        argv = self._command(session, mail)
        session.mark("mail")
        if session.parameters.termination == "timeout":
            raise LabError("swaks cannot wait until the server closes; use the client smtplib")
        if session.activity.startswith("send") and session.parameters.termination in BROKEN:
            self._broken(session, argv, mail)
            return
        refused = session.activity == "rejected-recipient"
        done = session.run(*argv, ok=(0, REFUSED), seconds=2 * COMMAND_S)
        if (done.returncode == REFUSED) != refused:
            said = done.stdout.decode(errors="replace")[-400:]
            raise LabError(f"swaks ended with status {done.returncode}: {said}")
        if not refused:
            session.transferred(mail.size)
        session.outcome(not refused)

    def _command(self, session: Session, mail: Mail) -> list[str]:
        """The command line, with fixed values for everything that swaks would look up or take from the clock."""
        text = session.folder / f"mail-{session.sample}.txt"
        text.write_bytes(mail.text)
        argv = [
            "swaks", "--server", session.server, "--helo", f"{session.host.name}.lab", "--timeout", f"{COMMAND_S:.0f}",
            "--from", mail.sender, "--to", mail.recipient, "--header", f"Subject: {mail.subject}",
            "--header", "Date: Mon, 01 Jan 2024 00:00:00 +0000",
            "--header", f"Message-Id: <{session.rng.getrandbits(64):016x}@{session.host.name}.lab>",
            "--body", f"@{text}", "--suppress-data",
        ]  # fmt: skip
        if mail.attachment:
            file = session.folder / f"mail-{session.sample}.dat"
            file.write_bytes(mail.attachment)
            argv += ["--attach-type", "application/octet-stream", "--attach-name", "file.dat"]
            argv += ["--attach", f"@{file}"]
        return argv

    def _broken(self, session: Session, argv: list[str], mail: Mail) -> None:
        """Break off after the mail is sent and before it is accepted: the network fails with the server's answer."""
        session.transferred(mail.size)
        with Dialogue(session, *argv) as swaks:
            if session.parameters.termination == "sudden":
                swaks.hear("<-  354")
                (sock,) = swaks.sockets()
                fail_amid(session, sock, "server")
                wait_for_failure(session, sock)
                session.outcome(False)
                return
            swaks.hear("lines sent")  # swaks prints this a moment before
            (sock,) = swaks.sockets()
            sent = mail.size + COMMANDS
            wait_for(lambda: moved(sock)[0] > sent and unconfirmed(sock) == 0, "confirmation of a mail")
            swaks.kill()
            break_off(session, [sock])
        session.outcome(False)

    def version(self) -> str:
        """The version of the program."""
        return program_version("swaks", "--version").rpartition(" ")[2]


SWAKS = Swaks()
