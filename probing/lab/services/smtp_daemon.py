"""A mail server that accepts mail and drops it: ``smtp_daemon.py PORT IDLE_S ACCEPT_S UNKNOWN``.

IDLE_S: seconds until an idle connection is closed. ACCEPT_S: seconds to accept a mail. UNKNOWN: refused recipient.
"""

from __future__ import annotations

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "mail.lab"
LARGEST = 1 << 28


class Sink:
    """A handler that accepts mail for all recipients but one."""

    def __init__(self, accept_s: float, unknown: str) -> None:
        self._accept_s, self._unknown = accept_s, unknown

    async def handle_RCPT(  # noqa: N802
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,  # noqa: ARG002
        envelope: Envelope,
        address: str,
        options: list[str],  # noqa: ARG002
    ) -> str:
        """Accept or refuse a recipient."""
        if address.partition("@")[0] == self._unknown:
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, *_: object) -> str:  # noqa: N802
        """Accept a mail."""
        await asyncio.sleep(self._accept_s)
        return "250 Message accepted for delivery"


async def serve(port: int, idle_s: float, accept_s: float, unknown: str) -> None:
    """Serve until the process ends."""
    sink = Sink(accept_s, unknown)

    def connection() -> SMTP:
        return SMTP(sink, hostname=HOST, ident="ESMTP", timeout=idle_s, data_size_limit=LARGEST)

    server = await asyncio.get_running_loop().create_server(connection, "0.0.0.0", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
