"""Segments outside the window: forged, stray and wild numbers change nothing; what the capture missed is believed."""

from __future__ import annotations

import pytest

from engine.connections.layout import Segment
from engine.connections.window import AHEAD
from tests.support.conversation import Conversation
from tests.support.tracking import kinds, only, tracked

FAR = 1_000_000_000
OUT = Segment.OUT_OF_WINDOW


def talk(c: Conversation, a: int = 1, b: int = 1) -> Conversation:
    """A request of 100 bytes, its answer of 500, and an ACK; numbers go on from a and b."""
    c.send("a", "PA", a, b, 100).send("b", "PA", b, a + 100, 500)
    return c.send("a", "A", a + 100, b + 500)


def whole() -> Conversation:
    return talk(Conversation().open())


def finish(c: Conversation) -> Conversation:
    return talk(c, 101, 501).close(201, 1001)


HONEST = ("SF", "ShADdFf", 200, 1000, 0)


def told(c: Conversation) -> tuple[object, ...]:
    record = only(c)
    return tuple(record[k] for k in ("conn_state", "history", "orig_bytes", "resp_bytes", "missed_bytes"))


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("flags", ["R", "RA", "F", "FA", "S", "SA", "A", "PA", "FPA", "SF", "FR"])
@pytest.mark.parametrize("far", [AHEAD + 2000, FAR, 2**31 - 2000, 2**31 + 5000, 2**32 - FAR])
def test_a_segment_far_from_all_others_changes_nothing_but_a_count(side: str, flags: str, far: int) -> None:
    c = whole().send(side, flags, far, 501 if side == "a" else 101, 10 if "P" in flags else 0)
    assert kinds(c)[-1] is OUT
    assert told(finish(c)) == HONEST
    record = only(c)
    counts = (record["orig_out_of_window"], record["resp_out_of_window"])
    assert counts == ((1, 0) if side == "a" else (0, 1))
    assert record["orig_retransmitted"] == record["resp_retransmitted"] == 0


def test_without_forgeries_the_conversation_is_what_the_tests_hold_it_to_be() -> None:
    assert told(finish(whole())) == HONEST


@pytest.mark.parametrize("near", [1, 1000, AHEAD])
def test_a_reset_inside_the_window_is_believed(near: int) -> None:
    c = whole().send("b", "R", 501 + near)
    assert kinds(c)[-1] is Segment.UNTRUSTED
    assert only(c)["conn_state"] == "RSTR"


def test_many_wild_segments_of_one_side_are_not_believed_while_the_other_goes_on() -> None:
    c = whole()
    for k in range(40):
        c.send("b", "PA", FAR + 1000 * k, 101, 1000, after=40)
        c.send("a", "A", 101, 501, after=10)  # the answer of a receiver: what it still expects
    assert set(kinds(c)[-80::2]) == {OUT}
    assert told(finish(c)) == HONEST
    assert only(c)["resp_out_of_window"] == 40


def test_a_wild_acknowledgement_is_not_believed_and_its_data_is() -> None:
    c = whole().send("b", "PA", 501, FAR, 50).send("a", "A", 101, 551)
    assert kinds(c)[-2:] == [Segment.NEW, Segment.ACK]
    record = only(c)
    assert (record["orig_bytes"], record["resp_bytes"], record["missed_bytes"]) == (100, 550, 0)
    assert record["resp_out_of_window"] == 1


@pytest.mark.parametrize("first", ["data", "ack"])
def test_after_a_long_loss_of_the_capture_the_place_is_believed_once_both_sides_name_it(first: str) -> None:
    c = whole()
    for k in range(6):
        data = ("a", "A", 101 + FAR + 1448 * k, 501, 1448)
        ack = ("b", "A", 501, 101 + FAR + 1448 * (k + (first == "data")), 0)
        for side, flags, seq, number, size in (data, ack) if first == "data" else (ack, data):
            c.send(side, flags, seq, number, size)
    record = only(c)
    assert record["orig_bytes"] == 100 + FAR + 6 * 1448
    assert record["missed_bytes"] == FAR
    assert record["orig_out_of_window"] + record["resp_out_of_window"] == 0
    assert record["orig_retransmitted"] == 0
    assert record["history"] == "ShADdaG"


