"""The pass that turns packets into tokens, for models over the packets of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.clock import believe
from engine.connections.tracker import Tracked
from engine.features.reassembly import (
    PACKETS,
    bounds_of,
    end_streams,
    new_streams,
    reassemble,
    release,
    restored,
    saved,
)
from engine.features.tokens import (
    BUCKET,
    COUNTS,
    LOG,
    POLICIES,
    STREAM,
    Lookups,
    TokenConfig,
    Tokens,
    choose,
    left_out,
    new_tokens,
    part,
)
from engine.scoring.passes import Carried, Features
from engine.scoring.start import StartConfig
from engine.types import Packets


class TokenPass:
    """Tokens of the packets of a partition."""

    origin, warming = "empty", False

    def __init__(self, config: TokenConfig, carried: Carried | None, slots: int) -> None:  # noqa: ARG002
        self.config = config
        self._slots = slots
        self._policy = POLICIES.index(config.policy)
        self._bounds = bounds_of(config)
        self._streams = new_streams(slots, config)
        self._tables = Lookups(BUCKET, LOG, left_out(config.policy if self._policy != STREAM else "bytes"))
        self._counts = np.zeros(len(COUNTS), np.int64)
        self._words = np.zeros(config.words, np.uint8)
        self._out = new_tokens(0, config.entries)

    def update(self, p: Packets, t: Tracked) -> Tokens:
        """Tokens of packets of p, and of earlier ones that were held back; valid until the next call."""
        n = p.ts.size
        out = self._room(n + self._waiting)
        if self._policy == STREAM:
            m = reassemble(
                out, self._streams, self._tables, self._counts, self._bounds, p, t.slot, t.flags, t.segment, t.seen,
                t.closed, t.closed_at, t.number, self._words,
            )  # fmt: skip
        else:
            m = choose(
                out, self._streams.flows, self._tables, self._counts, p, t.slot, t.flags, t.segment, t.seen,
                self._policy, t.number, self._words,
            )  # fmt: skip
            self._streams.flows[t.closed] = np.zeros((), self._streams.flows.dtype)
        return part(out, m)

    def tick(self, now: int) -> Tokens:
        """Tokens that event time lets go when it reaches ``now`` without a packet."""
        if self._policy != STREAM:
            return part(self._out, 0)
        believe(self._streams.clock, now)
        out = self._room(self._waiting)
        return part(out, release(out, self._streams, self._tables, self._counts, self._bounds))

    def close(self, slots: NDArray[np.int32]) -> Tokens:
        """Tokens held back for connections that have ended otherwise than in an ``update``."""
        out = self._room(self._waiting)
        return part(out, end_streams(out, self._streams, self._tables, self._counts, slots))

    @property
    def _waiting(self) -> int:
        return int(self._streams.registers[PACKETS])

    def _room(self, n: int) -> Tokens:
        if self._out.slot.size < n:
            self._out = new_tokens(n, self.config.entries)
        return self._out

    def ready(self, config: StartConfig) -> int:  # noqa: ARG002
        """Tokens need no warm-up."""
        return 0

    def carry(self, most: int) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """Nothing: connections do not go on from one run into another."""
        return {}

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of everything that later tokens depend on."""
        return saved(self._streams) | {"counts": self._counts.copy()}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a result of ``state``."""
        streams, counts = restored(self._slots, self.config, saved), saved["counts"]
        if counts.dtype != np.int64 or counts.shape != self._counts.shape:
            raise ValueError(
                f"{counts.shape} counts of {counts.dtype}, must be {self._counts.shape} of int64"
            )
        self._streams = streams
        self._counts[:] = counts

    def counters(self) -> Mapping[str, int]:
        """Counts since the beginning, and packets that wait now."""
        return dict(zip(COUNTS, self._counts.tolist())) | {"waiting": self._waiting}


def tokens(config: TokenConfig) -> Features:
    """Tokens for models over the packets of a connection."""
    return Features("tokens", config, TokenPass)
