"""What each TCP segment is taken for, and what its connection's record says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.layout import Segment
from engine.connections.tracker import Tracker
from tests.support.conversation import Conversation
from tests.support.tracking import kinds, only, tracked


def test_a_whole_conversation_is_sf_with_its_bytes_and_a_proper_close() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101).send("b", "PA", 1, 101, 500)
    c.send("a", "A", 101, 501).close(101, 501)
    record = only(c)
    assert (record["conn_state"], record["history"]) == ("SF", "ShADadFf")
    assert (record["orig_bytes"], record["resp_bytes"]) == (100, 500)
    assert (record["orig_pkts"], record["resp_pkts"]) == (6, 4)
    assert record["proper_close"]
    assert not record["midstream"]
    assert record["round_trip"] == pytest.approx(0.010)
    assert record["id.orig_h"] == "10.0.0.1"
    assert record["id.orig_p"] == 40000


@pytest.mark.parametrize(
    ("packets", "state", "history"),
    [
        ([("a", "S", 0, 0)], "S0", "S"),
        ([("a", "S", 0, 0), ("b", "RA", 0, 1)], "REJ", "Sr"),
        ([("a", "S", 0, 0), ("b", "SA", 0, 1), ("a", "R", 1, 0)], "RSTO", "ShR"),
        ([("a", "S", 0, 0), ("b", "SA", 0, 1), ("a", "A", 1, 1)], "S1", "ShA"),
        ([("a", "S", 0, 0), ("b", "SA", 0, 1), ("a", "A", 1, 1), ("a", "FA", 1, 1)], "S2", "ShAF"),
        ([("a", "S", 0, 0), ("b", "SA", 0, 1), ("a", "A", 1, 1), ("b", "FA", 1, 1)], "S3", "ShAf"),
        ([("a", "S", 0, 0), ("b", "SA", 0, 1), ("a", "A", 1, 1), ("b", "RA", 1, 1)], "RSTR", "ShAr"),
        ([("a", "S", 0, 0), ("a", "R", 1, 0)], "RSTOS0", "SR"),
        ([("a", "S", 0, 0), ("a", "F", 1, 0)], "SH", "SF"),
    ],
)
def test_states_have_zeeks_names(packets: list[tuple[str, str, int, int]], state: str, history: str) -> None:
    c = Conversation()
    for side, flags, seq, ack in packets:
        c.send(side, flags, seq, ack)
    record = only(c)
    assert (record["conn_state"], record["history"]) == (state, history)


def test_the_same_bytes_again_before_their_ack_are_a_duplicate_and_after_it_spurious() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("a", "PA", 1, 1, 100, after=200)
    c.send("b", "A", 1, 101).send("a", "PA", 1, 1, 100, after=200)
    assert kinds(c)[3:] == [Segment.NEW, Segment.DUPLICATE, Segment.ACK, Segment.SPURIOUS]
    record = only(c)
    assert (record["orig_retransmitted"], record["orig_spurious"], record["orig_repeated_bytes"]) == (
        2,
        1,
        200,
    )
    assert record["orig_bytes"] == 100


@pytest.mark.parametrize(("late", "kind"), [(4.0, Segment.REORDERED), (250.0, Segment.RETRANSMITTED)])
def test_a_hole_filled_within_a_round_trip_is_reordering_and_later_a_retransmission(
    late: float, kind: Segment
) -> None:
    c = Conversation().open(trip=10.0).send("a", "A", 101, 1, 100).send("a", "A", 1, 1, 100, after=late)
    assert kinds(c)[3:] == [Segment.NEW, kind]
    record = only(c)
    assert record["orig_reordered"] == (kind is Segment.REORDERED)
    assert record["orig_late_fills"] == (kind is Segment.RETRANSMITTED)
    assert record["orig_repeated_bytes"] == 0
    assert record["missed_bytes"] == 0


def test_a_segment_with_old_and_new_bytes_is_partial() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 51, 1, 100, after=300)
    assert kinds(c)[-1] is Segment.PARTIAL
    record = only(c)
    assert (record["orig_partial"], record["orig_repeated_bytes"], record["orig_bytes"]) == (1, 50, 150)


def test_a_super_frame_resent_in_parts_is_known_again() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 30_000)
    for k in range(3):
        c.send("a", "A", 1 + 1448 * k, 1, 1448, after=300)
    assert kinds(c)[4:] == [Segment.DUPLICATE] * 3


def test_a_keep_alive_is_no_retransmission_and_its_own_fin_is_no_keep_alive() -> None:
    idle = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101)
    idle.send("a", "A", 100, 1, after=60_000).send("a", "A", 100, 1, 1, after=60_000)
    assert kinds(idle)[-2:] == [Segment.KEEP_ALIVE, Segment.KEEP_ALIVE]
    # a pure ACK overtaken by the side's own FIN has the same numbers (SPEC: all 37 flags of one capture)
    overtaken = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101)
    overtaken.send("a", "FA", 101, 1).send("b", "A", 1, 102).send("a", "A", 101, 1, after=0.1)
    assert kinds(overtaken)[-1] is Segment.ACK


def test_a_zero_window_probe_takes_no_sequence_space_until_it_is_acknowledged() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, window=0)
    c.send("a", "A", 101, 1, 1, after=500).send("b", "A", 1, 101, window=0).send(
        "a", "A", 101, 1, 1, after=900
    )
    c.send("b", "A", 1, 102, window=500).send("a", "PA", 102, 1, 50)
    assert kinds(c)[5] is Segment.ZERO_WINDOW_PROBE
    assert kinds(c)[7] is Segment.ZERO_WINDOW_PROBE
    assert kinds(c)[-1] is Segment.NEW
    record = only(c)
    assert (record["orig_zero_window_probe"], record["resp_zero_window"]) == (2, 2)
    assert record["missed_bytes"] == 0


def test_the_same_packet_captured_twice_is_no_event_of_the_connection() -> None:
    c = (
        Conversation()
        .open()
        .send("a", "PA", 1, 1, 100, ip_id=77)
        .send("a", "PA", 1, 1, 100, ip_id=77, after=0.2)
    )
    c.send("a", "PA", 1, 1, 100, ip_id=78, after=200)
    assert kinds(c)[4:] == [Segment.CAPTURE_DUPLICATE, Segment.DUPLICATE]
    assert only(c)["orig_capture_duplicate"] == 1


def test_acknowledged_bytes_that_were_never_captured_are_missed_bytes() -> None:
    c = (
        Conversation()
        .open()
        .send("a", "A", 1, 1, 100)
        .send("a", "A", 201, 1, 100)
        .send("b", "A", 1, 301, after=20)
    )
    c.send("b", "A", 1, 301, 10, after=20).send("a", "A", 301, 11)
    record = only(c)
    assert record["orig_missed_bytes"] == 100
    assert record["orig_bytes"] == 300


def test_sequence_numbers_wrap_without_a_trace() -> None:
    c = Conversation(isn_a=2**32 - 50, isn_b=2**32 - 1).open()
    for k in range(4):
        c.send("a", "A", 1 + 100 * k, 1, 100).send("b", "A", 1, 101 + 100 * k)
    c.send("b", "PA", 1, 401, 10).send("a", "A", 401, 11).close(401, 11)
    assert Segment.NEW in kinds(c)
    assert not {Segment.DUPLICATE, Segment.SPURIOUS, Segment.REORDERED, Segment.RETRANSMITTED} & set(kinds(c))
    record = only(c)
    assert (record["orig_bytes"], record["resp_bytes"], record["conn_state"]) == (400, 10, "SF")


def test_more_than_four_gib_are_counted_whole() -> None:
    step = 1_500_000_000
    c = Conversation().open()
    for k in range(4):
        c.send("a", "A", (1 + step * k) % 2**32, 1, step).send("b", "A", 1, (1 + step * (k + 1)) % 2**32)
    assert only(c)["orig_bytes"] == 4 * step


def test_a_new_syn_on_known_ports_begins_another_connection_and_a_repeated_one_does_not() -> None:
    again = Conversation().send("a", "S", 0).send("a", "S", 0, after=1000)
    assert kinds(again) == [Segment.NEW, Segment.DUPLICATE]
    reused = Conversation().open().send("a", "PA", 1, 1, 10).close(11, 1)
    reused.isn = {"a": 99_000, "b": 5}
    reused.open().send("a", "PA", 1, 1, 20)
    _, _, records = tracked(reused)
    assert [(r["conn_state"], r["orig_bytes"], r["ending"]) for r in records] == [
        ("SF", 10, "reused"), ("S1", 20, "flushed"),
    ]  # fmt: skip


def test_a_connection_picked_up_midstream_is_marked_and_numbers_from_its_first_byte() -> None:
    c = (
        Conversation()
        .send("a", "PA", 5000, 900, 100)
        .send("b", "PA", 900, 5100, 50)
        .send("a", "A", 5100, 950)
    )
    c.send("a", "PA", 4000, 950, 100, after=0.5)
    assert kinds(c)[-1] is Segment.BEFORE
    record = only(c)
    assert record["midstream"]
    assert (record["orig_bytes"], record["resp_bytes"], record["conn_state"]) == (100, 50, "OTH")
    assert record["orig_retransmitted"] == 0


def test_a_recovery_episode_lasts_from_the_duplicate_to_the_ack_of_what_was_sent_before() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 101, 1, 100).send("b", "A", 1, 101)
    c.send("a", "A", 101, 1, 100, after=300).send("b", "A", 1, 201, after=50).send("a", "A", 201, 1, 100)
    _, recovery, records = tracked(c)
    assert recovery == [False] * 6 + [True, False, False]
    assert records[0]["orig_recovery_episodes"] == 1
    assert records[0]["recovery_seconds"] == pytest.approx(0.050)


def test_more_holes_than_are_kept_are_noted_and_stay_bounded() -> None:
    c = Conversation().open()
    for k in range(6):
        c.send("a", "A", 101 + 200 * k, 1, 100)
    _, _, records = tracked(c, TrackerConfig(capacity=4, holes=4))
    assert records[0]["holes_overflow"]
    assert not tracked(c)[2][0]["holes_overflow"]


def test_what_follows_a_reset_is_not_trusted() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 10).send("a", "R", 11).send("a", "PA", 90_000, 1, 10)
    assert kinds(c)[-2:] == [Segment.UNTRUSTED, Segment.UNTRUSTED]
    assert only(c)["orig_bytes"] == 10


def test_duplicate_acks_are_counted_only_while_data_is_outstanding() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 101, 1, 100)
    c.send("b", "A", 1, 101).send("b", "A", 1, 101).send("b", "A", 1, 101).send("b", "A", 1, 201).send(
        "b", "A", 1, 201
    )
    assert only(c)["resp_duplicate_ack"] == 2


def test_records_are_read_as_numbers_of_the_right_kind() -> None:
    record = only(Conversation().open())
    assert isinstance(record["orig_bytes"], int)
    assert np.isclose(record["duration"], 0.010)


def test_a_probes_byte_that_was_taken_without_an_ack_leaves_no_hole() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, window=0)
    c.send("a", "A", 101, 1, 1, after=500).send("a", "PA", 102, 1, 50)
    assert kinds(c)[-2:] == [Segment.ZERO_WINDOW_PROBE, Segment.NEW]
    tracker = Tracker(TrackerConfig(capacity=2))
    (step,) = tracker.track(c.packets())
    _, sides = tracker.rows(step.slot[:1])
    assert sides["holes"][0, 0] == 0
    assert sides["high"][0, 0] == 152


@pytest.mark.parametrize(("times", "letters"), [(1, 1), (9, 1), (10, 2), (11, 2), (100, 3)])
def test_repetitions_are_written_at_the_first_tenth_and_hundredth(times: int, letters: int) -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100)
    for _ in range(times):
        c.send("a", "PA", 1, 1, 100, after=300)
    assert only(c)["history"].count("T") == letters


# ------------------------------------------------------------------------------------------- recovery, losses, limits


def sides_of(c: Conversation) -> Any:
    """(2,) SIDE of the one connection while it lives, a's first."""
    tracker = Tracker(TrackerConfig(capacity=4))
    (step,) = tracker.track(c.packets())
    _, sides = tracker.rows(step.slot[:1])
    return sides[0]


