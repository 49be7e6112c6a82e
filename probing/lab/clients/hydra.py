"""hydra: password guesses over several connections at once."""

from __future__ import annotations

import ctypes
import re
import select
import socket
import struct
import sys
import time
from pathlib import Path

from probing.lab.clients.dialogue import wait_for
from probing.lab.clients.guessing import guesses, only_fin
from probing.lab.clients.shop import LOGIN
from probing.lab.isolation import PASSWORD, USER
from probing.lab.session import Session, program_version

LIMIT_S = 280.0
TIME_WAIT = "06"
FIN, RST, EVERYTHING, SO_ATTACH_FILTER, SO_RCVBUFFORCE = 1, 4, 3, 26, 33
ONLY_ENDS = (  # packet filter: of packets without IP options and with FIN or RST, pass 64 bytes
    (0x30, 0, 0, 47), (0x45, 0, 1, FIN | RST), (0x06, 0, 0, 64), (0x06, 0, 0, 0),
)  # fmt: skip
CROSSING_S = 1.0  # seconds of a round trip over a slow link
FOUND = re.compile(rb"^\[\d+\]\[[\w-]+\] host: .* password: (.*)$", re.MULTILINE)
FORM = f"{LOGIN}:name=^USER^&password=^PASS^:F=Wrong name or password"
SSH_TRIES = 4  # guesses of a task, roughly; after six the server closes and the task pauses for half a minute
# without -f, which kills other tasks in the middle of a guess: there is one user, so it ends when that one is found
OPTIONS = ("-I", "-w", "32", "-l", USER)
SERVICES = {"form-guess": "http-post-form", "ftp-guess": "ftp", "ssh-guess": "ssh"}
ROOM = 16 << 20  # bytes of receive buffer, enough for the ends of thousands of connections


class Hydra:
    """hydra."""

    programs = ("hydra",)

    def perform(self, session: Session) -> None:
        """Do one of form-guess, ftp-guess, ssh-guess."""
        only_fin(session, "hydra")
        words = guesses(session)
        listed = session.folder / "words"
        listed.write_text("".join(f"{word}\n" for word in words))
        session.mark("guess")
        with Ends(session) as ends:
            done = session.run(
                "hydra", *OPTIONS, "-t", str(_tasks(session)), "-P", listed, session.server,
                SERVICES[session.activity], *((FORM,) if session.activity == "form-guess" else ()), seconds=LIMIT_S,
            )  # fmt: skip
            wait_for(lambda: not _open(session.server), "hydra: its server's FINs")
            ends.tell()
        session.outcome(PASSWORD.encode() in FOUND.findall(done.stdout))

    def version(self) -> str:
        """The version of the program."""
        return program_version("hydra", "-h").split(" ")[1]


def _tasks(session: Session) -> int:
    """The number of tasks that guess at the same time."""
    if session.activity == "form-guess":
        return 1  # with more, most leave an unused connection behind
    if session.activity == "ftp-guess":
        return 2  # with more it has reported wrong passwords as found
    return min(16, -(-session.parameters.guesses // SSH_TRIES))


class Ends:
    """A listener for the ends of a program's connections: FINs or, with unread data, a RST."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[
            int, set[tuple[int, bool]]
        ] = {}  # flags by local port, each with whether this host sent it

    def __enter__(self) -> Ends:
        # outgoing frames are visible only to a socket that listens to all protocols
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in ONLY_ENDS))
        given = struct.pack("HL", len(ONLY_ENDS), ctypes.addressof(program))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, given)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self._socket.bind(("eth0", EVERYTHING))
        return self

    def __exit__(self, *problem: object) -> None:
        self._socket.close()

    def tell(self) -> None:
        """Report to the session the connections that ended in a RST; waits for FINs that crossed one."""
        self._listen(0.0)
        if self._reset():
            self._listen(CROSSING_S)
        for port in self._reset():
            self._session.claim(port, termination="rst")

    def _reset(self) -> list[int]:
        return [port for port, seen in self._seen.items() if not {(FIN, True), (FIN, False)} <= seen]

    def _listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            frame, (_, _, kind, *_) = self._socket.recvfrom(64)
            ours = kind == socket.PACKET_OUTGOING
            port = int.from_bytes(frame[34:36] if ours else frame[36:38], "big")
            self._seen.setdefault(port, set()).update((flag, ours) for flag in (FIN, RST) if frame[47] & flag)


def _open(server: str) -> bool:
    """Whether this host still has connections to a server, also those of programs that have ended."""
    address = f"{int.from_bytes(socket.inet_aton(server), sys.byteorder):08X}"
    lines = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return any(words[2].startswith(address) and words[3] != TIME_WAIT for words in lines)


HYDRA = Hydra()
