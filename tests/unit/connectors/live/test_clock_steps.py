"""Times of a live capture when somebody sets the machine's clock."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.live.clock_steps import ClockSteps

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


class Machine:
    """Two clocks: the day's, which can be set, and one that only goes on."""

    def __init__(self) -> None:
        self.boot, self.day = 50 * SECOND, T0

    def go(self, ns: int, drift: int = 0) -> None:
        self.boot += ns
        self.day += ns + drift


def steps(machine: Machine) -> ClockSteps:
    return ClockSteps(lambda: machine.day, lambda: machine.boot)


def test_a_clock_that_only_drifts_is_left_alone() -> None:
    machine = Machine()
    clock = steps(machine)
    for _ in range(1000):
        machine.go(SECOND, drift=500_000)
        ts = np.array([machine.day - 5, machine.day], np.int64)
        assert clock.corrected(ts) is ts
        assert clock.now() == machine.day
    assert (clock.steps, clock.correction) == (0, 0)


@pytest.mark.parametrize("step", [3600 * SECOND, -3600 * SECOND, SECOND, -86400 * 365 * SECOND])
def test_times_go_on_as_if_nobody_had_set_the_clock(step: int) -> None:
    machine = Machine()
    clock = steps(machine)
    machine.go(SECOND)
    before = machine.day - SECOND // 10  # stamped, and not yet read when the clock is set
    machine.day += step
    machine.go(SECOND // 5)
    after = machine.day - SECOND // 10
    got = clock.corrected(np.array([before, after], np.int64))
    assert got.tolist() == [before, before + SECOND // 5]
    machine.go(10 * SECOND)
    assert clock.corrected(np.array([machine.day], np.int64)).tolist() == [machine.day - step]
    assert clock.now() == machine.day - step
    assert (clock.steps, clock.correction) == (1, -step)


def test_a_step_noticed_in_silence_counts_for_packets_stamped_before_it() -> None:
    machine = Machine()
    clock = steps(machine)
    machine.go(SECOND)
    before = machine.day
    machine.day -= 600 * SECOND
    assert clock.now() == before
    machine.go(SECOND // 100)
    assert clock.corrected(np.array([before, machine.day], np.int64)).tolist() == [
        before,
        before + SECOND // 100,
    ]


def test_steps_add_up() -> None:
    machine = Machine()
    clock = steps(machine)
    for step in (5, -3, 100, -102):
        machine.go(10 * SECOND)
        machine.day += step * SECOND
        clock.now()
    machine.go(10 * SECOND)
    assert clock.now() == machine.day == T0 + 50 * SECOND
    assert (clock.steps, clock.correction) == (4, 0)


def test_long_after_a_step_an_old_packet_counts_as_stamped_since() -> None:
    machine = Machine()
    clock = steps(machine)
    machine.day += 6 * SECOND // 10
    clock.now()
    machine.go(10 * SECOND)
    old = machine.day - 4 * SECOND // 10  # nearer to what the clock would show without the step
    assert clock.corrected(np.array([old], np.int64)).tolist() == [old - 6 * SECOND // 10]
