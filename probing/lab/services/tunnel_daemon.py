"""A name server of our own, with an end of a tunnel through names: ``tunnel_daemon.py PORT FOLDER``.

Ordinary names get an address or a text that follows from the name. In the zone of the tunnel, names carry bytes up,
and texts or null records carry bytes down: a transfer is a session of numbered pieces (`Piece`). What goes down lies in
``FOLDER/SESSION.down``, random bytes that the lab's client put there; what comes up is kept in memory for its checksum
and dropped. Messages as in RFC 1035, section 4. Imports the standard library only: it runs as a script.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

TUNNEL = "t.lab.test"  # zone of the tunnel
A, NULL, TXT = 1, 10, 16  # types of records
ANSWER, NXDOMAIN = 0x8400, 0x8403  # flags of answers: authoritative; and with the code NXDOMAIN
LABEL = 63  # most characters of a label
UP = 110  # most bytes of a piece in a name: 176 characters in base 32
DOWN = {TXT: 180, NULL: 380}  # most bytes of a piece in an answer: the message stays below 512 bytes
KEPT = 64  # most sessions that are kept


class Piece(NamedTuple):
    """One query of the tunnel: bytes up, or a piece to bring down; ``sum`` asks for the checksum of what came up."""

    session: str  # four hexadecimal digits
    verb: str  # up, down, sum
    number: int
    data: bytes = b""

    def name(self) -> str:
        """The name that carries it."""
        text = base64.b32encode(self.data).decode().rstrip("=").lower()
        parts = [text[at : at + LABEL] for at in range(0, len(text), LABEL)]
        return ".".join([*parts, f"{self.verb}-{self.session}-{self.number:x}", TUNNEL])


def piece_in(name: str) -> Piece | None:
    """The query in a name; None when it is none of the tunnel."""
    if not name.endswith("." + TUNNEL):
        return None
    *parts, head = name.removesuffix("." + TUNNEL).split(".")
    words = head.split("-")
    if len(words) != 3 or words[0] not in ("up", "down", "sum"):
        return None
    text = "".join(parts).upper()
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
        return Piece(words[1], words[0], int(words[2], 16), data)
    except ValueError:
        return None


def question(number: int, name: str, kind: int) -> bytes:
    """The message that asks for a record."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def asked(message: bytes) -> tuple[int, str, int, int]:
    """Number, name, type of the question in a message, and the place of its end."""
    at, parts = 12, []
    while message[at]:
        parts.append(message[at + 1 : at + 1 + message[at]].decode("ascii"))
        at += 1 + message[at]
    (kind,) = struct.unpack_from(">H", message, at + 1)
    return struct.unpack_from(">H", message)[0], ".".join(parts).lower(), kind, at + 5


def payload(kind: int, data: bytes) -> bytes:
    """The bytes of a record that carries data: as they are, or as a text in base 64."""
    if kind == NULL:
        return data
    text = base64.b64encode(data)
    return bytes([len(text)]) + text


def carried(message: bytes) -> bytes:
    """The data of the first answer in a message; empty when there is none."""
    *_, kind, at = asked(message)
    if struct.unpack_from(">H", message, 6)[0] == 0:
        return b""
    (size,) = struct.unpack_from(">H", message, at + 10)
    data = message[at + 12 : at + 12 + size]
    return base64.b64decode(data[1:]) if kind == TXT else data


def ordinary(name: str, kind: int) -> bytes:
    """The bytes of an ordinary record, which follow from its name: an address, or a text of 40 to 230 characters."""
    seed = hashlib.sha256(name.encode()).digest()
    if kind == A:
        return bytes([198, 18, seed[0], seed[1] | 1])
    text = base64.b64encode(hashlib.shake_128(seed).digest(180))[: 40 + seed[2] % 190]
    return bytes([len(text)]) + text


class Server:
    """The server's end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up: dict[str, dict[int, bytes]] = {}

    def answer(self, message: bytes) -> bytes:
        """The answer to a query."""
        number, name, kind, end = asked(message)
        found = self.record(name, kind)
        head = (number, ANSWER if found is not None else NXDOMAIN, 1, int(found is not None), 0, 0)
        result = struct.pack(">6H", *head) + message[12:end]
        if found is None:
            return result
        return result + struct.pack(">3HIH", 0xC00C, kind, 1, 0, len(found)) + found

    def record(self, name: str, kind: int) -> bytes | None:
        """The bytes of a record, None when there is none."""
        if not name.endswith("." + TUNNEL):
            return ordinary(name, kind) if kind in (A, TXT) else None
        piece = piece_in(name)
        if piece is None or kind not in DOWN:
            return None
        if piece.verb == "down":
            file = self.folder / f"{piece.session}.down"
            whole = file.read_bytes() if file.exists() else b""
            return payload(kind, whole[piece.number * DOWN[kind] :][: DOWN[kind]])
        while len(self.up) > KEPT:
            self.up.pop(next(iter(self.up)))
        pieces = self.up.setdefault(piece.session, {})
        if piece.verb == "up":
            pieces[piece.number] = piece.data
            return payload(kind, struct.pack(">H", piece.number & 0xFFFF))
        whole = b"".join(data for _, data in sorted(pieces.items()))
        return payload(kind, struct.pack(">I", zlib.crc32(whole)))


def serve(port: int, folder: Path) -> None:
    """Answer until the process ends. It also listens on the TCP port, only to show that it is ready."""
    server = Server(folder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket() as ready:
        sock.bind(("0.0.0.0", port))
        ready.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ready.bind(("0.0.0.0", port))
        ready.listen(8)
        while True:
            message, peer = sock.recvfrom(4096)
            try:
                sock.sendto(server.answer(message), peer)
            except (IndexError, ValueError, struct.error):
                continue  # damaged on its way


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
