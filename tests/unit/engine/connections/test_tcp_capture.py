"""What captures do to TCP: one direction only, ACKs before their data, and what cannot be measured."""

from __future__ import annotations

import pytest

from engine.connections.layout import Segment
from tests.support.conversation import Conversation
from tests.support.tracking import kinds, only, tracked

NEW = Segment.NEW


@pytest.mark.parametrize("size", [0, 1])
def test_keep_alives_of_a_side_that_never_sent_data_are_known(size: int) -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 10).send("b", "A", 1, 11)
    c.send("b", "A", 0, 11, size, after=5000).send("a", "A", 11, 1)
    c.send("b", "A", 0, 11, size, after=5000).send("a", "A", 11, 1)
    assert kinds(c)[-4:] == [Segment.KEEP_ALIVE, Segment.ACK] * 2
    assert only(c)["resp_keep_alive"] == 2


def test_a_side_picked_up_midstream_has_no_keep_alive_before_its_data() -> None:
    c = Conversation().send("a", "A", 1, 1).send("b", "A", 1, 1).send("a", "A", 0, 1, 1, after=5000)
    assert kinds(c)[-1] is Segment.BEFORE


def test_data_behind_its_ack_on_the_tap_is_new() -> None:
    c = Conversation().open().send("b", "A", 1, 201).send("a", "A", 1, 1, 100, after=0.2)
    c.send("a", "A", 101, 1, 100, after=0.2)
    segments, recovery, records = tracked(c)
    assert segments[-2:] == [NEW, NEW]
    assert not any(recovery)
    assert records[0]["orig_reordered"] == records[0]["orig_recovery_episodes"] == 0


def test_data_behind_several_acks_on_the_tap_is_new() -> None:
    c = Conversation().open().send("b", "A", 1, 101).send("b", "A", 1, 201, after=0.05)
    c.send("a", "A", 1, 1, 100, after=0.1).send("a", "A", 101, 1, 100, after=0.1)
    assert kinds(c)[-2:] == [NEW, NEW]
    assert only(c)["orig_recovery_episodes"] == 0


def test_data_long_behind_its_ack_is_late() -> None:
    c = Conversation().open().send("b", "A", 1, 101).send("a", "A", 1, 1, 100, after=1.2)
    assert kinds(c)[-1] is Segment.REORDERED


def test_a_hole_filled_within_a_millisecond_of_an_ack_of_other_data_is_reordering() -> None:
    c = Conversation().open().send("a", "A", 101, 1, 100).send("b", "A", 1, 1, after=0.2)
    assert kinds(c.send("a", "A", 1, 1, 100, after=0.2))[-1] is Segment.REORDERED


def test_where_one_direction_is_captured_an_episode_ends_with_new_data_once_no_hole_is_open() -> None:
    c = Conversation().send("a", "A", 1, 1, 100).send("a", "A", 201, 1, 100).send("a", "A", 101, 1, 100)
    c.send("a", "A", 301, 1, 100).send("a", "A", 401, 1, 100)
    _, recovery, records = tracked(c)
    assert recovery == [False, True, True, False, False]
    assert records[0]["orig_recovery_episodes"] == 1
    assert records[0]["recovery_seconds"] == pytest.approx(0.002)


def test_where_one_direction_is_captured_a_hole_that_nothing_fills_keeps_an_episode_for_a_second() -> None:
    c = Conversation().send("a", "A", 1, 1, 100)
    for k in range(2, 17):
        c.send("a", "A", 1 + 100 * k, 1, 100, after=100)
    _, recovery, records = tracked(c)
    assert recovery == [False] + [True] * 11 + [False] * 4
    assert records[0]["orig_recovery_episodes"] == 1


def test_with_both_directions_an_episode_waits_for_the_ack() -> None:
    c = (
        Conversation()
        .open()
        .send("a", "A", 1, 1, 100)
        .send("a", "A", 201, 1, 100)
        .send("a", "A", 101, 1, 100)
    )
    c.send("a", "A", 301, 1, 100)
    assert tracked(c)[1][-1]


def round_trip(c: Conversation) -> float | None:
    value: float | None = only(c)["round_trip"]
    return value


def test_a_round_trip_is_the_handshakes_and_nothing_else() -> None:
    assert round_trip(Conversation().open(10.0)) == 0.01
    c = Conversation().send("a", "S", 0).send("b", "SA", 0, 1, after=5)
    assert round_trip(c.send("a", "FA", 1, 1, after=9000)) is None
    c = Conversation().send("a", "S", 0).send("b", "SA", 0, 1, after=5)
    assert round_trip(c.send("a", "A", 501, 1, 100, after=9000)) is None
    c = Conversation().send("a", "S", 0).send("b", "SA", 0, 1, after=5)
    assert round_trip(c.send("a", "PA", 1, 1, 100, after=5)) == 0.01


def test_a_handshake_of_which_a_part_was_sent_again_measures_nothing() -> None:
    twice = Conversation().send("a", "S", 0).send("a", "S", 0, after=1000).send("b", "SA", 0, 1, after=5)
    assert round_trip(twice.send("a", "A", 1, 1, after=5)) is None
    twice = Conversation().send("a", "S", 0).send("b", "SA", 0, 1, after=5).send("b", "SA", 0, 1, after=1000)
    assert round_trip(twice.send("a", "A", 1, 1, after=5)) is None


def test_the_first_ack_repeats_none_whatever_the_number_of_the_syn() -> None:
    c = Conversation(isn_b=2**32 - 1).send("a", "S", 0).send("b", "SA", 0, 1).send("a", "A", 1, 1)
    assert only(c)["orig_duplicate_ack"] == 0
