"""Connections with known packets, for tests of traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from probing.trace.connection import Mark, TracedConnection

T0 = 1_700_000_000_000_000_000
MS = 1_000_000

Packet = tuple[float, int, int, str]  # ms, bytes on the wire (negative: from the responder), payload, segment
PACKETS: list[Packet] = [
    (0, 74, 0, "new"), (10, -74, 0, "new"), (20, 66, 0, "ack"), (30, 166, 100, "new"), (60, -1514, 1448, "new"),
    (70, -1514, 1448, "duplicate"), (80, 66, 0, "ack"), (100, 66, 0, "new"),
]  # fmt: skip


def traced(packets: Sequence[Packet] = PACKETS, **more: Any) -> TracedConnection:
    """A connection of these packets, with a model `m` that has no score of ACKs; more: other fields."""
    ms, size, payload, segment = zip(*packets)
    scores = [np.nan if s == "ack" else k / 10 for k, s in enumerate(segment)]
    whole = TracedConnection(
        "x.pcap", "CAAAAAAAAAAAAAAAA", "10.0.0.1:40000 > 10.0.0.2:80 tcp", "SF", np.arange(1, len(packets) + 1),
        T0 + np.array([round(t * MS) for t in ms], np.int64), np.array(size) > 0, np.abs(np.array(size)),
        np.array(payload, np.int64), np.full(len(packets), 16), segment, np.zeros(len(packets), bool),
        {"m": np.array(scores)}, {"m": 0.35},
    )  # fmt: skip
    return dataclasses.replace(whole, **more)


def marks(*given: tuple[float, str]) -> list[Mark]:
    """Phases by ms."""
    return [Mark(T0 + round(ms * MS), name) for ms, name in given]