def test_where_acknowledgements_are_not_captured_a_run_goes_on_for_a_second() -> None:
    c = whole()
    for k in range(40):
        c.send("a", "A", 101 + FAR + 1000 * k, 501, 1000, after=50)
    found = kinds(c)[6:]
    assert found[:20] == [OUT] * 20
    assert set(found[21:]) == {Segment.NEW}
    record = only(c)
    assert record["orig_bytes"] == 100 + FAR + 40_000
    assert record["orig_out_of_window"] == 0


def test_where_one_direction_is_captured_the_second_segment_confirms_the_first() -> None:
    c = Conversation().send("a", "S", 0).send("a", "A", 1, 1, 100).send("a", "A", 101 + FAR, 1, 100)
    assert kinds(c)[-1] is OUT
    c.send("a", "A", 201 + FAR, 1, 100)
    assert kinds(c)[-1] is Segment.NEW
    assert only(c)["orig_bytes"] == 300 + FAR


@pytest.mark.parametrize("again", [1, 4])
def test_of_two_syn_acks_that_is_believed_which_the_client_acknowledges(again: int) -> None:
    c = Conversation().send("a", "S", 0).send("b", "SA", 0, 1)
    first = c.isn["b"]
    c.isn["b"] += 2_000_000_000
    c.send("b", "SA", 0, 1, after=1000).send("a", "A", 1, 1)
    second = c.isn["b"]
    c.isn["b"] = first
    for _ in range(again):
        c.send("b", "SA", 0, 1, after=50)
    c.isn["b"] = second
    finish(talk(c))
    record = only(c)
    assert (record["orig_bytes"], record["resp_bytes"], record["missed_bytes"]) == (200, 1000, 0)
    assert (record["conn_state"], record["history"]) == ("SF", "ShhADdFf")
    assert record["resp_out_of_window"] == again


@pytest.mark.parametrize("near", [5, 5000, 2_000_000_000])
def test_of_two_syn_acks_with_numbers_near_each_other_too(near: int) -> None:
    c = Conversation().send("a", "S", 0).send("b", "SA", 0, 1)
    c.isn["b"] += near
    finish(talk(c.send("b", "SA", 0, 1, after=1000).send("a", "A", 1, 1)))
    record = only(c)
    assert (record["resp_bytes"], record["missed_bytes"], record["conn_state"]) == (1000, 0, "SF")


def test_a_syn_on_a_connection_of_which_both_ends_are_there_begins_nothing_until_it_is_answered() -> None:
    c = whole().send("a", "S", FAR)
    assert told(finish(c)) == HONEST
    c = whole()
    start = c.now
    c.isn = {"a": 99_000, "b": 5}
    c.send("a", "S", 0, after=500).send("a", "S", 0, after=1000).send("b", "SA", 0, 1)
    finish(talk(c.send("a", "A", 1, 1)))
    assert c.rows[6]["ts"] == start + 500_000_000
    _, _, records = tracked(c)
    old, new = records
    assert (old["ending"], old["orig_pkts"], old["orig_out_of_window"]) == ("reused", 4, 0)
    assert (new["conn_state"], new["history"], new["orig_bytes"]) == ("SF", "ShADdFf", 200)
    assert (new["orig_pkts"], new["resp_pkts"]) == (9, 4)
    assert new["id.orig_h"] == "10.0.0.1"
    assert new["duration"] > 1.0
    assert not new["midstream"]


