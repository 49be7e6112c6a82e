"""Cases of the policy ``stream`` that random traffic seldom meets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.connections.tracker import Tracker
from engine.features.tokens import TokenConfig
from engine.scoring.detector import slots_needed
from engine.scoring.token_pass import TokenPass
from tests.support.conversation import MS, T0, Conversation
from tests.support.token_runs import SMALL, kernel_run, plain, steps

LOG_PAYLOAD = 9


def numbers(c: Conversation, config: TokenConfig | None = None) -> list[tuple[int, int]]:
    """Number of each token's packet, and of the packet that let it through."""
    rows, _ = kernel_run(c.packets(), config or TokenConfig())
    return [(row.number, row.at) for row in rows]


def sizes(c: Conversation, config: TokenConfig | None = None) -> dict[int, int]:
    """Payload of each token by number of its packet, from its logarithm."""
    rows, _ = kernel_run(c.packets(), config or TokenConfig())
    return {row.number: round(2 ** (16 * dict(row.entries).get(LOG_PAYLOAD, -1))) for row in rows}


def bounded(bound: str) -> TokenConfig:
    """A configuration in which one bound is 1."""
    values: dict[str, Any] = {bound: 1}
    return replace(TokenConfig(), **values)


def test_a_segment_waits_for_the_one_before_it() -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 50).send("a", "PA", 1, 1, 100)
    assert numbers(c) == [(0, 0), (1, 1), (4, 4), (3, 4)]


def test_a_hole_that_the_peer_acknowledged_is_let_go_after_a_millisecond() -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 50).send("b", "A", 1, 101)
    c.send("b", "A", 1, 101, after=0.9, window=5).send("b", "A", 1, 101, after=0.2, window=6)
    assert numbers(c) == [(0, 0), (1, 1), (3, 6)]


def test_a_hole_acknowledged_long_ago_is_let_go_at_once() -> None:
    c = Conversation().open().send("b", "A", 1, 101).send("a", "PA", 101, 1, 50, after=1.5)
    assert numbers(c) == [(0, 0), (1, 1), (4, 4)]


def test_a_hole_is_let_go_after_patience() -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 50).send("b", "A", 1, 1, after=999.9)
    c.send("b", "A", 1, 1, after=0.2, window=7)
    assert numbers(c) == [(0, 0), (1, 1), (3, 5)]


def test_of_two_holes_the_one_acknowledged_later_has_its_own_millisecond() -> None:
    """Where a tap delivers acknowledgements before data, some hole is always acknowledged."""
    c = Conversation().open()
    c.send("a", "PA", 101, 1, 50).send("b", "A", 1, 101, after=0)  # [1, 101) is missing, and acknowledged
    c.send("a", "PA", 251, 1, 50, after=0.8).send("b", "A", 1, 251, after=0)  # [151, 251), too
    c.send("b", "A", 1, 251, after=0.3, window=5)  # the first has had its time
    c.send("a", "PA", 151, 1, 100, after=0.3)  # comes half a millisecond behind its acknowledgement
    assert numbers(c) == [(0, 0), (1, 1), (3, 7), (8, 8), (5, 8)]


def test_a_hole_behind_one_that_was_filled_has_its_own_millisecond() -> None:
    c = Conversation().open()
    c.send("a", "PA", 101, 1, 50).send("b", "A", 1, 101, after=0)
    c.send("a", "PA", 251, 1, 50, after=0.8).send("b", "A", 1, 251, after=0)
    c.send("a", "PA", 1, 1, 100, after=0.1).send("b", "A", 1, 251, after=0.3, window=5)
    c.send("a", "PA", 151, 1, 100, after=0.1)
    assert numbers(c) == [(0, 0), (1, 1), (7, 7), (3, 7), (9, 9), (5, 9)]


def let_through(c: Conversation, config: TokenConfig, tick: int | None = None) -> list[int]:
    """Numbers of tokens, with a heartbeat before the last packet."""
    p = c.packets()
    tracker, one = Tracker(SMALL), TokenPass(config, None, slots_needed(SMALL))
    out = []
    for part, t in steps(tracker, p, [p.ts.size - 1]):
        if t.number and tick is not None:
            out += plain(one.tick(tick), 0)
        out += plain(one.update(part, t), 0)
    return [row.number for row in out]


