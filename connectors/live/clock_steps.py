"""Keeps packet times of a tap on the clock they began with, when somebody sets the machine's clock.

The kernel stamps packets with the wall clock, which steps when it is set. After a step back, every connection's next
packet would be older than its last; after a step ahead, all connections would time out at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

STEP = 500_000_000  # ns; a smaller difference is drift that is being corrected gradually
UNSURE = 2_000_000_000  # ns after a step in which packets stamped before it may still arrive


def _boot_time() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ClockSteps:
    """Detects steps by a clock that nobody sets, and removes them from packet times."""

    def __init__(self, day: Callable[[], int] = time.time_ns, boot: Callable[[], int] = _boot_time) -> None:
        """``day``: the clock that stamps packets; ``boot``: a clock that is never set. Both in ns."""
        self._day, self._boot = day, boot
        self._offset = day() - boot()
        self._before = self._step = 0  # the correction before the last step, and the step
        self._stepped = -UNSURE  # time of the step, by the clock that is never set
        self.correction = 0  # ns added to times now
        self.steps = 0

    def now(self) -> int:
        """The time that a packet would get now, ns since the epoch."""
        day, _ = self._look()
        return day + self.correction

    def corrected(self, ts: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) times without the steps. Call it soon after the packets were stamped."""
        day, boot = self._look()
        if not self.steps:
            return ts
        if boot - self._stepped >= UNSURE:
            return ts + self.correction
        early = np.abs(ts - (day - self._step)) < np.abs(ts - day)  # stamped before the clock was set
        return ts + np.where(early, self._before, self.correction)

    def _look(self) -> tuple[int, int]:
        day, boot = self._day(), self._boot()
        step = day - boot - self._offset
        self._offset += step
        if abs(step) >= STEP:
            self.steps += 1
            self._step, self._stepped = step, boot
            self._before, self.correction = self.correction, self.correction - step
            logger.warning(
                "clock set: step_seconds=%.3f; packet times go on without the step until a restart",
                step * 1e-9,
            )
        return day, boot
