"""Compiles the kernels before the first packet, which would otherwise wait a minute, or be lost on a tap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from connectors.bus.memory import MemoryBus
from connectors.files.frames import FrameBlock
from engine.config import Config
from engine.consumer.intake import Intake
from engine.metrics import Metrics
from engine.scoring.building import ModelSpec, build_detector, small_spec
from engine.sensor.pseudonyms import Pseudonymiser
from engine.sensor.publisher import Publisher, Sensor
from engine.types import empty_packets

logger = logging.getLogger(__name__)

PACKETS = 512  # number of made-up packets
NOTABLE = 5.0  # seconds above which the time is logged; kernels from the cache take one


def warm_up(config: Config, models: Sequence[ModelSpec], clock: Callable[[], float] = time.monotonic) -> None:
    """Run all kernels from frames to rows once on made-up packets: about a minute the first time."""
    began = clock()
    connections = replace(config.connections, capacity=1024)
    specs = [small_spec(spec) for spec in models]
    bus = warm_up_sensor(config)
    detectors = [build_detector(partition, connections, specs) for partition in range(bus.partitions)]
    intake = Intake(Metrics())
    for detector in detectors:
        intake.adopt(detector)
    for message in bus.poll(0.0, 1 << 10) or []:
        intake.take(message)
    for detector in detectors:
        detector.flush()
        detector.restore(detector.state())
    if (took := clock() - began) > NOTABLE:
        logger.info("kernels compiled seconds=%.0f", took)


def warm_up_sensor(config: Config) -> MemoryBus:
    """Run the kernels from frames to messages once; returns the bus with the messages."""
    bus = MemoryBus(2, 1 << 10)
    publisher = Publisher(Sensor("warm-up", 0, 64, config.decode), bus)
    for frames in _frames():
        publisher.add(frames)
    publisher.finish()
    if config.privacy.pseudonym_key is not None:
        Pseudonymiser(bytes(32), 256).apply(empty_packets(1))
    return bus


def _frames() -> Iterator[FrameBlock]:
    """Frames of TCP connections between some pairs of hosts."""
    flags = (2, 18, 16, 24, 16, 17, 17, 16)  # a handshake, data, and an end
    head = bytes.fromhex("0200000000010200000000020800")
    for begin in range(0, PACKETS, 128):
        parts = []
        for i in range(begin, begin + 128):
            talk, step = divmod(i, len(flags))
            ends = (talk % 7 + 1, 200) if step % 2 == 0 else (200, talk % 7 + 1)
            ports = (1024 + talk, 80) if step % 2 == 0 else (80, 1024 + talk)
            ip = b"\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00" + b"".join(
                bytes([192, 0, 2, e]) for e in ends
            )
            tcp = b"".join(p.to_bytes(2, "big") for p in ports) + step.to_bytes(4, "big") * 2
            parts.append(head + ip + tcp + bytes([0x50, flags[step], 1, 0, 0, 0, 0, 0]))
        n = len(parts)
        size = np.full(n, len(parts[0]), np.uint32)
        yield FrameBlock(
            np.frombuffer(b"".join(parts), np.uint8),
            np.arange(n, dtype=np.int64) * int(size[0]),
            size,
            size,
            (np.arange(begin, begin + n, dtype=np.int64) + 1) * 1_000_000,
            np.ones(n, np.uint16),
            dropped=1 if begin else 0,
        )
