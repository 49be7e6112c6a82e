"""Writes TCP conversations packet by packet, for tests of connection tracking."""

from __future__ import annotations

import numpy as np

from engine.types import KIND_TRANSPORT, Kind, Packets, empty_packets

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
A, B = 0xFFFF << 32 | 0x0A000001, 0xFFFF << 32 | 0x0A000002  # 10.0.0.1, 10.0.0.2
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


class Conversation:
    """Packets between a (10.0.0.1:40000) and b (10.0.0.2:80); sequence numbers are given relative to the ISNs."""

    def __init__(self, isn_a: int = 1000, isn_b: int = 7_000_000) -> None:
        self.isn = {"a": isn_a, "b": isn_b}
        self.rows: list[dict[str, int]] = []
        self.now = T0
        self.ids = {"a": 1, "b": 1}

    def send(
        self, side: str, flags: str, seq: int, ack: int = 0, payload: int = 0, *,
        after: float = 1.0, window: int = 1000, ip_id: int | None = None, port: int = 40000,
    ) -> Conversation:  # fmt: skip
        """Append a packet ``after`` ms later; every packet has an ip_id of its own unless one is given."""
        self.now += round(after * MS)
        other = "b" if side == "a" else "a"
        self.ids[side] += 1
        ends = ((A, port), (B, 80)) if side == "a" else ((B, 80), (A, port))
        self.rows.append(
            {
                "ts": self.now, "src_lo": ends[0][0], "sport": ends[0][1], "dst_lo": ends[1][0], "dport": ends[1][1],
                "proto": 6, "kind": Kind.IPV4 | KIND_TRANSPORT, "tcp_flags": sum(FLAGS[f] for f in flags),
                "seq": (self.isn[side] + seq) % 2**32, "ack": (self.isn[other] + ack) % 2**32 if "A" in flags else 0,
                "payload": payload, "ip_size": payload + 40, "size": payload + 54, "window": window,
                "ip_id": self.ids[side] if ip_id is None else ip_id,
            }
        )  # fmt: skip
        return self

    def open(self, trip: float = 10.0) -> Conversation:
        """The three-way handshake, ``trip`` ms in all."""
        self.send("a", "S", 0).send("b", "SA", 0, 1, after=trip / 2)
        return self.send("a", "A", 1, 1, after=trip / 2)

    def close(self, seq_a: int, seq_b: int) -> Conversation:
        """Both FINs, both acknowledged."""
        self.send("a", "FA", seq_a, seq_b).send("b", "FA", seq_b, seq_a + 1)
        return self.send("a", "A", seq_a + 1, seq_b + 1)

    def packets(self) -> Packets:
        """What was written so far."""
        p = empty_packets(len(self.rows))
        for i, row in enumerate(self.rows):
            for name, value in row.items():
                getattr(p, name)[i] = np.array(value).astype(getattr(p, name).dtype)
        return p
