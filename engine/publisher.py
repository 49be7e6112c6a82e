"""Captures -> labelled packet blocks on a bus: the sensor's half."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from connectors.frames import FrameBlock
from engine import wire
from engine.decode import DecodeConfig, decode
from engine.labels import Labels
from engine.partition import partitions
from engine.types import PacketBlock, Packets, concatenate, empty_packets, take


class Producer(Protocol):
    """Where messages go."""

    partitions: int

    def publish(self, partition: int, value: bytes) -> int:
        """Append a message and return its offset; blocks while the partition is full."""


@dataclass(frozen=True)
class Pace:
    """How fast a capture is replayed: ``factor`` seconds of capture a second, 0 = as fast as it goes."""

    factor: float = 0.0
    latency: float | None = (
        None  # seconds that packets may wait for their block to fill; None: until it is full
    )
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


@dataclass(frozen=True)
class Sensor:
    """Who publishes, and how packets are read."""

    name: str
    epoch: int
    block_packets: int
    decode: DecodeConfig
    labels: Labels | None = None


class Publisher:
    """Decodes frames, labels packets, splits them by partition and publishes blocks of about equal size."""

    def __init__(self, sensor: Sensor, bus: Producer) -> None:
        self._sensor = sensor
        self._bus = bus
        self._parts: list[list[Packets]] = [[] for _ in range(bus.partitions)]
        self._waiting = [0] * bus.partitions
        self._seq = [0] * bus.partitions  # number of the next packet
        self._dropped = 0
        self._now = np.iinfo(np.int64).min
        self.packets = 0

    def add(self, frames: FrameBlock) -> None:
        """Publish what is full; the rest waits for more."""
        if not len(frames):
            return
        p = decode(frames, self._sensor.decode)
        if self._sensor.labels is not None:
            p = self._sensor.labels.tag(p)
        self.packets += len(frames)
        self._dropped += frames.dropped
        self._now = max(self._now, int(p.ts.max()))
        if self._bus.partitions == 1:
            self._keep(0, p)
            return
        goes = partitions(p, self._bus.partitions)
        for partition in np.unique(goes).tolist():
            self._keep(partition, take(p, goes == partition))

    def _keep(self, partition: int, p: Packets) -> None:
        self._parts[partition].append(p)
        self._waiting[partition] += p.ts.size
        if self._waiting[partition] >= self._sensor.block_packets:
            self._send(partition)

    def _send(self, partition: int) -> None:
        parts = self._parts[partition]
        p = parts[0] if len(parts) == 1 else concatenate(parts) if parts else empty_packets()
        self._parts[partition], self._waiting[partition] = [], 0
        block = PacketBlock(
            self._sensor.name, self._sensor.epoch, self._seq[partition], p, int(self._now), self._dropped
        )
        self._dropped = 0
        self._bus.publish(partition, wire.encode(block))
        self._seq[partition] += len(block)

    def flush(self) -> None:
        """Publish what waits."""
        for partition in range(self._bus.partitions):
            if self._parts[partition]:
                self._send(partition)

    def finish(self) -> None:
        """Publish what waits and a last heartbeat, so that every partition learns how late it is."""
        self.flush()
        for partition in range(self._bus.partitions):
            if self._now > np.iinfo(np.int64).min:
                self._send(partition)


def replay(blocks: Iterable[FrameBlock], publisher: Publisher, pace: Pace) -> None:
    """Publish all blocks, each frame when it is due, give or take the latency, and finish."""
    if pace.factor:
        blocks = _in_time(blocks, pace)
    sent = pace.clock()
    for frames in blocks:
        publisher.add(frames)
        if pace.latency is not None and pace.clock() - sent >= pace.latency:
            publisher.flush()
            sent = pace.clock()
    publisher.finish()


def _in_time(blocks: Iterable[FrameBlock], pace: Pace) -> Iterator[FrameBlock]:
    """The frames of all blocks when they are due, cut where the latency asks for it."""
    began: tuple[float, int] | None = None
    for frames in blocks:
        for piece in _pieces(frames, int((pace.latency or 1.0) * pace.factor * 1e9)):
            last = int(piece.ts[-1])
            if began is None:
                began = (pace.clock(), int(piece.ts[0]))
            wait = began[0] + (last - began[1]) * 1e-9 / pace.factor - pace.clock()
            if wait > 0:
                pace.sleep(wait)
            yield piece


def _pieces(frames: FrameBlock, span: int) -> Iterator[FrameBlock]:
    """The frames cut into pieces of at most ``span`` ns of capture."""
    begin, dropped = 0, frames.dropped
    while begin < len(frames):
        late = frames.ts[begin:] - frames.ts[begin] > span
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
