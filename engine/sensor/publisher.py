"""Captures -> labelled packet blocks on a bus: the sensor's half."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from connectors.files.frames import FrameBlock
from engine import wire
from engine.clock import NEVER, NOW, SEEN, new_clock
from engine.clock import run as run_clock
from engine.headers.decode import DecodeConfig, decode
from engine.labels.rules import Labels
from engine.partition import partitions
from engine.sensor.tally import Tally
from engine.types import PacketBlock, Packets, concatenate, empty_packets, take


class Producer(Protocol):
    """A destination of messages."""

    partitions: int

    def publish(self, partition: int, value: bytes, *, about: str, packets: int) -> object:
        """Append a message; may block while there is no room.

        ``about``: name of the message in an error. ``packets``: packets in it, for buses that count them.
        """


LATENCY = 0.05  # seconds that packets of a tap or paced source may wait for their block to fill
HEARTBEAT = 1.0  # seconds between heartbeats of a tap or paced source
LONGEST_SLEEP = 3600.0  # seconds; timers have a limit


@dataclass
class Drift:
    """Delay of a paced replay, in seconds, and the pauses that it did not wait for."""

    worst: float = 0.0
    total: float = 0.0
    pieces: int = 0
    gaps: int = 0  # pauses of the capture that were shortened
    skipped: float = 0.0  # seconds of the capture by which they were shortened, together

    def note(self, late: float) -> None:
        """Count one piece of a capture, sent that many seconds after it was due."""
        self.worst, self.total, self.pieces = max(self.worst, late), self.total + late, self.pieces + 1

    def shorten(self, by: float) -> None:
        """Count a pause that was shortened by that many seconds of the capture."""
        self.gaps, self.skipped = self.gaps + 1, self.skipped + by

    @property
    def mean(self) -> float:
        """Mean delay of a piece in seconds."""
        return self.total / self.pieces if self.pieces else 0.0


@dataclass(frozen=True)
class Pace:
    """Speed of a replay: ``factor`` seconds of capture a second, 0 = as fast as possible.

    A pause of more than ``max_gap`` seconds of the capture lasts as long as one of ``max_gap``; 0: all are kept.
    ``sleep`` may return true to end the wait.
    """

    factor: float = 0.0
    latency: float | None = (
        None  # seconds that packets may wait for their block to fill; None: until it is full
    )
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    drift: Drift = field(default_factory=Drift)
    max_gap: float = 0.0


@dataclass(frozen=True)
class Sensor:
    """Identity of the publisher, and how it reads packets."""

    name: str
    epoch: int
    block_packets: int
    decode: DecodeConfig
    labels: Labels | None = None
    hide: Callable[[Packets], Packets] | None = None  # makes pseudonyms, after labels were looked up
    shift: int = 0  # ns added to every time, after labels were looked up: for a capture published again


class Publisher:
    """Decodes frames, labels packets, splits them by partition and publishes blocks of about equal size."""

    def __init__(self, sensor: Sensor, bus: Producer, tally: Tally | None = None) -> None:
        """``tally``: receives the counts of what is read."""
        self.tally = Tally() if tally is None else tally
        self._sensor = sensor
        self._bus = bus
        self._parts: list[list[Packets]] = [[] for _ in range(bus.partitions)]
        self._waiting = [0] * bus.partitions
        self._first = [0] * bus.partitions  # number of the first waiting packet, in the stream
        self._seq = [0] * bus.partitions  # number of the next packet
        self._dropped = 0  # lost packets to report with the next block
        self._loss = [False] * bus.partitions  # whether packets were lost since a partition's last block
        self._clock = new_clock()
        self._began = 0  # time of the first packet
        self._lock = threading.RLock()  # a ticker may flush while frames are added
        self.packets = 0
        self.labelled = 0  # packets that belong to a probe

    def add(self, frames: FrameBlock) -> None:
        """Publish the blocks that are full; other packets wait for more."""
        if len(frames) or frames.dropped:
            with self._lock:
                self._add(frames)

    def _add(self, frames: FrameBlock) -> None:
        p = decode(frames, self._sensor.decode)
        self.tally.take(frames, p)
        if self._sensor.labels is not None:
            p = self._sensor.labels.tag(p)
            self.labelled += int(np.count_nonzero(p.probe))
        if self._sensor.hide is not None:
            p = self._sensor.hide(p)
        if self._sensor.shift:
            p = p._replace(ts=p.ts + self._sensor.shift)
        first = self.packets  # number of p's first packet in the stream
        self.packets += len(frames)
        if frames.dropped:
            self.flush()  # publish the packets read before the loss separately from those after it
            self._dropped += frames.dropped
            self._loss = [True] * self._bus.partitions
        if not len(frames):
            return
        if not self._clock[SEEN]:
            self._began = int(p.ts[0])
        run_clock(self._clock, p.ts)
        if self._bus.partitions == 1:
            self._keep(0, p, first)
            return
        goes = partitions(p, self._bus.partitions)
        for partition in np.unique(goes).tolist():
            mine = goes == partition
            self._keep(partition, take(p, mine), first + int(mine.argmax()))

    def _keep(self, partition: int, p: Packets, first: int) -> None:
        if not self._parts[partition]:
            self._first[partition] = first
        self._parts[partition].append(p)
        self._waiting[partition] += p.ts.size
        if self._waiting[partition] >= self._sensor.block_packets:
            self._send(partition)

    def _send(self, partition: int) -> None:
        parts = self._parts[partition]
        p = parts[0] if len(parts) == 1 else concatenate(parts) if parts else empty_packets()
        self._parts[partition], self._waiting[partition] = [], 0
        # event time of the partition: with the sensor's, results would depend on where blocks are cut
        now = int(p.ts.max()) if p.ts.size else int(self._clock[NOW]) if self._clock[SEEN] > 1 else NEVER
        block = PacketBlock(
            self._sensor.name,
            self._sensor.epoch,
            self._seq[partition],
            p,
            now,
            self._dropped,
            self._loss[partition],
        )
        self._dropped, self._loss[partition] = 0, False
        about = (
            f"packet {self._first[partition]:,} of the stream (partition {partition})"
            if parts
            else "a heartbeat"
        )
        self._bus.publish(partition, wire.encode(block), about=about, packets=len(block))
        self._seq[partition] += len(block)

    @property
    def span(self) -> int:
        """ns of event time since the first packet."""
        return int(self._clock[NOW]) - self._began if self._clock[SEEN] else 0

    def flush(self) -> None:
        """Publish all waiting packets."""
        with self._lock:
            for partition in range(self._bus.partitions):
                if self._parts[partition]:
                    self._send(partition)

    def finish(self) -> None:
        """Publish all waiting packets and a last heartbeat, so that every partition learns the final event time."""
        self.flush()
        self.heartbeat()

    def heartbeat(self, now: int | None = None) -> None:
        """Publish waiting packets and an empty block to every partition, so that event time goes on without packets.

        The time of a single packet may be damaged, and is not believed.
        ``now``: ns; no earlier packet will come. None: the time of the latest packet.
        """
        with self._lock:
            if now is not None:
                self.flush()
                run_clock(self._clock, np.array([now], np.int64))
            for partition in range(self._bus.partitions):
                if self._clock[SEEN]:
                    self._send(partition)


def replay(blocks: Iterable[FrameBlock], publisher: Publisher, pace: Pace) -> None:
    """Publish all blocks, each frame when it is due within the latency, and finish."""
    if pace.factor:
        blocks = _in_time(blocks, pace)
    with _ticking(publisher, pace.latency) as problem:
        for frames in blocks:
            publisher.add(frames)
            if problem:
                raise problem[0]
    if problem:
        raise problem[0]
    publisher.finish()


@contextmanager
def _ticking(publisher: Publisher, latency: float | None) -> Iterator[list[BaseException]]:
    """Publish waiting packets every ``latency`` seconds, and heartbeats, even while no frame comes.

    Gives a list that receives any error of the thread that does so.
    """
    problem: list[BaseException] = []
    if latency is None:
        yield problem
        return
    ended = threading.Event()

    def tick() -> None:
        beats = 0.0
        while not ended.wait(latency):
            beats += latency
            try:
                publisher.flush()
                if beats >= HEARTBEAT:
                    publisher.heartbeat()
                    beats = 0.0
            except Exception as error:
                problem.append(error)
                return

    thread = threading.Thread(target=tick, name="ticker", daemon=True)
    thread.start()
    try:
        yield problem
    finally:
        ended.set()
        thread.join()


def _in_time(blocks: Iterable[FrameBlock], pace: Pace) -> Iterator[FrameBlock]:
    """The frames of all blocks when they are due, in pieces small enough for the latency."""
    began: tuple[float, int] | None = None
    last = cut = 0  # ns: the previous time; what was cut off the pauses
    longest = int(pace.max_gap * 1e9)
    span = int((pace.latency or 1.0) * pace.factor * 1e9)
    for frames in blocks:
        for piece in _pieces(frames, span, longest):
            if not len(piece):  # a loss at the end of a capture
                yield piece
                continue
            if began is None:
                began, last = (pace.clock(), int(piece.ts[0])), int(piece.ts[0])
            gap, last = int(piece.ts[0]) - last, int(piece.ts[-1])
            if longest and gap > longest:
                cut += gap - longest
                pace.drift.shorten((gap - longest) * 1e-9)
            elif longest and gap < -longest:  # time was set back: go on from there
                cut += gap
            due = began[0] + (last - began[1] - cut) * 1e-9 / pace.factor
            while (wait := due - pace.clock()) > 0 and not pace.sleep(min(wait, LONGEST_SLEEP)):
                pass
            pace.drift.note(max(0.0, pace.clock() - due))
            yield piece


def _pieces(frames: FrameBlock, span: int, longest: int) -> Iterator[FrameBlock]:
    """The frames cut into pieces of at most ``span`` ns of capture, and where time leaps by more than ``longest`` ns.

    One piece if there is no frame. ``longest``: 0: leaps do not matter.
    """
    begin, dropped = 0, frames.dropped
    leaps = np.zeros(len(frames), np.bool_)
    if longest:
        leaps[1:] = np.abs(np.diff(frames.ts)) > longest
    if not len(frames):
        yield frames
    while begin < len(frames):
        late = frames.ts[begin:] - frames.ts[begin] > span
        late[1:] |= leaps[begin + 1 :]
        end = begin + int(late.argmax()) if late.any() else len(frames)
        yield replace(
            frames,
            start=frames.start[begin:end],
            captured=frames.captured[begin:end],
            wire=frames.wire[begin:end],
            ts=frames.ts[begin:end],
            link_type=frames.link_type[begin:end],
            dropped=dropped,
        )
        begin, dropped = end, 0
