"""Event time that one bad time stamp cannot ruin: a leap counts only once other packets confirm it.

A leap ahead is confirmed by a second packet: a pause has the same look, and traffic must go on behind it. A step back,
as of a clock that was wrong at first or that NTP has set, is confirmed by several packets in a row: until then they are
late packets, as a capture with several queues has them.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from engine.kernels import Int, kernel

LEAP = 3_600_000_000_000  # ns; a packet this far ahead of all earlier ones is not believed at once
BACK = 10_000_000_000  # ns; a packet this far behind event time may show that it has gone back
CONFIRM = 8  # packets in a row that show so
BACK_FOR_GOOD = 2  # result of ``step`` when it has gone back
NEVER = -(1 << 63)
LATEST = (1 << 63) - 1


class Tick(IntEnum):
    """Fields at the start of an array that holds a clock; int64."""

    NOW = 0  # event time: the greatest time believed, NEVER before the first
    LEAPT = 1  # time of a packet far ahead that still needs another to confirm it; NEVER without one
    SEEN = 2  # packets
    LEAPS = 3  # packets that were not believed at once
    BEHIND = 4  # latest time of the packets in a row that are far behind, NEVER without one
    IN_A_ROW = 5  # how many these are
    BACKS = 6  # times that event time has gone back


NOW, LEAPT, SEEN, LEAPS = int(Tick.NOW), int(Tick.LEAPT), int(Tick.SEEN), int(Tick.LEAPS)
BEHIND, IN_A_ROW, BACKS = int(Tick.BEHIND), int(Tick.IN_A_ROW), int(Tick.BACKS)


def new_clock() -> NDArray[np.int64]:
    """A clock that has seen nothing."""
    return np.array([NEVER, NEVER, 0, 0, NEVER, 0, 0], np.int64)


@kernel
def step(clock: NDArray[np.int64], ts: Int) -> Int:
    """Take a packet's time; gives 1 when an earlier time turned out to be wrong, 2 when time has gone back, else 0.

    The first packet is believed until the second contradicts it.
    """
    now, leapt = clock[NOW], clock[LEAPT]
    clock[SEEN] += 1
    if now == NEVER:
        clock[NOW] = ts
        return 0
    if clock[SEEN] == 2 and now > NEVER + LEAP and ts < now - LEAP:
        clock[NOW], clock[LEAPT] = ts, now
        clock[LEAPS] += 1
        return 0
    if now > NEVER + BACK and ts < now - BACK:
        return goes_back(clock, ts)
    if clock[IN_A_ROW] != 0:
        clock[BEHIND], clock[IN_A_ROW] = NEVER, 0
    if now >= LATEST - LEAP or ts <= now + LEAP:
        if ts > now:
            clock[NOW] = ts
        if leapt == NEVER:
            return 0
        clock[LEAPT] = NEVER
        return 1
    clock[LEAPT] = ts
    if leapt == NEVER or ts < leapt - LEAP:
        clock[LEAPS] += 1
        return 0 if leapt == NEVER else 1
    clock[NOW] = min(ts, leapt)
    if clock[NOW] >= LATEST - LEAP or ts <= clock[NOW] + LEAP:
        clock[NOW] = max(ts, leapt)
        clock[LEAPT] = NEVER
    return 0


@kernel
def goes_back(clock: NDArray[np.int64], ts: Int) -> Int:
    """Take a time far behind event time; gives 2 when it is the last of several in a row, which are now believed."""
    leapt = clock[LEAPT]
    clock[LEAPT] = NEVER
    behind = clock[BEHIND]
    if behind == NEVER or ts > due_after(behind) or behind > due_after(ts):  # not of one clock
        clock[BEHIND], clock[IN_A_ROW] = ts, 1
    else:
        clock[BEHIND] = max(behind, ts)
        clock[IN_A_ROW] += 1
    if clock[IN_A_ROW] < CONFIRM:
        return 1 if leapt != NEVER else 0
    clock[NOW] = clock[BEHIND]
    clock[BEHIND], clock[IN_A_ROW] = NEVER, 0
    clock[BACKS] += 1
    return BACK_FOR_GOOD


@kernel
def due_after(ts: Int) -> Int:
    """The time a leap after ts; the sum does not wrap."""
    return ts + LEAP if ts < LATEST - LEAP else np.int64(LATEST)


def believe(clock: NDArray[np.int64], now: int) -> None:
    """Take a time that needs no confirmation. It confirms a leap up to that time and leaves later ones open."""
    clock[NOW] = max(int(clock[NOW]), now)
    if clock[LEAPT] <= clock[NOW]:
        clock[LEAPT] = NEVER


@kernel
def run(clock: NDArray[np.int64], ts: NDArray[np.int64]) -> None:
    """Take the times of packets in order."""
    for i in range(ts.size):
        step(clock, ts[i])


@kernel
def run_noting(clock: NDArray[np.int64], ts: NDArray[np.int64], now: NDArray[np.int64]) -> None:
    """Take the times of packets in order, and write event time at each of them. now: (n,) overwritten."""
    for i in range(ts.size):
        step(clock, ts[i])
        now[i] = clock[NOW]