def test_a_syn_on_a_connection_that_its_server_has_forgotten_is_refused() -> None:
    c = whole()
    c.isn["a"] = 99_000
    c.send("a", "S", 0).send("b", "RA", -c.isn["b"], 1)
    _, _, (old, new) = tracked(c)
    assert old["conn_state"] == "S1"
    assert (new["conn_state"], new["history"], new["orig_pkts"]) == ("REJ", "Sr", 1)


@pytest.mark.parametrize("flags", ["SA", "RA"])
def test_a_first_answer_that_answers_nothing_is_none(flags: str) -> None:
    c = Conversation().send("a", "S", 0).send("b", flags, 0, FAR)
    assert kinds(c)[-1] is OUT
    record = only(c)
    assert (record["conn_state"], record["history"], record["orig_bytes"]) == ("S0", "S", 0)


def test_a_bare_ack_shows_data_that_was_missed_and_what_comes_later_fills_it_late() -> None:
    c = Conversation().open(10.0).send("a", "A", 1001, 1)
    assert kinds(c.send("a", "A", 1, 1, 1000, after=50))[-1] is Segment.RETRANSMITTED
    assert only(c)["orig_late_fills"] == 1
    c = Conversation().open(10.0).send("a", "A", 1001, 1)
    assert kinds(c.send("a", "A", 1, 1, 1000, after=2))[-1] is Segment.NEW  # the ACK overtook its data


def test_bytes_that_come_after_they_were_counted_as_missed_are_late_and_no_longer_missed() -> None:
    c = Conversation().open(10.0).send("b", "A", 1, 1001).send("b", "PA", 1, 1001, 10, after=20)
    assert only(c)["missed_bytes"] == 1000
    c.send("a", "A", 1, 11, 400, after=50)
    assert kinds(c)[-1] is Segment.RETRANSMITTED
    record = only(c)
    assert (record["missed_bytes"], record["orig_late_fills"], record["orig_repeated_bytes"]) == (600, 1, 0)


def test_a_hole_that_a_fin_closes_is_a_gap_in_the_history() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101)
    c.send("a", "FA", 601, 1, after=20).send("b", "FA", 1, 602, after=20).send("a", "A", 602, 2)
    record = only(c)
    assert (record["history"], record["missed_bytes"]) == ("ShADaFfG", 500)


@pytest.mark.parametrize("far", [AHEAD + 1, AHEAD + 500, AHEAD + 1400])
def test_a_segment_just_outside_is_not_confirmed_by_acknowledgements_of_other_data(far: int) -> None:
    c = whole().send("a", "PA", 101 + far, 501, 10)
    for k in range(3):
        c.send("a", "PA", 101 + 1400 * k, 501, 1400).send("b", "A", 501, 1501 + 1400 * k)
    record = only(c.close(4301, 501))
    assert (record["orig_bytes"], record["missed_bytes"], record["orig_out_of_window"]) == (4300, 0, 1)


@pytest.mark.parametrize(
    ("side", "flags", "ack"),
    [("a", f, 1) for f in ("S", "SA", "R", "RA", "F", "FA", "A", "PA", "P")]
    + [("b", f, FAR) for f in ("S", "SA", "R", "RA", "F", "FA", "A", "PA", "P")]
    + [("b", f, 1) for f in ("S", "R", "F", "FA", "PA", "P")],
)
def test_between_a_syn_and_its_answer_a_segment_from_afar_changes_nothing(
    side: str, flags: str, ack: int
) -> None:
    c = Conversation().send("a", "S", 0).send(side, flags, FAR, ack, 10 if "P" in flags else 0)
    finish(talk(c.send("b", "SA", 0, 1).send("a", "A", 1, 1)))
    assert told(c) == HONEST
    record = only(c)
    assert record["orig_out_of_window"] + record["resp_out_of_window"] == 1


def test_a_syn_changes_nothing_while_only_one_side_has_closed() -> None:
    c = whole().send("a", "FA", 101, 501).send("a", "S", FAR).send("b", "PA", 501, 102, 700)
    record = only(c.send("b", "FA", 1201, 102).send("a", "A", 102, 1202))
    assert (record["conn_state"], record["resp_bytes"], record["orig_out_of_window"]) == ("SF", 1200, 1)