def test_holes_are_let_go_in_the_order_of_their_times_with_or_without_heartbeats() -> None:
    config = TokenConfig(patience=0.01)
    c = Conversation().open()
    c.send("a", "PA", 101, 1, 50)  # waits until patience is over
    c.send("b", "PA", 101, 1, 50, after=9.5).send(
        "a", "A", 1, 101, after=0.1
    )  # a millisecond, which ends later
    c.send("a", "A", 1, 101, after=50, window=5)
    expected = [0, 1, 3, 4]
    assert let_through(c, config) == expected
    assert let_through(c, config, T0 + 21 * MS + 10 * MS + MS // 2) == expected


@pytest.mark.parametrize("lost", [10**8, 1_500_000_000, 2**31 + 5000, 3 * 2**30])
def test_a_stream_goes_on_after_the_capture_lost_much_of_it(lost: int) -> None:
    """And the acknowledgements of before say nothing of what comes then: 19 waits for 21."""
    c, a = Conversation().open(), 1
    for k in range(8):
        c.send("a", "PA", a, 1, 100).send("b", "A", 1, a + 100)
        a += 100 + (lost if k == 3 else 0)
    c.send("a", "PA", a + 100, 1, 50, after=5).send("b", "A", 1, a, window=5).send("a", "PA", a, 1, 100)
    rows, counts = kernel_run(c.packets(), TokenConfig())
    let = [row.number for row in rows]
    assert let[:6] == [0, 1, 3, 5, 7, 9]
    assert let[-3:] == [17, 21, 19]
    assert counts["fallbacks"] == counts["lost_time"] == 0


def test_bytes_that_a_longer_syn_repeats_count_once() -> None:
    c = Conversation().send("a", "S", 0, payload=100).send("a", "S", 0, payload=300)
    assert sizes(c) == {0: 100, 1: 200}


def test_payload_behind_a_syn_sent_again_counts_whole() -> None:
    c = Conversation().send("a", "S", 0).send("a", "S", 0, payload=300)
    assert sizes(c) == {0: 0, 1: 300}


def test_a_packet_over_the_bound_keeps_its_bytes_though_it_precedes_those_that_waited() -> None:
    c = Conversation().open().send("a", "PA", 301, 1, 50).send("a", "PA", 101, 1, 60)
    config = TokenConfig(connection_packets=1)
    assert numbers(c, config) == [(0, 0), (1, 1), (3, 4), (4, 4)]
    assert sizes(c, config)[4] == 60


@pytest.mark.parametrize("bound", ["connection_packets", "connection_bytes", "packets", "bytes"])
def test_over_any_bound_a_connection_goes_on_as_bytes(bound: str) -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 1).send("a", "PA", 201, 1, 50)
    c.send("a", "PA", 401, 1, 50).send("a", "PA", 1, 1, 100).send("a", "PA", 1, 1, 100)
    rows, counts = kernel_run(c.packets(), bounded(bound))
    assert [(row.number, row.at) for row in rows] == [(0, 0), (1, 1), (3, 4), (4, 4), (5, 5), (6, 6)]
    assert counts["fallbacks"] == 1


def test_the_first_reset_of_a_side_lets_everything_go() -> None:
    c = Conversation().open().send("b", "PA", 101, 1, 50).send("a", "PA", 101, 1, 50)
    c.send("b", "R", 1, payload=20).send("b", "R", 1).send("a", "R", 1)
    assert numbers(c) == [(0, 0), (1, 1), (4, 5), (3, 5), (5, 5), (7, 7)]
    assert sizes(c)[5] == 0


def waiting_state() -> dict[str, NDArray[Any]]:
    """A state in which three packets wait, one of them behind an acknowledged hole."""
    c = (
        Conversation()
        .open()
        .send("a", "PA", 101, 1, 50)
        .send("a", "PA", 301, 1, 50)
        .send("b", "PA", 101, 101, 9)
    )
    one = TokenPass(TokenConfig(), None, slots_needed(SMALL))
    for part, t in steps(Tracker(SMALL), c.packets()):
        one.update(part, t)
    state = one.state()
    assert len(state["held"]) == 3
    assert len(state["due"]) == 1
    return state


def restored(state: dict[str, NDArray[Any]], config: TokenConfig | None = None) -> TokenPass:
    one = TokenPass(config or TokenConfig(), None, slots_needed(SMALL))
    one.restore(state)
    return one


def test_a_state_that_came_and_went_is_equal() -> None:
    state = waiting_state()
    again = restored(state).state()
    assert all(np.array_equal(state[name], again[name]) for name in state)


@pytest.mark.parametrize("bound", ["connection_packets", "connection_bytes", "packets", "bytes"])
def test_a_state_over_a_bound_is_refused(bound: str) -> None:
    with pytest.raises(ValueError, match="the bound is 1"):
        restored(waiting_state(), bounded(bound))


