"""Sends datagrams back: ``echo_daemon.py PORT``. It also listens on the TCP port, only to show that it is ready."""

from __future__ import annotations

import socket
import sys

ROOM = 1 << 16  # most bytes of a datagram


def serve(port: int) -> None:
    """Answer until the process ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket() as ready:
        sock.bind(("0.0.0.0", port))
        ready.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ready.bind(("0.0.0.0", port))
        ready.listen(8)
        while True:
            data, peer = sock.recvfrom(ROOM)
            sock.sendto(data, peer)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
