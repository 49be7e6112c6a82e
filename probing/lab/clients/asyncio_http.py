"""A client of our own on asyncio's streams: any way of ending a connection, and times of its phases to the microsecond.

Within one process, since it makes connections by the ten thousands: an event loop a thread, kept from sample to sample.
"""

from __future__ import annotations

import asyncio
import platform
import socket
import ssl
import struct
import threading
from dataclasses import dataclass
from functools import cache

from probing.lab.clients import web
from probing.lab.errors import LabError
from probing.lab.session import Session

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends no FIN but a RST
AGENT = "wiresonde-lab"
PORTS = {False: 80, True: 443}
_thread = threading.local()


class Asyncio:
    """HTTP/1.1 by hand."""

    programs: tuple[str, ...] = ()

    def perform(self, session: Session) -> None:
        """Any activity, in one connection that ends in any way."""
        with web.visit(session) as requests:
            _runner().run(_Conversation(session, requests).go())

    def version(self) -> str:
        """Python's."""
        return platform.python_version()


@dataclass(frozen=True)
class Break:
    """Where a connection that does not end well breaks off."""

    request: int
    share: float | None  # of its content, either direction; None: when it is answered


class _Conversation:
    """One connection, from its start to its end."""

    def __init__(self, session: Session, requests: list[web.Request]) -> None:
        self.session, self.requests = session, requests
        self.statuses: list[int] = []
        self.ends = session.parameters.termination
        self.breaks = _break(session, requests) if self.ends in ("rst", "sudden") else None

    async def go(self) -> None:
        """Everything."""
        async with asyncio.timeout(web.LIMIT_S):
            await self._connect()
            try:
                ...
            finally:
                ...
