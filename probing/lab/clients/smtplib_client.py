"""smtplib of Python's standard library."""

from __future__ import annotations

import platform
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP

from probing.lab.clients.dialogue import (
    BROKEN,
    break_off,
    fail_amid,
    moved,
    wait_for,
    wait_for_failure,
)
from probing.lab.clients.mails import Mail, compose
from probing.lab.errors import LabError
from probing.lab.session import COMMAND_S, Session

SENT = datetime(2024, 1, 1, tzinfo=UTC)  # date of all mails


class Smtplib:
    """A client made of smtplib."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Greet the server and send the mails of the activity."""
        count = session.parameters.requests if session.activity == "several" else 1
        mails = [compose(session) for _ in range(count)]
        session.mark("mail" if session.activity != "idle" else "greeting")
        name = f"{session.host.name}.lab"
        server = smtplib.SMTP(session.server, 25, local_hostname=name, timeout=COMMAND_S)
        assert server.sock is not None
        session.claim(server.sock.getsockname()[1])
        server.ehlo()
        how = session.parameters.termination
        if session.activity == "idle":
            self._idle(session, server)
            return
        broken = session.rng.randrange(count) if how in BROKEN else -1
        for number, mail in enumerate(mails):
            if number:
                session.pause()
                session.mark("mail")
            if number == broken:
                self._broken(session, server, mail)
                return
            self._send(session, server, mail)
        if how == "timeout":
            self._wait_for_the_server(server)
        else:
            server.quit()

    def _send(self, session: Session, server: smtplib.SMTP, mail: Mail) -> None:
        refused = session.activity == "rejected-recipient"
        try:
            server.sendmail(mail.sender, [mail.recipient], _message(session, mail))
        except smtplib.SMTPRecipientsRefused:
            if not refused:
                raise
        else:
            if refused:
                raise LabError("an unknown recipient was accepted")
            session.transferred(mail.size)
        session.outcome(not refused)

    def _broken(self, session: Session, server: smtplib.SMTP, mail: Mail) -> None:
        """Break off in the middle of a mail."""
        message = _message(session, mail)
        session.transferred(mail.size)
        server.mail(mail.sender)
        server.rcpt(mail.recipient)
        server.docmd("DATA")
        sock = server.sock
        assert sock is not None
        if session.parameters.termination == "sudden" and session.rng.random() < 0.5:
            fail_amid(session, sock, "server")  # the answer to the whole mail
            sock.sendall(message + b"\r\n.\r\n")
            wait_for_failure(session, sock)
            session.outcome(False)
            return
        before = moved(sock)[0]
        half = message[: len(message) // 2]
        sock.sendall(half)
        wait_for(lambda: moved(sock)[0] >= before + len(half), "confirmation of half a mail")
        break_off(session, [sock], message[len(half) :])
        session.outcome(False)

    def _idle(self, session: Session, server: smtplib.SMTP) -> None:
        """Wait until the server closes the idle connection."""
        session.mark("idle")
        self._wait_for_the_server(server)
        session.outcome(True)

    def _wait_for_the_server(self, server: smtplib.SMTP) -> None:
        assert server.sock is not None
        while server.sock.recv(1 << 16):
            pass
        server.close()

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"Python {platform.python_version()}"


def _message(session: Session, mail: Mail) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = mail.sender, mail.recipient, mail.subject
    message["Date"] = SENT
    message["Message-ID"] = f"<{session.rng.getrandbits(64):016x}@{session.host.name}.lab>"
    message.set_content(mail.text, maintype="text", subtype="plain", cte="7bit")
    if mail.attachment:
        message.add_attachment(
            mail.attachment, maintype="application", subtype="octet-stream", filename="file.dat"
        )
        message.set_boundary(f"{session.rng.getrandbits(64):016x}")
    return message.as_bytes()


SMTPLIB = Smtplib()
