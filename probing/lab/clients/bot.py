"""A bot of the command-and-control look-alike: it logs in, keeps in touch and answers. It does nothing else.

Whatever a command asks is answered with text and random bytes of the seed.
"""

from __future__ import annotations

import platform
import socket
import struct
import time
from select import select

from probing.lab.errors import LabError
from probing.lab.services.hive import ORDERS, PORT
from probing.lab.services.hive_daemon import Orders
from probing.lab.session import Session

PATIENCE_S = 30.0
LOOK_S = 0.005  # seconds between two looks whether the network has failed
SILENCE_S = 1.0  # seconds without a word after which the hive closes, in a run about that
CHUNKS = (1024, 2048, 4096, 8192)  # possible bytes of a chunk
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class _GoneError(Exception):
    """The bot has left as configured, by a reset or cut off."""


class Bot:
    """The bot, as a client."""

    programs = ()

    def perform(self, session: Session) -> None:
        """Do one of keep-alive, command-1 … command-4."""
        command = int(session.activity.removeprefix("command-")) if session.activity != "keep-alive" else 0
        orders, update, name = _orders(session, command)
        orders.write(ORDERS, name, update)
        talk = _Talk(session, orders)
        try:
            talk.log_in(name)
            right = talk.live(update)
            talk.leave()
            session.outcome(right)
        except _GoneError:
            session.outcome(False)
        finally:
            for left in ORDERS.glob(f"{name}.*"):
                left.unlink()

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


def _word(session: Session, low: int, high: int) -> str:
    return "".join(session.rng.choices(LETTERS, k=session.between(low, high)))


def _orders(session: Session, command: int) -> tuple[Orders, bytes, str]:
    """The orders for this bot, the update, and the bot's name."""
    name, password, text = _word(session, 10, 16), _word(session, 8, 16), _word(session, 20, 160)
    size = session.size() if command in (3, 4) else 0
    wait = 0.5 if session.parameters.content_fixed else session.rng.random()
    orders = Orders(
        password=password, command=command, text=text, size=size,
        after=session.between(1, session.parameters.requests),
        wait_s=wait * session.parameters.pause_ms / 1e3, reports=session.between(6, 16),
        chunk=CHUNKS[session.between(0, len(CHUNKS) - 1)],
        last=session.parameters.requests if session.parameters.termination == "timeout" else 0, silence_s=SILENCE_S,
    )  # fmt: skip
    return orders, session.content(size) if command == 3 else b"", name


