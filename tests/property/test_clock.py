"""Event time against a twin that keeps every time stamp it has seen."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.clock import (
    BACK,
    BACKS,
    CONFIRM,
    LEAP,
    LEAPS,
    LEAPT,
    NEVER,
    NOW,
    SEEN,
    believe,
    new_clock,
    run,
    step,
)

HOUR = 3_600_000_000_000
T0 = 1_700_000_000_000_000_000
YEAR = 365 * 24 * HOUR
TEN_SECONDS = 10**10
GREATEST = (1 << 63) - 1

Said = tuple[
    int, int, int, int, bool
]  # event time, time waiting for confirmation, leaps, steps back, one was wrong

leaps = st.sampled_from(
    [
        0,
        1,
        10**9,
        HOUR - 1,
        HOUR,
        HOUR + 1,
        2 * HOUR,
        10 * YEAR,
        -1,
        -(10**9),
        -HOUR,
        -HOUR - 1,
        -2 * HOUR,
        -10 * YEAR,
    ]
)
stamps = st.lists(leaps, max_size=12).map(lambda steps: list(accumulate(steps, initial=T0)))
anywhere = st.lists(
    st.sampled_from(
        [T0, T0 + 1, T0 + 2 * HOUR, T0 + 2 * HOUR + 1, T0 + 4 * HOUR, T0 - 2 * HOUR, T0 + 10 * YEAR]
    ),
    max_size=10,
)
extremes = st.lists(
    st.sampled_from(
        [NEVER + 1, NEVER + HOUR, NEVER + 3 * HOUR, -1, 0, T0, GREATEST - 3 * HOUR, GREATEST - HOUR, GREATEST]
    )
    | st.integers(NEVER + 1, GREATEST),
    max_size=8,
)


def naive(times: list[int]) -> list[Said]:
    """Event time is the greatest time believed. A packet at most an hour ahead of it, or late, is believed. One further
    ahead waits: it is believed with a second one within an hour of it, or replaced by one further ahead still. If the
    very first packet is more than an hour ahead of the second, it waits likewise. Eight packets in a row, each more
    than ten seconds behind event time and within an hour of the latest of them, take it back."""
    believed: list[int] = []
    row: list[int] = []
    waiting: int | None = None
    said, unsure, backs = [], 0, 0
    for n, t in enumerate(times):
        wrong = False
        if n == 1 and t < believed[0] - HOUR:
            waiting, believed = believed[0], [t]
            unsure += 1
        elif believed and t < max(believed) - TEN_SECONDS:
            wrong, waiting = waiting is not None, None
            row = [*row, t] if row and abs(t - max(row)) <= HOUR else [t]
            if len(row) == 8:
                believed, row, backs, wrong = row, [], backs + 1, True
        elif not believed or t <= max(believed) + HOUR:
            believed.append(t)
            wrong, waiting, row = waiting is not None, None, []
        elif waiting is not None and abs(t - waiting) <= HOUR:
            believed += [waiting, t]
            waiting, row = None, []
        elif waiting is not None and t > waiting:
            believed.append(waiting)
            waiting, row = t, []
        else:
            wrong, waiting, row = waiting is not None, t, []
            unsure += 1
        said.append((max(believed), NEVER if waiting is None else waiting, unsure, backs, wrong))
    return said


def kernel(times: list[int]) -> list[Said]:
    clock = new_clock()
    said: list[Said] = []
    for n, t in enumerate(np.array(times, np.int64)):
        found = step(clock, t)
        wrong = bool(found)
        assert (found == 2) is (int(clock[BACKS]) > (said[-1][3] if said else 0))
        assert clock[SEEN] == n + 1
        said.append((int(clock[NOW]), int(clock[LEAPT]), int(clock[LEAPS]), int(clock[BACKS]), wrong))
    return said


def test_a_leap_is_more_than_an_hour_and_a_step_back_more_than_ten_seconds() -> None:
    assert LEAP == HOUR
    assert (BACK, CONFIRM) == (TEN_SECONDS, 8)


@given(times=stamps | anywhere)
def test_event_time_is_that_of_the_naive_twin(times: list[int]) -> None:
    assert kernel(times) == naive(times)


steps_back = st.lists(
    st.sampled_from(
        [1, 10**6, 10**9, 5 * 10**9, 2 * HOUR, -(10**9), -(10**10), -(10**10) - 1, -HOUR, -2 * HOUR]
    ),
    min_size=8,
    max_size=60,
).map(lambda steps: list(accumulate(steps, initial=T0)))


@given(times=steps_back, again=st.integers(0, 12), first=st.integers(-3 * HOUR, 3 * HOUR))
def test_event_time_that_goes_back_for_good_is_that_of_the_naive_twin(
    times: list[int], again: int, first: int
) -> None:
    times = times + [times[-1] + first + k * 10**9 for k in range(again)] + times[:4]
    assert kernel(times) == naive(times)


@pytest.mark.parametrize("back", [11 * 10**9, HOUR, 30 * YEAR])
@pytest.mark.parametrize(("packets", "believed"), [(1, False), (7, False), (8, True), (20, True)])
def test_several_packets_in_a_row_take_event_time_back(back: int, packets: int, believed: bool) -> None:
    times = [T0 + k for k in range(20)] + [T0 - back + k * 10**8 for k in range(packets)]
    assert (kernel(times)[-1][0] == times[-1]) is believed
    assert (kernel(times)[-1][3] == 1) is believed


def test_two_clocks_that_take_turns_do_not_take_event_time_back() -> None:
    times = [T0 + k * 10**6 - (HOUR if k % 8 else 0) for k in range(400)]
    assert kernel(times)[-1][3] == 0


@given(times=extremes)
def test_time_stamps_at_the_limits_of_int64_do_not_overflow(times: list[int]) -> None:
    assume(max(times, default=0) - min(times, default=0) < 1 << 63)  # otherwise see the next test
    assert kernel(times) == naive(times)


def test_leaps_from_one_limit_of_int64_to_the_other_do_not_overflow() -> None:
    times = [NEVER + 1, NEVER + 3 * HOUR, GREATEST]
    assert kernel(times) == naive(times)


@pytest.mark.parametrize("first", [NEVER + 1, T0, GREATEST - HOUR, GREATEST - 1])
@pytest.mark.parametrize("second", [NEVER + 1, T0, GREATEST - HOUR, GREATEST])
def test_two_time_stamps_at_the_limits_do_not_overflow(first: int, second: int) -> None:
    assert kernel([first, second]) == naive([first, second])


@given(times=stamps)
def test_a_block_of_time_stamps_moves_the_clock_as_one_at_a_time(times: list[int]) -> None:
    whole, single = new_clock(), new_clock()
    run(whole, np.array(times, np.int64))
    for t in np.array(times, np.int64):
        step(single, t)
    assert whole.tolist() == single.tolist()


def test_a_time_that_is_believed_confirms_a_leap_that_it_has_reached_and_never_goes_back() -> None:
    clock = new_clock()
    for ts in (T0, T0 + 10 * LEAP):
        step(clock, ts)
    believe(clock, T0 + 11 * LEAP)
    assert clock[:2].tolist() == [T0 + 11 * LEAP, NEVER]
    step(clock, T0 + 30 * LEAP)
    assert clock[NOW] == T0 + 11 * LEAP
    believe(clock, T0)
    assert clock[:2].tolist() == [T0 + 11 * LEAP, T0 + 30 * LEAP]