def test_an_episode_that_still_runs_at_the_end_lasts_until_the_last_packet() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 1, 1, 100, after=300)
    c.send("a", "A", 101, 1, 100, after=40).send("a", "A", 201, 1, 100, after=60)
    _, recovery, records = tracked(c)
    assert recovery == [False] * 4 + [True] * 3
    assert records[0]["orig_recovery_episodes"] == 1
    assert records[0]["recovery_seconds"] == pytest.approx(0.100)


def test_a_spurious_segments_episode_ends_at_once() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101)
    c.send("a", "PA", 1, 1, 100, after=200).send("a", "A", 101, 1, 100, after=50).send(
        "b", "A", 1, 201, after=50
    )
    segments, recovery, records = tracked(c)
    assert segments[5] is Segment.SPURIOUS
    assert recovery == [False] * 8
    assert records[0]["orig_recovery_episodes"] == 1
    assert records[0]["recovery_seconds"] == 0


def test_one_capture_loss_is_one_episode() -> None:
    c = (
        Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 201, 1, 100)
    )  # 101..200 is not captured
    c.send("b", "A", 1, 301, after=0.3).send("a", "A", 301, 1, 100, after=0.2).send(
        "b", "A", 1, 401, after=0.2
    )
    for k in range(4):
        c.send("a", "A", 401 + 100 * k, 1, 100, after=5).send("b", "A", 1, 501 + 100 * k, after=5)
    _, recovery, records = tracked(c)
    assert [i for i, during in enumerate(recovery) if during] == [4]
    assert records[0]["orig_recovery_episodes"] == 1
    assert records[0]["recovery_seconds"] == pytest.approx(0.0003)
    assert records[0]["orig_missed_bytes"] == 100


