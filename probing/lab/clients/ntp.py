"""Time clients that only ask and never set the clock: chronyd -Q, ntpdig and one of our own."""

from __future__ import annotations

import platform
import socket
import struct

from probing.lab.services.chrony import PORT, STRATUM, WITHOUT_CLOCK
from probing.lab.session import Session, program_version

ANSWER_S = 5.0  # most seconds that an answer may take
TRIES = 3  # most attempts of our own client at each request
CLIENT, SERVER = 3, 4  # modes of NTP
PACKET = struct.Struct(">BBbb11I")  # RFC 5905, 7.3: the header without extensions


class Chronyd:
    """chronyd -Q, which asks from a new port each time; its burst is three requests, 2 s apart."""

    programs = ("chronyd", "setpriv")

    def perform(self, session: Session) -> None:
        """Do one of query, burst."""
        source = f"server {session.server} iburst" + (" maxsamples 1" if session.activity == "query" else "")
        session.mark("query")
        done = session.run(
            *WITHOUT_CLOCK, "chronyd", "-Q", "-x", "-4", "-t", "40",
            source, "port 0", "cmdport 0", "user root", f"pidfile {session.folder}/pid", ok=(0, 1),
        )  # fmt: skip
        session.outcome(done.returncode == 0)

    def version(self) -> str:
        """The version of the program."""
        return program_version("chronyd", "--version").split()[2]


class Ntpdig:
    """ntpdig, which asks from a new port each time, and does not repeat a lost request."""

    programs = ("ntpdig", "setpriv")

    def perform(self, session: Session) -> None:
        """Do one of query, burst."""
        options = ["-4", "-t", f"{ANSWER_S:.0f}"]
        if session.activity == "burst":
            gap = max(1, round(session.parameters.pause_ms))
            options += ["-p", str(session.parameters.requests), "-g", str(gap)]
        session.mark("query")
        most = 30.0 + session.parameters.requests * (ANSWER_S + session.parameters.pause_ms / 1e3)
        done = session.run(*WITHOUT_CLOCK, "ntpdig", *options, session.server, ok=(0, 1), seconds=most)
        session.outcome(done.returncode == 0)

    def version(self) -> str:
        """The version of the program."""
        return program_version("ntpdig", "-V").split()[1]


class Sntp:
    """Our own client, with one port for all requests of a sample."""

    programs = ()

    def perform(self, session: Session) -> None:
        """Do one of query, burst."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(ANSWER_S)
            asking.connect((session.server, PORT))
            session.claim(asking.getsockname()[1])
            session.mark("query")
            right = True
            for k in range(session.parameters.requests if session.activity == "burst" else 1):
                if k:
                    session.pause()
                right &= any(ask(asking, session.rng.getrandbits(64)) for _ in range(TRIES))
            session.outcome(right)

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


def ask(asking: socket.socket, cookie: int) -> bool:
    """Send a request; returns whether a server answers it in time.

    The transmit timestamp is a random number: the server returns it whatever it is (RFC 5905, 8), and no clock is read.
    """
    words = (0,) * 9 + (cookie >> 32, cookie & 0xFFFFFFFF)
    asking.send(PACKET.pack(4 << 3 | CLIENT, 0, 0, 0, *words))
    try:
        while True:
            answer = asking.recv(1024)
            first, stratum, *fields = PACKET.unpack_from(answer)
            if tuple(fields[7:9]) == words[9:11]:  # its origin timestamp is our transmit timestamp
                return bool(first & 7 == SERVER and stratum == STRATUM)
    except TimeoutError:
        return False


CHRONYD, NTPDIG, SNTP = Chronyd(), Ntpdig(), Sntp()
