"""Made-up TCP transfers of known streams over networks that reorder, repeat, cut anew and lose, as a tap sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.types import Packets, take
from tests.support.conversation import MS, Conversation


@dataclass(frozen=True)
class Network:
    """What a network does to segments."""

    depth: int = 1  # segments among which the next to arrive is chosen
    again: float = 0.0  # how often old bytes are sent again, with other boundaries
    lost: float = 0.0  # how often a segment is lost, and sent again later, in two parts
    copies: float = 0.0  # how often the capture holds a packet twice
    pause: tuple[float, ...] = (0.02, 0.1, 0.4)  # ms between packets
    resets: bool = False  # b ends with a RST
    handshake: bool = True


Piece = tuple[int, int, str]  # relative sequence number, bytes, flags


class Transfer:
    """Both directions of one connection; ``conversation`` is what the tap saw."""

    def __init__(
        self,
        seed: int,
        sizes: dict[str, list[int]],
        isn: tuple[int, int],
        network: Network,
        port: int = 40000,
    ):
        self.rng = np.random.default_rng(seed)
        self.network = network
        self.port = port
        self.conversation = Conversation(*isn)
        self.pieces: dict[str, list[Piece]] = {}  # as sent at first
        self.got: dict[str, int] = {"a": 1, "b": 1}  # what the peer has of a side without a hole
        self.sent: dict[str, int] = {"a": 1, "b": 1}  # end of what was sent
        self.have: dict[str, set[int]] = {"a": set(), "b": set()}
        for side, parts in sizes.items():
            at, self.pieces[side] = 1, []
            for size in parts:
                self.pieces[side].append((at, size, "PA"))
                at += size
            self.pieces[side].append((at, 0, "FA"))
        self.bytes = {side: sum(parts) for side, parts in sizes.items()}
        if network.handshake:
            for side, flags, ack in (("a", "S", 0), ("b", "SA", 1), ("a", "A", 1)):
                self.send(side, flags, 0 if "S" in flags else 1, ack, 0)
        self.run()

    def send(self, side: str, flags: str, seq: int, ack: int, payload: int) -> None:
        c, pauses = self.conversation, self.network.pause
        c.send(side, flags, seq, ack, payload, after=float(self.rng.choice(pauses)), port=self.port)
        if self.rng.random() < self.network.copies:
            c.rows.append(c.rows[-1] | {"ts": c.rows[-1]["ts"] + 10_000})
            c.now += 10_000

    def arrive(self, side: str, piece: Piece) -> None:
        """A segment passes the tap and arrives; the peer may acknowledge."""
        seq, payload, flags = piece
        other = "b" if side == "a" else "a"
        self.send(side, flags, seq, self.got[other], payload)
        size = payload + ("F" in flags)
        self.have[side] |= set(range(seq, seq + size))
        self.sent[side] = max(self.sent[side], seq + size)
        while self.got[side] in self.have[side]:
            self.got[side] += 1
        if self.rng.random() < 0.6:
            self.send(other, "A", self.sent[other], self.got[side], 0)

    def run(self) -> None:
        """Send everything until it has arrived."""
        net, rng = self.network, self.rng
        left = {side: list(pieces) for side, pieces in self.pieces.items()}
        while any(left.values()):
            side = str(rng.choice([s for s in "ab" if left[s]]))
            k = int(rng.integers(min(net.depth, len(left[side]))))
            piece = left[side].pop(k)
            if rng.random() < net.lost and piece[1] > 1:
                seq, payload, flags = piece
                cut = int(rng.integers(1, payload))
                late = min(len(left[side]), int(rng.integers(1, 5)))
                left[side][late:late] = [(seq, cut, flags), (seq + cut, payload - cut, flags)]
                self.sent[side] = max(self.sent[side], seq + payload)
                continue
            self.arrive(side, piece)
            if rng.random() < net.again and self.sent[side] > 2:
                end = int(rng.integers(2, min(self.sent[side], self.bytes[side] + 1) + 1))
                begin = int(rng.integers(max(1, end - 3000), end))
                self.arrive(side, (begin, end - begin, "A"))
        if net.resets:
            self.send("b", "R", self.sent["b"], 0, 0)
            self.send("b", "R", self.sent["b"], 0, 0)


def merged(transfers: list[Transfer], seed: int = 0, *, lost: float = 0.0, late: float = 0.0) -> Packets:
    """Packets of all transfers at one tap, which loses some, and takes others earlier than their turn."""
    rng = np.random.default_rng(seed)
    conversation = Conversation()
    conversation.rows = [row for t in transfers for row in t.conversation.rows]
    p = conversation.packets()
    turn = p.ts + np.where(rng.random(p.ts.size) < late, rng.integers(-3 * MS, 3 * MS, p.ts.size), 0)
    order = np.argsort(turn, kind="stable")
    order = order[rng.random(order.size) >= lost]
    p = take(p, order)
    if rng.integers(2):
        p.ts[:] = np.sort(p.ts)
    return p
