"""The policy ``stream`` from its definition: dicts, lists, and sequence numbers that never wrap.

Every packet that waits is looked at whenever time moves; nothing is linked, pooled or reused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from engine.clock import LATEST, NOW, new_clock, step
from engine.connections.layout import PACKET_FROM_ORIGINATOR, PACKET_SIDE, Segment
from engine.connections.tracker import Tracked
from engine.features.tokens import TokenConfig
from engine.types import ACK, FIN, RST, SYN, Packets

GUARD = 1_000_000  # ns from an acknowledgement to the loss of a hole before it
FAR = 1 << 30  # farther ahead than this, a segment has no token and an acknowledgement no meaning
NO_TOKEN_AS_BYTES = {
    Segment.ACK, Segment.KEEP_ALIVE, Segment.ZERO_WINDOW_PROBE, Segment.BEFORE, Segment.UNTRUSTED,
    Segment.OUT_OF_WINDOW, Segment.DUPLICATE, Segment.SPURIOUS, Segment.CAPTURE_DUPLICATE,
}  # fmt: skip
NEVER_IN_STREAM = {Segment.CAPTURE_DUPLICATE, Segment.OUT_OF_WINDOW, Segment.ZERO_WINDOW_PROBE}


@dataclass
class Token:
    """What a token must say."""

    slot: int
    number: int
    ts: int
    at: int
    up: bool
    flags: int
    payload: int
    gap: int

    def entries(self) -> dict[int, float]:
        """Inputs of the encoder ``sizes`` and their values (engine/features/tokens.py)."""
        out = {0: 1.0} if self.up else {}
        out |= {1 + bit: 1.0 for bit in range(8) if self.flags & 1 << bit}
        if self.payload > 0:
            size = min(self.payload, 65536)
            out[9] = math.log2(size) / 16
            out[11 + (0 if size < 16 else math.floor(8 * (math.log2(size) - 4)) + 1)] = 1.0
        if self.gap > 0:
            out[10] = 0.05 * math.log2(1 + self.gap / 1000)
        return out


@dataclass
class Waiting:
    """A segment behind a hole."""

    begin: int  # sequence number, which does not wrap
    number: int
    ts: int
    arrived: int  # event time
    up: bool
    flags: int
    payload: int

    @property
    def first(self) -> int:
        """Sequence number of the first byte of its payload."""
        return self.begin + bool(self.flags & SYN)

    @property
    def end(self) -> int:
        return self.first + self.payload + bool(self.flags & FIN)


@dataclass
class Side:
    """One direction of a connection."""

    next: int | None = None
    acked: int | None = None
    t_acked: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    look: tuple[int, int, int] | None = (
        None  # when to look at acknowledged holes, in which order, up to where
    )
    reset: bool = False
    probed: bool = False  # whether a zero-window probe sent the byte at next

    def first(self) -> Waiting:
        """The waiting segment that is next in sequence; of equal ones that which came first."""
        return min(self.waiting, key=lambda w: w.begin)


@dataclass
class Connection:
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    last: int | None = None  # ns, latest token
    fallen: bool = False


def unwrapped(number: int, near: int) -> int:
    """The integer closest to ``near`` that is equal to a 32-bit number, modulo 2**32."""
    return near + (number - near + 2**31) % 2**32 - 2**31


class NaiveStream:
    """Tokens of one partition's packets."""

    def __init__(self, config: TokenConfig) -> None:
        self.config = config
        self.patience = round(config.patience * 1e9)
        self.clock = new_clock()
        self.connections: dict[int, Connection] = {}
        self.out: list[Token] = []
        self.looks = 0
        self.fallbacks = 0

    @property
    def now(self) -> int:
        return int(self.clock[NOW])

    def waiting(self) -> list[tuple[int, Side, Waiting]]:
        """All that waits, in order of arrival."""
        every = [(slot, s, w) for slot, c in self.connections.items() for s in c.sides for w in s.waiting]
        return sorted(every, key=lambda one: one[2].number)

    def update(self, p: Packets, t: Tracked) -> list[Token]:
        """Tokens that packets p let go."""
        self.out = []
        closed = list(zip(t.closed_at.tolist(), t.closed.tolist()))
        for i in range(p.ts.size):
            before = self.now
            with np.errstate(over="ignore"):
                step(self.clock, p.ts[i])
            if self.now < before:
                self.go_back()
            self.release(i)
            while closed and closed[0][0] <= i:
                self.end(closed.pop(0)[1], i)
            if t.slot[i] >= 0 and t.segment[i] != Segment.NONE:
                self.packet(p, t, i)
        for _, slot in closed:
            self.end(slot, p.ts.size)
        return self.out

    def tick(self, now: int) -> list[Token]:
        """Tokens that event time lets go when it reaches ``now``."""
        self.out = []
        self.clock[NOW] = max(self.now, now)
        self.release(0)
        return self.out

    def close(self, slots: list[int]) -> list[Token]:
        """Tokens of what waits of connections that have ended."""
        self.out = []
        for slot in slots:
            self.end(slot, 0)
        return self.out

    def end(self, slot: int, at: int) -> None:
        self.let_all(slot, at)
        self.connections.pop(slot, None)

    def go_back(self) -> None:
        """Time has gone back: everything waits from now on at most."""
        for _, _, w in self.waiting():
            w.arrived = min(w.arrived, self.now)
        for c in self.connections.values():
            for side in c.sides:
                if side.look:
                    side.look = (min(side.look[0], self.now + GUARD), *side.look[1:])

    def release(self, at: int) -> None:
        """Let go what is due, in order of time."""
        while True:
            looks = [
                (side.look[:2], slot, side)
                for slot, c in self.connections.items() for side in c.sides if side.look
            ]  # fmt: skip
            look = min(looks, key=lambda one: one[0], default=None)
            every = self.waiting()
            patient = min(every[0][2].arrived + self.patience, LATEST) if every else LATEST + 1
            if look and look[0][0] <= min(self.now, patient):
                _, slot, side = look
                assert side.look
                time, _, upto = side.look
                side.look = None
                while side.waiting and side.first().begin <= upto:
                    side.next = side.first().begin
                    self.let_contiguous(slot, side, at)
                self.settle(side, time)
            elif patient <= self.now:
                slot, side, last = every[0]
                while last in side.waiting:
                    side.next = max(side.next or 0, side.first().begin)
                    self.let_first(slot, side, at)
                self.let_contiguous(slot, side, at)
                self.settle(side, patient)
            else:
                return

    def settle(self, side: Side, time: int) -> None:
        """Look again a guard later when the peer has acknowledged all before the first that waits."""
        if not side.waiting or side.acked is None or side.acked < side.first().begin:
            side.look = None
        elif side.look is None:
            self.looks += 1
            side.look = (min(time + GUARD, LATEST), self.looks, side.acked)

    def let_first(self, slot: int, side: Side, at: int) -> None:
        """The token of the first that waits, unless all of it is old."""
        w = side.first()
        side.waiting.remove(w)
        assert side.next is not None
        if w.end > side.next:
            payload = min(w.payload, max(0, w.first + w.payload - side.next))
            side.next, side.probed = w.end, False
            self.token(slot, w.number, w.ts, at, w.up, w.flags, payload)

    def let_contiguous(self, slot: int, side: Side, at: int) -> None:
        while side.waiting and side.next is not None and side.first().begin <= side.next:
            self.let_first(slot, side, at)

    def let_side(self, slot: int, side: Side, at: int) -> None:
        """All that waits of a side, in order."""
        while side.waiting:
            side.next = max(side.next or 0, side.first().begin)
            self.let_first(slot, side, at)
        side.look = None

    def let_all(self, slot: int, at: int) -> None:
        for side in self.connections.get(slot, Connection()).sides:
            self.let_side(slot, side, at)

    def token(self, slot: int, number: int, ts: int, at: int, up: bool, flags: int, payload: int) -> None:
        c = self.connections[slot]
        gap = 0 if c.last is None else max(0, ts - c.last)
        c.last = ts if c.last is None else max(ts, c.last)
        self.out.append(Token(slot, number, ts, at, up, flags, payload, gap))

    def hear(self, side: Side, ack: int) -> None:
        """The peer's acknowledgement of a side's bytes."""
        if side.acked is not None:
            ack = unwrapped(ack, side.acked)
            if ack <= side.acked:
                return
        elif side.next is not None:
            ack = unwrapped(ack, side.next)
        if side.next is not None and not -FAR <= ack - side.next <= FAR:
            return
        side.acked, side.t_acked = ack, self.now
        if side.probed and not side.waiting and side.next is not None and ack == side.next + 1:
            side.next, side.probed = ack, False
        self.settle(side, self.now)

    def packet(self, p: Packets, t: Tracked, i: int) -> None:
        slot, kind, flags, payload = (
            int(t.slot[i]),
            Segment(t.segment[i]),
            int(p.tcp_flags[i]),
            int(p.payload[i]),
        )
        up, number, ts = bool(t.flags[i] & PACKET_FROM_ORIGINATOR), t.number + i, int(p.ts[i])
        c = self.connections.setdefault(slot, Connection())
        which = bool(t.flags[i] & PACKET_SIDE)
        side, other = c.sides[which], c.sides[not which]
        if flags & RST and kind not in (Segment.CAPTURE_DUPLICATE, Segment.OUT_OF_WINDOW):
            if not side.reset:
                side.reset = True
                self.let_all(slot, i)
                self.token(slot, number, ts, i, up, flags, 0)
            return
        if kind == Segment.ZERO_WINDOW_PROBE and side.next is not None and int(p.seq[i]) == side.next % 2**32:
            side.probed = True
        if c.fallen:
            self.as_bytes(slot, kind, (number, ts, i, up, flags, payload), int(t.seen[i]))
            return
        if kind in NEVER_IN_STREAM:
            return
        if flags & ACK:
            self.hear(other, int(p.ack[i]))
        size = payload + bool(flags & SYN) + bool(flags & FIN)
        if size:
            self.segment(slot, side, kind, p, i, (number, ts, i, up, flags, payload), int(t.seen[i]))

    def as_bytes(
        self, slot: int, kind: Segment, one: tuple[int, int, int, bool, int, int], seen: int
    ) -> None:
        """A packet of a connection that was over a bound."""
        number, ts, at, up, flags, payload = one
        if kind not in NO_TOKEN_AS_BYTES:
            size = payload + bool(flags & SYN) + bool(flags & FIN)
            self.token(slot, number, ts, at, up, flags, min(payload, max(0, size - seen)))

    def segment(
        self, slot: int, side: Side, kind: Segment, p: Packets, i: int,
        one: tuple[int, int, int, bool, int, int], seen: int,
    ) -> None:  # fmt: skip
        """A packet with sequence space of its own."""
        number, ts, _, up, flags, payload = one
        w = Waiting(int(p.seq[i]), number, ts, self.now, up, flags, payload)
        if side.next is not None:
            w.begin = unwrapped(w.begin, side.next)
        if side.next is None or (
            kind == Segment.NEW and (flags & SYN or w.begin > side.next + FAR or w.end <= side.next)
        ):
            restarts = side.next is not None
            self.let_side(slot, side, i)
            side.next = w.begin = int(p.seq[i])
            side.probed = False
            if side.acked is not None:
                side.acked = unwrapped(side.acked, side.next)
                if restarts or abs(side.acked - side.next) > FAR:
                    side.acked = None
        if w.begin > side.next + FAR:
            return
        if w.begin > side.next and side.acked is not None and side.acked >= w.begin and not side.waiting \
                and side.t_acked <= self.now - GUARD:  # fmt: skip
            side.next = w.begin
        if w.begin > side.next and not self.fits(slot, payload):
            self.fallbacks += 1
            self.connections[slot].fallen = True
            self.let_all(slot, i)
            self.as_bytes(slot, kind, one, seen)
            return
        side.waiting.append(w)
        if w.begin <= side.next:
            side.waiting.remove(w)
            if w.end > side.next:
                fresh = min(payload, max(0, w.first + payload - side.next))
                side.next, side.probed = w.end, False
                self.token(slot, number, ts, i, up, flags, fresh)
                self.let_contiguous(slot, side, i)
        self.settle(side, self.now)

    def fits(self, slot: int, payload: int) -> bool:
        """Whether one more segment of that payload may wait."""
        every = [w for _, _, w in self.waiting()]
        mine = [w for side in self.connections[slot].sides for w in side.waiting]
        return (
            len(mine) < self.config.connection_packets
            and sum(w.payload for w in mine) + payload <= self.config.connection_bytes
            and len(every) < self.config.packets
            and sum(w.payload for w in every) + payload <= self.config.bytes
        )
