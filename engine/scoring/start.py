"""How scoring with a bundle starts: with streams that the bundle carries, or after a warm-up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.clock import new_clock, run_noting
from engine.features.carried import MOST_FLOWS
from engine.types import Packets

LONGEST = 1e9  # greatest number of seconds


@dataclass(frozen=True)
class StartConfig:
    """The streams that a bundle carries, and the warm-up without them.

    A warm-up ends at whichever of its two bounds comes first; 0 for either: there is none.
    """

    warmup_packets: int = 5000  # packets before scoring with a bundle begins
    warmup_seconds: float = 120.0  # or seconds, whichever comes first
    carry_flows: int = 8192  # most flows whose streams a bundle carries, 0.6 kB each; 0: none
    max_gap: float = 120.0  # most seconds from the carried streams' last packet to the first one scored

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_packets < 1 << 40:
            raise ValueError(f"warmup_packets {self.warmup_packets} must be from 0 to 2**40 - 1")
        if not 0 <= self.carry_flows <= MOST_FLOWS:
            raise ValueError(f"carry_flows {self.carry_flows} must be from 0 to {MOST_FLOWS}")
        for name in ("warmup_seconds", "max_gap"):
            if not 0 <= getattr(self, name) <= LONGEST:
                raise ValueError(f"{name} {getattr(self, name)} must be from 0 to {LONGEST:g}")

    @property
    def waits(self) -> bool:
        """Whether there is a warm-up."""
        return self.warmup_packets > 0 and self.warmup_seconds > 0

    def brief(self) -> StartConfig:
        """The same with a warm-up of at most one packet."""
        return replace(self, warmup_packets=min(1, self.warmup_packets))


class Age:
    """How long features have run: packets, and event time. The last block's packets are known one by one."""

    def __init__(self) -> None:
        self.packets = 0  # packets so far
        self.first = 0  # least event time, ns; time that goes back begins anew
        self._clock = new_clock()
        self._before = 0  # packets before the last block
        self._waited: NDArray[np.int64] = np.empty(
            0, np.int64
        )  # ns that each of its packets came after the first

    def add(self, p: Packets) -> None:
        """Take a block."""
        self._before, n = self.packets, p.ts.size
        now = np.empty(n, np.int64)
        run_noting(self._clock, p.ts, now)
        if n and not self.packets:
            self.first = int(now[0])
        first = np.minimum.accumulate(np.minimum(now, self.first))
        self._waited = now - first
        if n:
            self.first = int(first[-1])
        self.packets += n

    def ready(self, config: StartConfig) -> int:
        """Row of the last block's first packet after a warm-up; the size of the block if there is none yet."""
        by_count = min(self._waited.size, max(0, config.warmup_packets - self._before))
        waited = self._waited[:by_count] >= config.warmup_seconds * 1e9
        return int(waited.argmax()) if waited.any() else by_count

    def state(self) -> NDArray[np.int64]:
        """(9,) the age."""
        return np.array([self.packets, self.first, *self._clock], np.int64)

    def restore(self, saved: NDArray[np.int64]) -> None:
        """Continue from a result of ``state``. ValueError when it is none."""
        if saved.shape != (2 + self._clock.size,):
            raise ValueError(f"an age of shape {saved.shape} must be ({2 + self._clock.size},)")
        self.packets, self.first = int(saved[0]), int(saved[1])
        self._clock[:] = saved[2:]
