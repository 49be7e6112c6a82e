"""The process of the command-and-control look-alike: a text protocol of our own, in which bots only talk.

A bot logs in by name, sends keep-alives, and gets one of four commands: a short message to acknowledge (1), a call
for status reports (2), an update sent down in chunks (3), a request for a report sent up in chunks (4). Each is a
pattern of messages and no more: payloads are text and random bytes, nothing is executed on either side.

Run as ``hive_daemon.py PORT FOLDER``. The orders for a bot are in ``FOLDER/NAME.json`` (`Orders`), an update in
``FOLDER/NAME.update``. Imports the standard library only: it runs as a script, without the package.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger("hive")


@dataclass(frozen=True)
class Orders:
    """The operator's orders for one bot."""

    password: str
    command: int = 0  # number of the command; 0: none, only keep-alives
    after: int = 0  # number of keep-alives before the command
    wait_s: float = 0.0  # seconds from the answer of the keep-alive to the command
    text: str = ""  # message of command 1
    reports: int = 0  # number of reports that command 2 asks for
    size: int = 0  # bytes that command 3 sends down, or that command 4 asks for
    chunk: int = 4096  # bytes of a chunk
    last: int = 0  # number of keep-alives after which the hive closes when it hears nothing; 0: it never does
    silence_s: float = 1.0  # seconds that it waits then

    def write(self, folder: Path, name: str, update: bytes = b"") -> None:
        """Write the orders where the hive looks when the bot logs in."""
        (folder / f"{name}.update").write_bytes(update)
        (folder / f"{name}.json").write_text(json.dumps(asdict(self)))


class Talk:
    """The connection of one bot, in lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path) -> None:
        self.reader, self.writer, self.folder = reader, writer, folder

    async def hear(self) -> str:
        """The next line. Raises EOFError at the end."""
        line = await self.reader.readuntil(b"\n")
        return line.decode("ascii", errors="replace").rstrip("\r\n")

    async def say(self, words: str, more: bytes = b"", end: str = "\r\n") -> None:
        """Send a line and its payload."""
        self.writer.write(f"{words}{end}".encode() + more)
        await self.writer.drain()

    async def serve(self) -> None:
        """Serve a bot, from its login to its end."""
        await self.say("hive 1.0\r\nlogin:", end=" ")
        name = await self.hear()
        await self.say("password:", end=" ")
        password = await self.hear()
        place = self.folder / f"{name}.json"
        orders = Orders(**json.loads(place.read_text())) if name.isalnum() and place.exists() else None
        if orders is None or orders.password != password:
            await self.say("refused")
            return
        await self.say("welcome")
        heard = 0
        while (word := await self.next_word(orders, heard)) not in ("", "bye"):
            heard += 1
            await self.say(word.replace("ping", "pong"))
            if orders.command and heard == orders.after:
                await asyncio.sleep(orders.wait_s)
                await self.command(orders, name)
        if word:
            await self.say("bye")

    async def next_word(self, orders: Orders, heard: int) -> str:
        """The next line; "" when none comes in time after the last keep-alive."""
        if not orders.last or heard < orders.last:
            return await self.hear()
        try:
            return await asyncio.wait_for(self.hear(), orders.silence_s)
        except TimeoutError:
            return ""

    async def command(self, orders: Orders, name: str) -> None:
        """Send the command of this bot."""
        match orders.command:
            case 1:
                await self.say(f"command 1 {orders.text}")
                await self.hear()
            case 2:
                await self.say(f"command 2 {orders.reports}")
                for _ in range(orders.reports):
                    await self.hear()
                await self.say("thanks")
            case 3:
                await self.say(f"command 3 {orders.size}")
                await self.send((self.folder / f"{name}.update").read_bytes(), orders.chunk)
            case _:
                await self.say(f"command 4 {orders.size}")
                await self.receive(orders.size)

    async def send(self, content: bytes, chunk: int) -> None:
        """Send bytes in chunks, each when the one before is acknowledged."""
        for at in range(0, len(content), chunk):
            part = content[at : at + chunk]
            await self.say(f"chunk {len(part)}", part)
            await self.hear()

    async def receive(self, size: int) -> None:
        """Receive bytes in chunks; acknowledge each with the number of bytes so far."""
        have = 0
        while have < size:
            n = int((await self.hear()).split()[1])
            await self.reader.readexactly(n)
            have += n
            await self.say(f"have {have}")


async def _bot(folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await Talk(reader, writer, folder).serve()
    except (asyncio.IncompleteReadError, ConnectionError):
        logger.info("a bot went without a word")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def serve(port: int, folder: Path) -> None:
    """Listen until the process ends."""
    server = await asyncio.start_server(lambda r, w: _bot(folder, r, w), "0.0.0.0", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