def test_a_hole_that_stays_open_is_one_episode_however_much_is_sent_behind_it() -> None:
    c = Conversation().open().send("a", "A", 101, 1, 100)
    for k in range(5):
        c.send("a", "A", 201 + 100 * k, 1, 100)
    c.send("a", "A", 1, 1, 100, after=300).send("b", "A", 1, 701, after=20)
    assert only(c)["orig_recovery_episodes"] == 1
    assert only(c)["recovery_seconds"] == pytest.approx(0.325)


def test_packets_older_than_the_connections_last_are_noted() -> None:
    assert not only(Conversation().open().send("a", "PA", 1, 1, 100))["late_packets"]
    same = Conversation().open().send("a", "PA", 1, 1, 100, after=0)
    assert not only(same)["late_packets"]
    late = Conversation().open().send("a", "PA", 1, 1, 100, after=-2)
    record = only(late)
    assert record["late_packets"]
    assert record["duration"] == pytest.approx(0.010)


@pytest.mark.parametrize(
    ("resets", "history"), [(23, "S" + 23 * "R"), (24, "S" + 23 * "R" + "+"), (60, "S" + 23 * "R" + "+")]
)
def test_a_history_that_is_full_ends_in_a_plus(resets: int, history: str) -> None:
    c = Conversation().send("a", "S", 0)
    for k in range(resets):
        c.send("a", "R", 1 + k)
    assert only(c)["history"] == history


