"""Our own resolver on asyncio: one socket for all queries of a sample, no EDNS, TCP when asked for or truncated.

Messages as in RFC 1035, section 4; over TCP with two bytes of length before each (4.2.2).
"""

from __future__ import annotations

import asyncio
import platform
import socket
import struct
from typing import NamedTuple

from probing.lab.clients.dialogue import BROKEN
from probing.lab.clients.names import chosen
from probing.lab.errors import LabError
from probing.lab.services.dnsmasq import PORT, Entry
from probing.lab.session import Session

TYPES = {"A": 1, "CNAME": 5, "MX": 15, "TXT": 16, "AAAA": 28}
RECURSION_DESIRED, TRUNCATED = 0x0100, 0x0200
NXDOMAIN = 3
AGAIN_S, TRIES = 5.0, 4  # seconds before a query is repeated, and most queries, as in other resolvers
PATIENCE_S = 30.0
LOOK_S = 0.005  # seconds between two looks whether the network has failed
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a RST and no FIN


class Answer(NamedTuple):
    """The parts of a message that matter here."""

    number: int
    truncated: bool
    code: int
    answers: list[str]  # in the form that dig prints


class AsyncioDns:
    """Our own resolver."""

    programs = ()

    def perform(self, session: Session) -> None:
        """Do one of lookup, many, missing, large, tcp."""
        session.outcome(asyncio.run(_resolve(session, chosen(session))))

    def version(self) -> str:
        """The version of Python, which runs this."""
        return f"python {platform.python_version()}"


def query(number: int, entry: Entry) -> bytes:
    """The message that asks for an entry."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in entry.name.split("."))
    head = struct.pack(">6H", number, RECURSION_DESIRED, 1, 0, 0, 0)
    return head + labels + b"\0" + struct.pack(">2H", TYPES[entry.type], 1)


def parse(message: bytes) -> Answer:
    """The answer in a message."""
    number, flags, questions, count = struct.unpack_from(">4H", message)
    at, answers = 12, []
    for _ in range(questions):
        at = _name(message, at)[1] + 4
    for _ in range(count):
        at = _name(message, at)[1]
        kind, _class, _ttl, n = struct.unpack_from(">2HIH", message, at)
        answers.append(_data(message, at + 10, kind, n))
        at += 10 + n
    return Answer(number, bool(flags & TRUNCATED), flags & 15, answers)


def _name(message: bytes, at: int) -> tuple[str, int]:
    """A name and the place of its end; parts of it may stand earlier in the message (4.1.4)."""
    name, end = "", 0
    while message[at]:
        if message[at] >= 0xC0:
            end = end or at + 2
            at = (message[at] & 0x3F) << 8 | message[at + 1]
        else:
            name += message[at + 1 : at + 1 + message[at]].decode() + "."
            at += 1 + message[at]
    return name, end or at + 1


def _data(message: bytes, at: int, kind: int, n: int) -> str:
    data = message[at : at + n]
    match kind:
        case 1:
            return socket.inet_ntop(socket.AF_INET, data)
        case 28:
            return socket.inet_ntop(socket.AF_INET6, data)
        case 5:
            return _name(message, at)[0]
        case 15:
            return f"{data[0] << 8 | data[1]} {_name(message, at + 2)[0]}"
        case _:
            return '"' + data[1 : 1 + data[0]].decode() + '"'


async def _resolve(session: Session, asked: list[Entry]) -> bool:
    """Ask for one entry after another; returns whether each answer is right."""
    resolver = _Resolver(session)
    session.mark("query")
    how = session.parameters.termination
    broken = session.rng.randrange(1, len(asked)) if how in BROKEN and len(asked) > 1 else -1
    right = True
    try:
        for k, entry in enumerate(asked):
            if k:
                await asyncio.sleep(session.parameters.pause_ms / 1e3)
            if k == broken:
                await resolver.break_off(entry)
                return False
            answer = await resolver.ask(entry, tcp=session.activity == "tcp")
            if session.activity == "missing" and answer.code != NXDOMAIN:
                raise LabError(f"{entry.name} does not exist, but the code of the answer is {answer.code}")
            right &= answer.code == 0 and sorted(answer.answers) == sorted(entry.answers)
    finally:
        await resolver.close()
    return right


class _Resolver(asyncio.DatagramProtocol):
    """A socket for datagrams, and a connection when it is needed."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        """Take an answer; called by asyncio."""
        self.messages.put_nowait(data)

    async def ask(self, entry: Entry, *, tcp: bool) -> Answer:
        """The answer to a query, over TCP where it is truncated."""
        number = self.session.rng.randrange(1 << 16)
        message = query(number, entry)
        answer = None if tcp else await self.by_datagram(number, message)
        if answer is None or answer.truncated:
            answer = await asyncio.wait_for(self.by_stream(message), PATIENCE_S)
        return answer

    async def by_datagram(self, number: int, message: bytes) -> Answer:
        """The answer to a datagram, repeated while none comes; late answers to earlier queries are dropped."""
        if self.transport is None:
            loop = asyncio.get_running_loop()
            self.transport, _ = await loop.create_datagram_endpoint(
                lambda: self, remote_addr=(self.session.server, PORT), family=socket.AF_INET
            )
            self.session.claim(self.transport.get_extra_info("sockname")[1])
        for _ in range(TRIES):
            self.transport.sendto(message)
            try:
                async with asyncio.timeout(AGAIN_S):
                    while (answer := parse(await self.messages.get())).number != number:
                        pass
                    return answer
            except TimeoutError:
                continue
        raise LabError(f"{self.session.server} did not answer {TRIES} queries")

    async def by_stream(self, message: bytes) -> Answer:
        """The answer to a query over TCP, in the connection of earlier ones."""
        if self.stream is None:
            self.stream = await asyncio.open_connection(self.session.server, PORT)
            self.session.claim(self.stream[1].get_extra_info("sockname")[1])
        reader, writer = self.stream
        writer.write(struct.pack(">H", len(message)) + message)
        (n,) = struct.unpack(">H", await reader.readexactly(2))
        return parse(await reader.readexactly(n))

    async def break_off(self, entry: Entry) -> None:
        """Reset the connection, or ask while the network fails: with the query, or with its answer."""
        assert self.stream is not None
        writer, session = self.stream[1], self.session
        message = query(session.rng.randrange(1 << 16), entry)
        port, raw = writer.get_extra_info("sockname")[1], writer.get_extra_info("socket").dup()
        self.stream = None
        if session.parameters.termination == "rst":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            await writer.wait_closed()
            raw.close()
            return
        unheard = session.rng.random() < 0.5  # the query; else its answer
        if unheard:
            session.vanish(port)
        else:
            session.vanish_amid(port, "server")
        writer.write(struct.pack(">H", len(message)) + message)
        async with asyncio.timeout(PATIENCE_S):
            while not session.vanished(port):
                await asyncio.sleep(LOOK_S)
        session.keep(raw)
        writer.transport.abort()

    async def close(self) -> None:
        """Close socket and connection, and wait until the server has closed its side too."""
        if self.transport is not None:
            self.transport.close()
        if self.stream is not None:
            reader, writer = self.stream
            writer.write_eof()
            await asyncio.wait_for(reader.read(), PATIENCE_S)
            writer.close()
            await writer.wait_closed()


ASYNCIO_DNS = AsyncioDns()
