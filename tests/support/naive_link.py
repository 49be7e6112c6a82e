"""What the lab's link must decide, written a second time from its definitions, in plain Python."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WORD = (1 << 64) - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
DRAWS = ("loss", "delay", "reorder", "duplicate", "corrupt", "bit", "ordered", "burst")
TARGET, INTERVAL = 5_000_000, 100_000_000


def finalised(x: int) -> int:
    """The output of SplitMix64 for a state (Steele et al., 2014)."""
    x = (x ^ x >> 30) * FIRST & WORD
    x = (x ^ x >> 27) * SECOND & WORD
    return x ^ x >> 31


def numbers(state: int) -> Iterator[float]:
    """The numbers of a generator from 0 to 1."""
    while True:
        state = (state + GOLDEN) & WORD
        yield (finalised(state) >> 11) / 2**53


def flow_numbers(
    seed: int, ways: tuple[int, int], port: int, ordinal: int = 0, direction: int = 0
) -> Iterator[float]:
    """The numbers of one direction of a TCP flow. ways: ports of the link that it comes from and goes to."""
    name = finalised((ways[0] << 40 | ways[1] << 32 | 6 << 16 | port) + GOLDEN & WORD)
    start = finalised(seed ^ name) + ordinal & WORD
    return numbers(finalised(start if direction == 0 else start ^ SECOND))


def stream(seed: int, port: int, kind: int) -> Iterator[float]:
    """The numbers of a port's outages (kind 0), or of its cross traffic towards the server (1) or the client (2)."""
    return numbers(finalised(seed ^ finalised(1 << 48 | 3 * port + kind)))


def lost_in_bursts(source: Iterator[float], n: int, share: float, length: float) -> list[bool]:
    """Whether each of n packets of a direction is lost in a burst."""
    result: list[bool] = []
    for k in range(n):
        u = [next(source) for _ in DRAWS][DRAWS.index("burst")]
        if k == 0:
            result.append(u < share)
        elif result[-1]:
            result.append(not u < 1 / length)
        else:
            result.append(u < share / (length * (1 - share)))
    return result


def outages(source: Iterator[float], every: float, duration: float, until: float) -> list[tuple[int, int]]:
    """Begin and end of the outages that begin before a time; all in ns."""
    result: list[tuple[int, int]] = []
    now = 0
    while now < until:
        begin = now + _exponential(next(source), every)
        now = begin + _exponential(next(source), duration)
        result.append((begin, now))
    return result


def arrivals(source: Iterator[float], gap: float, until: float) -> list[int]:
    """The ns at which frames of cross traffic come."""
    result = [_exponential(next(source), gap)]
    while result[-1] <= until:
        result.append(result[-1] + _exponential(next(source), gap))
    return result


def _exponential(u: float, mean: float) -> int:
    return int(max(1.0, -mean * math.log(1 - u)))


@dataclass
class Packet:
    """A packet at a queue; left: ns at which it has left, or what became of it."""

    ts: int
    size: int
    own: bool = True
    left: int | str = "waits"


@dataclass
class Queue:
    """A queue in front of a rate, in bits per ns, or of the times of a trace (already repeated often enough)."""

    limit: int
    rate: float = 0.0
    times: Sequence[int] = ()
    codel: bool = False
    most: int = 1514
    waiting: deque[Packet] = field(default_factory=deque)
    free: int = 0  # with a rate: when the wire is free
    above: int = 0
    dropping: bool = False
    following: int = 0
    count: int = 0
    last: int = 0

    def run(self, packets: Sequence[Packet]) -> None:
        """Pass packets, in order of time, through the queue."""
        todo = deque(packets)
        if self.times:
            self._by_trace(todo)
        else:
            self._by_rate(todo)

    def _arrive(self, packet: Packet, busy: int) -> None:
        if len(self.waiting) + busy >= self.limit:
            packet.left = "overflow"
        else:
            self.waiting.append(packet)

    def _by_trace(self, todo: deque[Packet]) -> None:
        """At each opportunity 1,500 bytes of the packets that are there leave; what is not used is lost."""
        begun = 0  # bytes of the first packet that have left
        busy: Packet | None = None
        for at in self.times:
            while todo and todo[0].ts <= at:
                self._arrive(todo.popleft(), busy is not None)
            budget = 1500
            while budget:
                if busy is None:
                    busy = self._next(at)
                    if busy is None:
                        break
                size = busy.size - 14 - begun
                if size > budget:
                    begun += budget
                    break
                budget -= size
                busy.left, busy, begun = at, None, 0

    def _by_rate(self, todo: deque[Packet]) -> None:
        while todo or self.waiting:
            at = max(self.free, self.waiting[0].ts) if self.waiting else None
            if todo and (at is None or todo[0].ts <= at):
                packet = todo.popleft()
                self._arrive(packet, packet.ts < self.free)
                continue
            assert at is not None
            if sent := self._next(at):
                self.free = at + int(sent.size * 8e9 / (self.rate * 1e9))
                sent.left = self.free

    def _next(self, now: int) -> Packet | None:
        """RFC 8289, section 5.5: deque."""
        packet, okay = self._dodeque(now)
        if not self.codel:
            return packet
        if self.dropping:
            if not okay:
                self.dropping = False
            while self.dropping and now >= self.following:
                assert packet is not None
                packet.left = "codel"
                self.count += 1
                packet, okay = self._dodeque(now)
                if okay:
                    self.following = self._law(self.following)
                else:
                    self.dropping = False
        elif okay:
            assert packet is not None
            packet.left = "codel"
            packet, okay = self._dodeque(now)
            self.dropping = True
            delta = self.count - self.last
            self.count = delta if delta > 1 and now - self.following < 16 * INTERVAL else 1
            self.following = self._law(now)
            self.last = self.count
        return packet

    def _law(self, ts: int) -> int:
        return int(ts + INTERVAL / math.sqrt(self.count))

    def _dodeque(self, now: int) -> tuple[Packet | None, bool]:
        if not self.waiting:
            self.above = 0
            return None, False
        packet = self.waiting.popleft()
        if now - packet.ts < TARGET or sum(p.size for p in self.waiting) <= self.most:
            self.above = 0
        elif self.above == 0:
            self.above = now + INTERVAL
        else:
            return packet, now >= self.above
        return packet, False
