"""A mail server that accepts mail and drops it, as a program of its own: ``smtp_daemon.py PORT IDLE_S ACCEPT_S``.

IDLE_S: until an idle connection is closed. ACCEPT_S: what it takes to accept a mail.
"""

from __future__ import annotations

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "mail.lab"
UNKNOWN = "nobody"  # recipients of this name are refused
LARGEST = 1 << 28


class Sink:
    """Takes mail for everybody but UNKNOWN."""

    def __init__(self, accept_s: float) -> None:
        self._accept_s = accept_s

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A recipient."""
        if address.partition("@")[0] == UNKNOWN:
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """A mail."""
        await asyncio.sleep(self._accept_s)
        return "250 Message accepted for delivery"


async def serve(port: int, idle_s: float, accept_s: float) -> None:
    """Serve until the process ends."""
    sink = Sink(accept_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(sink, hostname=HOST, ident="ESMTP", timeout=idle_s, data_size_limit=LARGEST), "0.0.0.0", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
