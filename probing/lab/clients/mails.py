"""The mails of SMTP activities."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from probing.lab.services.smtp import UNKNOWN
from probing.lab.session import Session

COLUMNS = 72  # most characters of a line; SMTP allows 998


@dataclass(frozen=True)
class Mail:
    """A mail: sender, recipient, text."""

    sender: str
    recipient: str
    subject: str
    text: bytes  # lines
    attachment: bytes
    size: int  # bytes of content


def compose(session: Session) -> Mail:
    """The next mail of a session."""
    n = session.size()
    content = session.content(n)
    attached = session.activity == "send-attachment"
    plain = base64.b64encode(content) if session.parameters.content_kind == "binary" else content
    text = b"Please find the file attached.\n" if attached else _lines(plain)
    name = UNKNOWN if session.activity == "rejected-recipient" else _word(session)
    return Mail(
        f"{_word(session)}@{session.host.name}.lab", f"{name}@mail.lab", " ".join(_word(session) for _ in range(4)),
        text, content if attached else b"", n,
    )  # fmt: skip


def _lines(content: bytes) -> bytes:
    return b"".join(content[k : k + COLUMNS] + b"\n" for k in range(0, len(content), COLUMNS))


def _word(session: Session) -> str:
    return "".join(session.rng.choices("abcdefghijklmnopqrstuvwxyz", k=session.rng.randint(3, 10)))
