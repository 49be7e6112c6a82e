"""Think times: log-normal, with a pace and a spread that belong to the user."""

from __future__ import annotations

import math
from statistics import median, stdev

import pytest

from probing.lab import catalog
from probing.lab.errors import LabError
from probing.lab.session import Sample, Thoughts
from probing.lab.settings import LONGEST_THINK_S, MOST_PACE, MOST_SPREAD, Corpus, Entry, Parameters


def thoughts(user: str, number: int = 0, seed: str = "1") -> Thoughts:
    return Thoughts(Sample("browse", Parameters(), seed, number), user)


def drawn(user: str, n: int = 4000, think_ms: float = 100.0) -> list[float]:
    """Logarithms of think times over the median asked for."""
    own = thoughts(user)
    return [math.log(own.next(think_ms) / (think_ms / 1e3)) for _ in range(n)]


def test_times_are_log_normal_round_the_users_pace() -> None:
    for user in ("client1", "client2", "client3"):
        logs, own = drawn(user), thoughts(user)
        assert median(logs) == pytest.approx(math.log(own.pace), abs=0.05)
        assert stdev(logs) == pytest.approx(own.spread, rel=0.05)


def test_users_differ_and_keep_their_pace_from_sample_to_sample() -> None:
    users = [thoughts(f"client{k}") for k in range(40)]
    logs = [math.log(user.pace) for user in users]
    assert all(abs(log) <= MOST_PACE for log in logs)
    assert stdev(logs) > MOST_PACE / 3
    assert len({user.spread for user in users}) == 40
    again, other = thoughts("client1", number=7), thoughts("client1", seed="2")
    assert (again.pace, again.spread) == (users[1].pace, users[1].spread)
    assert other.pace != again.pace
    assert again.next(100) != users[1].next(100)


def test_repetitions_think_alike() -> None:
    one, other = thoughts("client1"), thoughts("client1")
    assert [one.next(50) for _ in range(20)] == [other.next(50) for _ in range(20)]


def test_no_time_is_longer_than_servers_wait() -> None:
    parameters = Parameters(think_ms=200)
    own = thoughts("client9")
    assert max(drawn("client9", 20_000)) <= math.log(own.pace) + 3 * own.spread + 1e-9
    assert parameters.longest_think_s == pytest.approx(0.2 * math.exp(MOST_PACE + 3 * MOST_SPREAD))
    slow = thoughts("client9")
    assert (
        max(slow.next(10_000) for _ in range(2000))
        <= LONGEST_THINK_S
        == Parameters(think_ms=10_000).longest_think_s
    )


def test_without_think_ms_nobody_thinks() -> None:
    assert thoughts("client1").next(0) == 0.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"think_ms": -1}, "parameters.*think_ms"),
        ({"think_ms": 10_001}, "parameters.*think_ms"),
        ({"mirrored_pct": 101}, "parameters.*mirrored_pct"),
        ({"parts": 0}, "parameters.*parts"),
        ({"guesses": 3, "parts": 4}, "parts 4 must be at most guesses 3"),
    ],
)
def test_wrong_values_are_named(parameters: dict[str, float], says: str) -> None:
    entry = {"scenario": "sql", "activity": "visit", "parameters": parameters}
    with pytest.raises(LabError, match=says):
        catalog.expand(Corpus(name="c", about="", runs=(Entry.model_validate(entry),)))