@pytest.mark.parametrize("name", ["slots", "flows", "sides", "held", "words", "due", "clock", "counts"])
@pytest.mark.parametrize("how", ["short", "long", "float", "flat", "column", "negative", "huge", "scalar"])
def test_a_hostile_state_is_refused_or_harmless(name: str, how: str) -> None:
    state = waiting_state()
    array = state[name]
    odd: dict[str, NDArray[Any]] = {
        "short": array[:-1], "long": np.concatenate([array, array]), "float": array.astype(np.float64) + 0.5,
        "flat": array.reshape(-1), "column": array[:, None], "scalar": np.array(0),
        "negative": np.full_like(array, -1 if array.dtype.kind == "i" else 0),
        "huge": np.full_like(array, np.iinfo(array.dtype).max),
    }  # fmt: skip
    try:
        one = restored(state | {name: odd[how]})
    except ValueError:
        return
    c = Conversation().open().send("a", "PA", 501, 1, 50).send("a", "PA", 1, 1, 100).close(101, 1)
    with np.errstate(over="ignore"):
        for part, t in steps(Tracker(SMALL), c.packets()):
            one.update(part, t)
        one.tick(T0 + 10**12)
        one.close(np.arange(slots_needed(SMALL), dtype=np.int32))
        assert one.counters()["waiting"] == 0


@pytest.mark.parametrize("policy", ["keep", "bytes"])
def test_a_state_of_another_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ValueError):
        restored(waiting_state(), TokenConfig(policy=policy))
    none = waiting_state()
    empty = {name: none[name][:0] for name in ("slots", "flows", "sides", "held")}
    with pytest.raises(ValueError, match="due"):
        restored(none | empty | {"words": np.zeros((0, 0), np.uint8)}, TokenConfig(policy=policy))


def test_a_state_with_a_side_twice_due_is_refused() -> None:
    state = waiting_state()
    with pytest.raises(ValueError, match="cannot be due"):
        restored(state | {"due": np.repeat(state["due"], 2)})


def test_a_forged_reset_outside_the_window_ends_nothing() -> None:
    c = Conversation().open().send("a", "PA", 101, 1, 50).send("b", "A", 1, 1)
    c.send("a", "R", 2**30).send("a", "PA", 1, 1, 100).send("a", "R", 151)
    assert numbers(c) == [(0, 0), (1, 1), (6, 6), (3, 6), (7, 7)]


def test_the_byte_of_a_probe_that_was_accepted_leaves_no_hole() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, window=0)
    c.send("a", "PA", 101, 1, 1, after=300).send("b", "A", 1, 102, window=500).send("a", "PA", 102, 1, 50)
    rows, counts = kernel_run(c.packets(), TokenConfig())
    assert [row.number for row in rows] == [0, 1, 3, 7]
    assert (counts["held"], counts["lost_acked"]) == (0, 0)


def test_the_byte_of_a_probe_that_was_refused_is_let_through_once_it_comes_again() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, window=0)
    c.send("a", "PA", 101, 1, 1, after=300).send("b", "A", 1, 101, window=0)
    c.send("b", "A", 1, 101, window=500).send("a", "PA", 101, 1, 50)
    assert sizes(c) == {0: 0, 1: 0, 3: 100, 8: 50} | {k: v for k, v in sizes(c).items() if k not in (3, 8)}
    assert numbers(c) == [(0, 0), (1, 1), (3, 3), (8, 8)]


@pytest.mark.parametrize("policy", ["keep", "no-acks", "bytes", "stream"])
def test_a_copy_of_a_datagram_has_no_token_where_copies_are_kept(policy: Any) -> None:
    p = (
        Conversation()
        .send("a", "A", 0, payload=30)
        .send("a", "A", 0, payload=30, after=0.01, ip_id=2)
        .packets()
    )
    p = p._replace(proto=np.full(2, 17, np.uint8), tcp_flags=np.zeros(2, np.uint8))
    p.ip_id[:] = 7
    rows, counts = kernel_run(p, TokenConfig(policy=policy), tracking=replace(SMALL, copies="keep"))
    assert rows == []
    assert counts["not_tcp"] == 2


def test_what_a_connection_lets_go_at_the_end_of_a_block_comes_after_its_packets() -> None:
    """Where only copies follow, a connection may end behind the last row of a block."""
    c = Conversation().open().send("a", "PA", 101, 1, 50)
    tracker, one = Tracker(SMALL), TokenPass(TokenConfig(), None, slots_needed(SMALL))
    ((p, t),) = steps(tracker, c.packets())
    ended = replace(t, closed=t.slot[:1].copy(), closed_at=np.array([p.ts.size]))
    assert plain(one.update(p, ended), 0)[-1].at == p.ts.size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: np.concatenate([s[n], s[n]]) for n in ("slots", "flows", "sides")},
            "a slot is there twice",
        ),
        (lambda s: {"slots": s["slots"] + 1}, "of a connection that is not there"),
        (lambda s: {"held": s["held"][::-1].copy(), "words": s["words"]}, "order of arrival"),
        (lambda s: {"clock": s["clock"] - 10**12}, "order of arrival"),
    ],
)
def test_a_state_whose_waiting_packets_cannot_be_is_refused(change: Any, message: str) -> None:
    state = waiting_state()
    with pytest.raises(ValueError, match=message):
        restored(state | change(state))
