"""Listeners with banners, as a separate program: ``open_host_daemon.py TCP,TCP,… UDP,UDP,…``."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

BANNERS = {  # first line that a port sends; a port that is not here waits for a request
    21: b"220 ProFTPD Server ready.\r\n",
    22: b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    25: b"220 mail.lab ESMTP Postfix\r\n",
    110: b"+OK Dovecot ready.\r\n",
    143: b"* OK [CAPABILITY IMAP4rev1 LITERAL+ IDLE] Dovecot ready.\r\n",
}
PAGE = b"HTTP/1.0 200 OK\r\nServer: lighttpd/1.4.69\r\nContent-Length: 6\r\n\r\nhello\n"
LIMIT_S = 30.0  # most seconds that a client may stay


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the banner, or answer one request with a page, then read until the client closes."""
    banner = BANNERS.get(writer.get_extra_info("sockname")[1])
    try:
        if banner is not None:
            writer.write(banner)
        elif await asyncio.wait_for(reader.read(4096), LIMIT_S):
            writer.write(PAGE)
            return
        while await asyncio.wait_for(reader.read(4096), LIMIT_S):
            pass
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


class _Echo(asyncio.DatagramProtocol):
    """A port that answers a datagram with as many bytes, at most 64."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for answers."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a datagram."""
        self._transport.sendto(data[:64], addr)


async def serve(tcp: list[int], udp: list[int]) -> None:
    """Listen until the process ends."""
    loop = asyncio.get_running_loop()
    for port in udp:
        await loop.create_datagram_endpoint(_Echo, local_addr=("0.0.0.0", port))
    for port in tcp:
        await asyncio.start_server(_answer, "0.0.0.0", port)
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(serve(*([int(port) for port in word.split(",")] for word in sys.argv[1:3])))