def _leaves_at(session: Session, orders: Orders) -> int:
    """The message with which the bot leaves: an answer to the command, or else a keep-alive; 0: it does not."""
    if session.parameters.termination not in ("rst", "sudden"):
        return 0
    chunks = -(-orders.size // orders.chunk)
    answers = {0: session.parameters.requests, 1: 1, 2: orders.reports, 3: chunks + 1, 4: chunks}[
        orders.command
    ]
    before = 2 + (orders.after if orders.command else 0)  # login and keep-alives
    return before + session.rng.randint(1, answers)


class _Talk:
    """The bot's side of the connection."""

    def __init__(self, session: Session, orders: Orders) -> None:
        self.session, self.orders = session, orders
        self.gone_at, self.said = _leaves_at(session, orders), 0
        self.socket = socket.create_connection((session.server, PORT), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = b""  # received and not yet read
        self.hive_unheard = self.gone_at > 0 and session.rng.random() < 0.5
        self.armed = False  # True: the network fails with the next message of the hive
        self.port: int = self.socket.getsockname()[1]
        session.claim(self.port)

    def hear(self, end: bytes = b"\n") -> str:
        """The next line, or everything up to ``end``."""
        line = b""
        while not line.endswith(end):
            line += self.read(1)
        return line.decode().strip()

    def read(self, n: int) -> bytes:
        """The next n bytes. Raises _GoneError when the network fails meanwhile, as was planned."""
        while len(self.heard) < n:
            if not select([self.socket], [], [], LOOK_S if self.armed else PATIENCE_S)[0]:
                if not self.armed:
                    raise LabError(f"the hive said nothing for {PATIENCE_S:g} s after {self.heard!r}")
                if self.session.vanished(self.port):
                    raise _GoneError
            elif got := self.socket.recv(1 << 16):
                self.heard += got
            else:
                raise LabError(f"the hive closed the connection after {self.heard!r}")
        taken, self.heard = self.heard[:n], self.heard[n:]
        return taken

    def say(self, words: str, more: bytes = b"") -> None:
        """Send a line and its payload; this is where a bot may leave."""
        self.said += 1
        message = words.encode() + b"\r\n" + more
        if self.said != self.gone_at:
            self.socket.sendall(message)
            return
        if self.session.parameters.termination == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
            raise _GoneError
        self.session.keep(self.socket)
        if self.hive_unheard:  # its next message is on the way when the network fails
            self.armed = True
            self.session.vanish_amid(self.port, "server")
            self.socket.sendall(message)
            return
        self.session.vanish(self.port)
        self.socket.sendall(message)
        raise _GoneError

    def log_in(self, name: str) -> None:
        """Log in with name and password."""
        self.session.mark("login")
        self.hear(b"login: ")
        self.say(name)
        self.hear(b"password: ")
        self.say(self.orders.password)
        if (answer := self.hear()) != "welcome":
            raise LabError(f"the hive answered the login of {name} with {answer!r}")

    def live(self, update: bytes) -> bool:
        """Send keep-alives and answer the command when it comes; returns whether everything was done."""
        self.session.mark("keep-alive")
        right = True
        for k in range(1, self.session.parameters.requests + 1):
            self.session.pause()
            self.say(f"ping {k}")
            right &= self.hear() == f"pong {k}"
            if self.orders.command and k == self.orders.after:
                right &= self.obey(update)
                if k < self.session.parameters.requests:
                    self.session.mark("keep-alive")
        return right

    def obey(self, update: bytes) -> bool:
        """Answer a command with its pattern of messages."""
        word, number, argument = self.hear().split(" ", 2)
        self.session.mark("command")
        if word != "command" or int(number) != self.orders.command:
            raise LabError(f"the hive sent {word} {number} for command {self.orders.command}")
        return [self.acknowledge, self.give_status, self.take_update, self.give_report][int(number) - 1](
            argument, update
        )

    def acknowledge(self, argument: str, _update: bytes) -> bool:
        """Answer command 1: acknowledge a message."""
        self.session.mark("report")
        self.session.transferred(len(argument))
        self.say(f"done {len(argument)}")
        return argument == self.orders.text

    def give_status(self, argument: str, _update: bytes) -> bool:
        """Answer command 2: send status reports."""
        self.session.mark("report")
        for k in range(int(argument)):
            status = _word(self.session, 10, 60)
            self.session.transferred(len(status))
            self.say(f"status {k} {status}")
            time.sleep(self.session.parameters.pause_ms / 4e3)
        return self.hear() == "thanks"

    def take_update(self, argument: str, update: bytes) -> bool:
        """Answer command 3: receive an update."""
        got, size = b"", int(argument)
        self.session.transferred(size)
        while len(got) < size:
            got += self.read(int(self.hear().split()[1]))
            if len(got) < size:
                self.say(f"have {len(got)}")
        self.session.mark("report")
        self.say(f"have {len(got)}")
        return got == update

    def give_report(self, argument: str, _update: bytes) -> bool:
        """Answer command 4: send a report."""
        self.session.mark("report")
        report, have = self.session.content(int(argument)), "have 0"
        self.session.transferred(len(report))
        for at in range(0, len(report), self.orders.chunk):
            part = report[at : at + self.orders.chunk]
            self.say(f"chunk {len(part)}", part)
            have = self.hear()
        return have == f"have {len(report)}"

    def leave(self) -> None:
        """Say goodbye and close, or say nothing; wait for the hive to close too."""
        if self.session.parameters.termination != "timeout":
            self.say("bye")
            self.hear()
            self.socket.shutdown(socket.SHUT_WR)
        self.socket.settimeout(PATIENCE_S)
        while self.socket.recv(1 << 16):
            pass
        self.socket.close()


BOT = Bot()