@pytest.mark.parametrize("size", [1_000_000_000, 2**31 - 2, 2**31, 3_000_000_000, 2**32 - 3])
def test_the_size_of_a_connection_of_which_only_syn_and_fin_were_captured_is_told_by_its_fin_once_acknowledged(
    size: int,
) -> None:
    c = Conversation().open().send("a", "FA", 1 + size, 1, after=60_000)
    alone = only(c)
    assert (alone["orig_bytes"], alone["conn_state"], alone["orig_out_of_window"]) == (0, "S1", 1)
    record = only(c.send("b", "FA", 1, 2 + size).send("a", "A", 2 + size, 2))
    assert (record["orig_bytes"], record["conn_state"], record["history"]) == (size, "SF", "ShAFfG")
    assert record["orig_out_of_window"] == 0


@pytest.mark.parametrize(
    ("jump", "believed"), [(1000, True), (2**20, True), (2**20 + 1, False), (2_000_000, False)]
)
def test_an_acknowledgement_of_number_zero_far_ahead_is_none(jump: int, believed: bool) -> None:
    # a stack that sends the flag without a number writes 0; so does one whose numbers wrap just there
    c = Conversation(isn_b=2**32 - 1 - jump).open().send("b", "PA", 1, 1, 0).send("a", "A", 1, jump + 1)
    assert c.rows[-1]["ack"] == 0
    sides = sides_of(c)
    assert sides["acked"][1] == (jump + 1 if believed else 1)
    assert only(c)["resp_bytes"] == (jump if believed else 0)


@pytest.mark.parametrize(("jump", "believed"), [(1000, True), (2_000_000, False)])
def test_so_it_is_for_a_side_that_is_not_in_the_capture(jump: int, believed: bool) -> None:
    c = Conversation(isn_b=2**32 - 1 - jump).send("a", "PA", 1, 1, 10).send("a", "PA", 11, 50, 10)
    c.send("a", "A", 21, jump + 1)
    assert c.rows[-1]["ack"] == 0
    assert sides_of(c)["acked"][1] == (jump + 1 if believed else 50)


@pytest.mark.parametrize(("late", "kind"), [(65.0, Segment.REORDERED), (75.0, Segment.RETRANSMITTED)])
def test_without_a_handshake_the_round_trips_of_acknowledgements_tell_reordering(
    late: float, kind: Segment
) -> None:
    c = Conversation().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, after=90).send("b", "PA", 1, 101, 50)
    c.send("a", "PA", 101, 51, 100, after=30).send(
        "b", "A", 51, 201, after=40
    )  # 40 ms beyond the tap, 30 before it
    c.send("a", "A", 301, 51, 100).send("a", "A", 201, 51, 100, after=late)
    assert kinds(c)[-2:] == [Segment.NEW, kind]


@pytest.mark.parametrize(("late", "kind"), [(2.5, Segment.REORDERED), (3.5, Segment.RETRANSMITTED)])
def test_without_any_round_trip_three_milliseconds_tell_reordering(late: float, kind: Segment) -> None:
    c = Conversation().send("a", "PA", 1, 1, 100).send("b", "A", 1, 101, after=90)  # of one side alone
    c.send("a", "A", 201, 1, 100).send("a", "A", 101, 1, 100, after=late)
    assert kinds(c)[-2:] == [Segment.NEW, kind]