def test_behind_a_reset_nothing_from_afar_is_in_the_history() -> None:
    c = whole().send("b", "R", 501).send("b", "FA", FAR, 101)
    record = only(c)
    assert (record["history"], record["resp_out_of_window"]) == ("ShADdr", 1)


@pytest.mark.parametrize("side", ["a", "b"])
def test_where_one_direction_is_captured_a_connection_begins_with_the_segment_behind_its_syn(
    side: str,
) -> None:
    c = whole()
    c.isn = {"a": 99_000, "b": 5}
    finish(talk(c.open()))
    c.rows = [row for row in c.rows if (row["sport"] == 40000) == (side == "a")]
    _, _, (old, new) = tracked(c)
    sizes = [record["orig_bytes" if side == "a" else "resp_bytes"] for record in (old, new)]
    assert sizes == ([100, 200] if side == "a" else [500, 1000])
    assert (old["ending"], new["conn_state"]) == ("reused", "SH" if side == "a" else "SHR")


@pytest.mark.parametrize("fins", [False, True])
def test_where_one_direction_is_captured_a_fin_from_afar_is_believed_only_at_the_end(fins: bool) -> None:
    c = Conversation().send("a", "S", 0).send("a", "A", 1, 1).send("a", "PA", 1, 1, 100)
    c.send("a", "FA", FAR, 1)
    if fins:
        c.send("a", "PA", 101, 1, 100).send("a", "FA", 201, 1)
    record = only(c)
    assert (record["orig_bytes"], record["conn_state"]) == (200 if fins else FAR - 1, "SH")
    assert record["orig_out_of_window"] == fins


@pytest.mark.parametrize("answered", [1, 101])
def test_fast_open_on_used_ports_is_a_connection_of_its_own(answered: int) -> None:
    c = whole()
    c.isn = {"a": 2_000_000_000, "b": 5}
    c.send("a", "S", 0, 0, 100, after=500).send("b", "SA", 0, answered)
    c.send("a", "A", 101, 1).send("b", "PA", 1, 101, 300).send("a", "A", 101, 301).close(101, 301)
    _, _, (old, new) = tracked(c)
    assert (old["ending"], new["conn_state"]) == ("reused", "SF")
    assert (new["orig_bytes"], new["resp_bytes"], new["missed_bytes"]) == (100, 300, 0)


@pytest.mark.parametrize("lost", [2**31 + 5000, 3 * 2**30, 2**32 - 10**8])
def test_after_a_loss_of_more_than_2_gib_both_sides_name_the_place(lost: int) -> None:
    c = whole()
    for k in range(4):
        c.send("a", "A", 101 + lost + 1448 * k, 501, 1448).send("b", "A", 501, 101 + lost + 1448 * (k + 1))
    record = only(c.close(101 + lost + 4 * 1448, 501))
    assert (record["orig_bytes"], record["missed_bytes"], record["conn_state"]) == (
        100 + lost + 4 * 1448,
        lost,
        "SF",
    )


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("far", [FAR, 2**32 - FAR])
def test_midstream_a_first_packet_from_afar_does_not_count_in_sizes(side: str, far: int) -> None:
    c = talk(Conversation().send(side, "A", far, 1))
    record = only(c.close(101, 501))
    assert (record["orig_bytes"], record["resp_bytes"], record["missed_bytes"]) == (100, 500, 0)


def test_acknowledged_holes_that_find_no_room_are_missed() -> None:
    c = whole()
    for k in range(40):
        c.send("b", "A", 501, 101 + 100_000 * (k + 1), after=0.001)
    record = only(c.send("a", "PA", 4_000_101, 501, 10, after=50).send("b", "A", 501, 4_000_111))
    assert (record["missed_bytes"], record["holes_overflow"]) == (4_000_000, True)
