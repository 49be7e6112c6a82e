"""Programs that are driven while they run, and their connections.

A program's sockets can be borrowed: that reveals its local ports, and allows to reset a connection or leave it half
open although the program cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from select import select
from typing import Literal

from probing.lab.errors import LabError
from probing.lab.session import COMMAND_S, Session

_PIDFD_GETFD = 438
_ACKED, _RECEIVED = 120, 128  # places in struct tcp_info of bytes_acked, bytes_received
BROKEN = ("rst", "sudden")  # terminations in the middle of a conversation
_libc = ctypes.CDLL(None, use_errno=True)


def processes(pid: int) -> Iterator[int]:
    """The ids of a process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from processes(int(child))


def borrow(pid: int, server: str) -> list[socket.socket]:
    """Duplicates of a program's TCP connections to a server, which stay open until these are closed too."""
    found: dict[int, socket.socket] = {}
    for process in processes(pid):
        try:
            names = [(int(fd.name), os.readlink(fd)) for fd in Path(f"/proc/{process}/fd").iterdir()]
            handle = os.pidfd_open(process)
        except OSError:  # it has just ended
            continue
        for fd, name in names:
            if name.startswith("socket:") and (copy := _copy(handle, fd)) is not None:
                port = _local_port(copy, server)
                if port is None or port in found:
                    copy.close()
                else:
                    found[port] = copy
        os.close(handle)
    return list(found.values())


def _copy(handle: int, fd: int) -> socket.socket | None:
    number = _libc.syscall(_PIDFD_GETFD, handle, fd, 0)
    return socket.socket(fileno=number) if number >= 0 else None


def _local_port(sock: socket.socket, server: str) -> int | None:
    if sock.family != socket.AF_INET or sock.type != socket.SOCK_STREAM:
        return None
    try:
        return int(sock.getsockname()[1]) if sock.getpeername()[0] == server else None
    except OSError:
        return None


def moved(sock: socket.socket) -> tuple[int, int]:
    """The bytes that the other side of a TCP connection has acknowledged, and those received from it."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("Q", info, _ACKED)[0], struct.unpack_from("Q", info, _RECEIVED)[0]


def unconfirmed(sock: socket.socket) -> int:
    """The bytes that were written and not yet acknowledged."""
    waiting = bytearray(4)
    fcntl.ioctl(sock, termios.TIOCOUTQ, waiting)
    return int.from_bytes(waiting, sys.byteorder)


def wait_for(ready: Callable[[], bool], what: str, seconds: float = COMMAND_S) -> None:
    """Wait until a condition holds. Raises LabError when time is up."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"{what}: not after {seconds:g} s")
        time.sleep(0.002)


def break_off(session: Session, sockets: Iterable[socket.socket], *more: bytes) -> None:
    """End connections by ``termination``: reset them, or leave them on a network that has failed.

    more: bytes that the client still sends on each of them after the failure, and that nobody acknowledges.
    """
    how = session.parameters.termination
    for k, sock in enumerate(sockets):
        session.claim(sock.getsockname()[1], termination=how)
        if how == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        else:
            session.vanish(sock.getsockname()[1])
            session.keep(sock)
            if k < len(more) and more[k]:
                with contextlib.suppress(BlockingIOError):  # the socket is full: then there is enough to send
                    sock.send(more[k], socket.MSG_DONTWAIT)


def fail_amid(
    session: Session, sock: socket.socket, sender: Literal["client", "server"], after: int = 0
) -> None:
    """Let the network fail as soon as more than ``after`` further bytes of payload come from the sender."""
    session.claim(sock.getsockname()[1], termination="sudden")
    session.vanish_amid(sock.getsockname()[1], sender, after)
    session.keep(sock)


def wait_for_failure(session: Session, sock: socket.socket) -> None:
    """Wait until the network has failed for a connection."""
    port = sock.getsockname()[1]
    wait_for(lambda: session.vanished(port), "failure of the network")


class Dialogue:
    """A program of a session that reads lines from its standard input; it is killed at the end if it still runs."""

    def __init__(self, session: Session, *argv: str | Path) -> None:
        self._session, self.name, self._said = session, str(argv[0]), b""
        self._process = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=session.folder, bufsize=0,
        )  # fmt: skip

    def say(self, *lines: str) -> None:
        """Send lines to the program."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        except BrokenPipeError:
            raise self._problem("ended early") from None

    def hear(self, mark: str, seconds: float = COMMAND_S) -> bytes:
        """The output of the program before ``mark``, for which this waits."""
        assert self._process.stdout is not None
        wanted, end = mark.encode(), time.monotonic() + seconds
        while wanted not in self._said:
            left = end - time.monotonic()
            if left <= 0 or not select([self._process.stdout], [], [], left)[0]:
                raise self._problem(f"did not say {mark!r} within {seconds:g} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._problem("ended early")
            self._said += chunk
        before, _, self._said = self._said.partition(wanted)
        return before

    def sockets(self) -> list[socket.socket]:
        """Borrow the program's connections to the session's server."""
        return borrow(self._process.pid, self._session.server)

    def end(self, seconds: float = COMMAND_S) -> int:
        """Close the program's input and wait for its end; returns its exit status."""
        try:
            self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise self._problem(f"still running after {seconds:g} s") from None
        return self._process.returncode

    def kill(self) -> None:
        """Kill the program; borrowed connections stay open."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _problem(self, what: str) -> LabError:
        return LabError(f"{self.name} {what}: {self._said.decode(errors='replace').strip()[-400:]}")

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *how: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
