"""The connection table: what ends when, and what happens when it is full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.record import community_ids, connection_table, json_lines
from engine.connections.tracker import Tracker
from engine.errors import ConfigError
from engine.types import (
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    Kind,
    Packets,
    concatenate,
    join_rows,
    take,
)
from tests.support.conversation import MS, T0, A, B, Conversation
from tests.support.datagrams import udp

SECOND = 1000 * MS


def ended(tracker: Tracker, p: Packets, *, flush: bool = True) -> list[dict[str, Any]]:
    """Records in the order in which connections ended."""
    parts = [tracker.rows(step.closed) for step in tracker.track(p)]
    if flush:
        parts += [tracker.rows(slots) for slots in tracker.flush()]
    rows, sides = (join_rows(list(part)) for part in zip(*parts))
    records: list[dict[str, Any]] = connection_table(rows, sides).drop_columns(["ts"]).to_pylist()
    return records


def test_an_idle_connection_ends_by_the_time_of_other_packets() -> None:
    tracker = Tracker(TrackerConfig(capacity=8, udp_timeout=60))
    records = ended(tracker, udp([T0, T0 + 59 * SECOND, T0 + 61 * SECOND], [1, 2, 3]), flush=False)
    assert [(r["id.orig_p"], r["ending"]) for r in records] == [(1, "timeout")]


def test_a_packet_after_the_timeout_begins_a_new_connection() -> None:
    records = ended(Tracker(TrackerConfig(capacity=8, udp_timeout=60)), udp([T0, T0 + 61 * SECOND], [1, 1]))
    assert [(r["orig_pkts"], r["ending"]) for r in records] == [(1, "timeout"), (1, "flushed")]


def test_event_time_alone_ends_connections_and_each_is_handed_over_once() -> None:
    tracker = Tracker(TrackerConfig(capacity=64, udp_timeout=60), spare=8)
    for _ in tracker.track(udp([T0 + k for k in range(20)], list(range(20)))):
        pass
    tracker.believe(T0 + 120 * SECOND)
    slots = [slot for batch in tracker.expire() for slot in batch.tolist()]
    assert len(slots) == len(set(slots)) == 20
    assert tracker.counters["live"] == 0
    tracker.believe(T0 + 240 * SECOND)
    assert not list(tracker.expire())


def test_a_syn_without_an_answer_ends_after_the_attempt_timeout_though_it_is_repeated() -> None:
    c = Conversation().send("a", "S", 0).send("a", "S", 0, after=3000).send("a", "S", 0, after=3000)
    records = ended(Tracker(TrackerConfig(capacity=8, attempt_timeout=5)), c.packets())
    assert [(r["orig_pkts"], r["ending"]) for r in records] == [(2, "timeout"), (1, "flushed")]


def test_a_closed_connection_ends_after_the_closing_delay() -> None:
    c = Conversation().open().close(1, 1)
    later = udp([c.now + 6 * SECOND], [1])
    tracker = Tracker(TrackerConfig(capacity=8, closing_delay=5))
    assert not ended(tracker, c.packets(), flush=False)
    assert [r["ending"] for r in ended(tracker, later, flush=False)] == ["closed"]


def test_a_full_table_gives_up_the_least_recently_seen_and_counts_it() -> None:
    tracker = Tracker(TrackerConfig(capacity=3))
    records = ended(tracker, udp([T0, T0 + 1, T0 + 2, T0 + 3, T0 + 4], [1, 2, 3, 1, 4]), flush=False)
    assert [(r["id.orig_p"], r["ending"]) for r in records] == [(2, "evicted")]
    assert tracker.counters["evicted"] == 1
    assert tracker.counters["live"] == 3


def test_ten_thousand_flows_through_a_small_table_leave_each_a_record() -> None:
    tracker = Tracker(TrackerConfig(capacity=100), spare=64)
    n = 10_000
    records = ended(tracker, udp([T0 + k for k in range(n)], [30_000 + k for k in range(n)]))
    assert sorted(r["id.orig_p"] for r in records) == list(range(30_000, 30_000 + n))
    assert tracker.counters == {
        "live": 0, "opened": n, "evicted": n - 100, "expired": 0, "late_packets": 0, "copies": 0,
        "steps_back": 0,
    }  # fmt: skip


def test_both_directions_are_one_connection_whoever_begins() -> None:
    p = udp([T0, T0 + 1, T0 + 2], [1, 1, 1])
    p.src_lo[1], p.dst_lo[1], p.sport[1], p.dport[1] = B, A, 9, 1
    (record,) = ended(Tracker(TrackerConfig(capacity=8)), p)
    assert (record["orig_pkts"], record["resp_pkts"], record["conn_state"], record["history"]) == (
        2,
        1,
        "SF",
        "Dd",
    )
    assert (record["orig_bytes"], record["resp_ip_bytes"]) == (116, 86)


def test_fragments_without_ports_join_the_datagram_they_belong_to() -> None:
    p = udp([T0, T0 + 1, T0 + 2], [1, 0, 0])
    p.ip_id[:] = [7, 7, 8]
    p.kind[0] |= KIND_FIRST_FRAGMENT
    p.kind[1:] = Kind.IPV4 | KIND_FRAGMENT
    p.dport[1:] = 0
    records = ended(Tracker(TrackerConfig(capacity=8)), p)
    assert [(r["id.resp_p"], r["orig_pkts"]) for r in records] == [(9, 2), (0, 1)]


def test_an_echo_and_its_reply_are_one_connection_with_zeeks_ports() -> None:
    p = udp([T0, T0 + 1], [8, 0])
    p.proto[:], p.dport[:] = 1, 0
    p.src_lo[1], p.dst_lo[1] = B, A
    (record,) = ended(Tracker(TrackerConfig(capacity=8)), p)
    assert (record["id.orig_p"], record["id.resp_p"], record["resp_pkts"], record["conn_state"]) == (
        8,
        0,
        1,
        "OTH",
    )


def test_frames_that_are_not_ip_have_no_connection() -> None:
    p = udp([T0, T0], [1, 1])
    p.kind[:] = [Kind.ARP, Kind.UNREAD]
    tracker = Tracker(TrackerConfig(capacity=8))
    (step,) = tracker.track(p)
    assert step.slot.tolist() == [-1, -1]


def test_the_record_carries_the_probe_of_its_packets() -> None:
    p = udp([T0, T0 + 1], [1, 1])
    p.probe[:] = [0, 7]
    assert ended(Tracker(TrackerConfig(capacity=8)), p)[0]["probe"] == 7


def test_a_loss_marks_the_connections_that_lived_through_it_and_no_other() -> None:
    tracker = Tracker(TrackerConfig(capacity=8))
    p = udp([T0, T0 + SECOND, T0 + 2 * SECOND], [1, 1, 2])
    for _ in tracker.track(take(p, slice(0, 2))):
        pass
    tracker.mark_loss()
    records = ended(tracker, take(p, slice(2, 3)))
    assert {r["id.orig_p"]: r["capture_loss"] for r in records} == {1: True, 2: False}


@pytest.mark.parametrize(
    ("src", "dst", "proto", "sport", "dport", "expected"),
    [
        # Examples of the specification (github.com/corelight/community-id-spec, baseline of its pcaps)
        ("128.232.110.120", "66.35.250.204", 6, 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("192.168.1.52", "8.8.8.8", 17, 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("192.168.0.89", "192.168.0.1", 1, 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
    ],
)
def test_community_ids_are_those_of_the_specification(
    src: str, dst: str, proto: int, sport: int, dport: int, expected: str
) -> None:
    p = udp([T0], [sport])
    p.proto[:], p.dport[:] = proto, dport
    for name, text in (("src_lo", src), ("dst_lo", dst)):
        value = int.from_bytes(bytes(int(x) for x in text.split(".")), "big")
        getattr(p, name)[:] = 0xFFFF << 32 | value
    tracker = Tracker(TrackerConfig(capacity=4))
    (step,) = tracker.track(p)
    rows, _ = tracker.rows(step.slot)
    assert community_ids(rows) == [expected]


def test_json_lines_keep_nanoseconds() -> None:
    tracker = Tracker(TrackerConfig(capacity=4))
    (step,) = tracker.track(udp([T0 + 123_456_789], [1]))
    (line,) = json_lines(connection_table(*tracker.rows(step.slot)))
    assert line.startswith('{"ts": 1700000000.123456789, "uid": "C')


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity": 0},
        {"holes": 0},
        {"udp_timeout": 0.0},
        {"tcp_timeout": float("nan")},
        {"tcp_server_ports": (70000,)},
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrackerConfig(**wrong)


def test_uids_depend_on_nothing_but_key_and_start() -> None:
    p = udp([T0, T0 + 1], [1, 2])
    one, other = Tracker(TrackerConfig(capacity=8)), Tracker(TrackerConfig(capacity=500))
    ids = [{r["id.orig_p"]: r["uid"] for r in ended(t, p)} for t in (one, other)]
    assert ids[0] == ids[1]
    assert len(set(ids[0].values())) == 2
    assert all(len(uid) == 17 and uid.startswith("C") for uid in ids[0].values())


def test_the_least_recently_seen_goes_first_whatever_list_it_waits_in() -> None:
    p = udp([T0, T0 + 1, T0 + 2], [1, 2, 3])
    p.proto[1], p.tcp_flags[1] = 6, 16  # udp, tcp, udp: the second waits in another list
    first = ended(Tracker(TrackerConfig(capacity=2)), p, flush=False)
    assert [r["id.orig_p"] for r in first] == [1]
    q = udp([T0, T0 + 1, T0 + 2], [1, 2, 3])
    q.proto[0], q.tcp_flags[0] = 6, 16
    second = ended(Tracker(TrackerConfig(capacity=2)), q, flush=False)
    assert [(r["id.orig_p"], r["proto"]) for r in second] == [(1, "tcp")]


HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR
ODD = 9999  # port of a packet whose time stamp is wrong


def traffic() -> Packets:
    """Four minutes in which connections end in every way, the first three packets from flows of their own."""
    c = Conversation().open().send("a", "PA", 1, 1, 100).close(101, 1).send("a", "S", 0, port=40001)
    first = udp([T0 - 3, T0 - 2, T0 - 1, T0 + 30 * SECOND, T0 + 31 * SECOND], [5001, 5002, 5003, 5001, 5002])
    flows = udp(
        [T0 + k * 9 * SECOND for k in range(30)], [k % 7 if k % 7 != 3 else 100 * k for k in range(30)]
    )
    p = concatenate([first, c.packets(), flows])
    return take(p, np.argsort(p.ts, kind="stable"))


def with_one_odd_time(at: int, ts: int) -> list[dict[str, Any]]:
    """Records of that traffic, an odd packet put in before packet ``at``, whose own record is left out."""
    p = traffic()
    p = concatenate([take(p, slice(0, at)), udp([ts], [ODD]), take(p, slice(at, None))])
    records = ended(Tracker(TrackerConfig(capacity=64), spare=64), p)
    assert len([r for r in records if r["id.orig_p"] == ODD]) == 1
    return sorted((r for r in records if r["id.orig_p"] != ODD), key=lambda r: str(r["uid"]))


ODD_TIMES = [
    pytest.param(T0 + 10 * YEAR, id="in ten years"),
    pytest.param(T0 + 2 * HOUR, id="in two hours"),
    pytest.param((1 << 63) - 1, id="at the greatest time"),
    pytest.param(T0 - 10 * YEAR, id="ten years ago"),
    pytest.param(T0 - 2 * HOUR, id="two hours ago"),
    pytest.param(-(1 << 63) + 1, id="at the least time"),
]


@pytest.mark.parametrize("ts", ODD_TIMES)
@pytest.mark.parametrize("at", [0, 2, 6, 20, -2, -1], ids=lambda k: f"before packet {k}")
def test_one_odd_time_stamp_changes_no_other_connection(at: int, ts: int) -> None:
    expected = sorted(
        ended(Tracker(TrackerConfig(capacity=64), spare=64), traffic()), key=lambda r: str(r["uid"])
    )
    assert {r["ending"] for r in expected} == {"timeout", "closed", "flushed"}
    n = traffic().ts.size
    assert with_one_odd_time(at % (n + 1), ts) == expected


def test_a_first_packet_from_the_future_delays_no_end() -> None:
    times = [T0 + 10 * YEAR, T0, T0 + SECOND, T0 + 62 * SECOND]
    tracker = Tracker(TrackerConfig(capacity=8, udp_timeout=60))
    records = ended(tracker, udp(times, [ODD, 1, 2, 3]), flush=False)
    assert [r["id.orig_p"] for r in records] == [ODD, 1, 2]


@pytest.mark.parametrize("ts", ODD_TIMES[:3])
def test_a_second_packet_from_the_future_changes_no_other_connection(ts: int) -> None:
    assert with_one_odd_time(1, ts) == with_one_odd_time(20, ts)


@pytest.mark.parametrize("ts", ODD_TIMES[3:])
def test_a_second_packet_from_the_past_changes_no_other_connection(ts: int) -> None:
    assert with_one_odd_time(1, ts) == with_one_odd_time(20, ts)


@pytest.mark.parametrize("pause", [2 * HOUR, 30 * 24 * HOUR, 3 * YEAR], ids=["hours", "a month", "years"])
def test_a_pause_between_packets_ends_what_waited_and_nothing_of_what_follows(pause: int) -> None:
    before = udp([T0 + k * SECOND for k in range(5)], [1, 2, 3, 1, 2])
    after = udp([T0 + pause + k * SECOND for k in range(6)], [7, 8, 1, 2, 7, 8])
    tracker = Tracker(TrackerConfig(capacity=8))
    assert ended(tracker, before, flush=False) == []
    records = ended(tracker, take(after, slice(0, 2)), flush=False)
    assert [(r["id.orig_p"], r["orig_pkts"], r["ending"]) for r in records] == [
        (3, 1, "timeout"), (1, 2, "timeout"), (2, 2, "timeout"),
    ]  # fmt: skip
    records = ended(tracker, take(after, slice(2, None)))
    assert sorted((r["id.orig_p"], r["orig_pkts"], r["ending"]) for r in records) == [
        (1, 1, "flushed"), (2, 1, "flushed"), (7, 2, "flushed"), (8, 2, "flushed"),
    ]  # fmt: skip
    assert tracker.counters["late_packets"] == 0


def test_nothing_ends_before_a_pause_is_confirmed_and_all_of_it_when_it_is() -> None:
    tracker = Tracker(TrackerConfig(capacity=8))
    p = udp([T0, T0 + SECOND, T0 + 5 * HOUR, T0 + 5 * HOUR + SECOND], [1, 2, 3, 4])
    assert ended(tracker, take(p, slice(0, 3)), flush=False) == []
    assert [r["id.orig_p"] for r in ended(tracker, take(p, slice(3, 4)), flush=False)] == [1, 2]


def test_the_first_packet_behind_a_pause_begins_a_connection_of_its_own() -> None:
    p = udp([T0, T0 + SECOND, T0 + 2 * HOUR, T0 + 2 * HOUR + SECOND], [1, 2, 1, 2])
    records = ended(Tracker(TrackerConfig(capacity=8)), p)
    assert [(r["id.orig_p"], r["orig_pkts"], r["ending"]) for r in records] == [
        (1, 1, "timeout"), (2, 1, "timeout"), (1, 1, "flushed"), (2, 1, "flushed"),
    ]  # fmt: skip


def test_the_first_packet_behind_a_pause_goes_on_with_what_has_not_lapsed() -> None:
    tracker = Tracker(TrackerConfig(capacity=8, udp_timeout=3 * 3600))
    assert [
        r["orig_pkts"] for r in ended(tracker, udp([T0, T0 + 2 * HOUR, T0 + 2 * HOUR + 1], [1, 1, 1]))
    ] == [3]


def test_the_first_packet_behind_a_pause_ends_what_was_closed_as_closed() -> None:
    c = Conversation().open().close(1, 1).send("a", "A", 9, 9, after=2 * 3600 * 1000)
    assert [r["ending"] for r in ended(Tracker(TrackerConfig(capacity=8)), c.packets())] == [
        "closed",
        "flushed",
    ]


@pytest.mark.parametrize("ts", [T0 + 10 * YEAR, (1 << 63) - 1])
def test_one_odd_time_stamp_right_before_a_pause_keeps_nothing_from_ending(ts: int) -> None:
    times = [T0, T0 + SECOND, ts, T0 + 2 * HOUR, T0 + 2 * HOUR + SECOND, T0 + 2 * HOUR + 90 * SECOND]
    tracker = Tracker(TrackerConfig(capacity=8, udp_timeout=60))
    records = ended(tracker, udp(times, [1, 2, ODD, 3, 4, 5]), flush=False)
    assert [r["id.orig_p"] for r in records if r["id.orig_p"] != ODD] == [1, 2, 3, 4]


LEAST, GREATEST = -(1 << 63) + 1, (1 << 63) - 1


@pytest.mark.parametrize("begin", [LEAST, GREATEST - 200 * SECOND], ids=["least", "greatest"])
def test_connections_end_in_time_also_at_the_limits_of_int64(begin: int) -> None:
    p = udp([begin, begin + 59 * SECOND, begin + 61 * SECOND, begin + 150 * SECOND], [1, 2, 3, 2])
    records = ended(Tracker(TrackerConfig(capacity=8, udp_timeout=60)), p)
    assert [(r["id.orig_p"], r["ending"]) for r in records] == [
        (1, "timeout"), (2, "timeout"), (3, "timeout"), (2, "flushed"),
    ]  # fmt: skip


def test_a_timeout_beyond_the_greatest_time_is_never_reached() -> None:
    p = udp([GREATEST - 20 * SECOND + k * SECOND for k in range(10)], [1, 2] * 5)
    records = ended(Tracker(TrackerConfig(capacity=8, udp_timeout=60)), p)
    assert [(r["id.orig_p"], r["orig_pkts"], r["ending"]) for r in records] == [
        (1, 5, "flushed"),
        (2, 5, "flushed"),
    ]


def test_a_fragment_behind_a_pause_is_none_of_the_datagram_before() -> None:
    p = udp([T0, T0 + 2 * HOUR], [1, 0])
    p.kind[:] = [Kind.IPV4 | KIND_FIRST_FRAGMENT, Kind.IPV4 | KIND_FRAGMENT]
    p.dport[1], p.ip_id[:] = 0, 7
    records = ended(Tracker(TrackerConfig(capacity=8)), p)
    assert [(r["id.orig_p"], r["orig_pkts"]) for r in records] == [(1, 1), (0, 1)]


@pytest.mark.parametrize("apart", [1, 50, 1000])
def test_interleaved_fragmented_datagrams_are_one_connection_a_flow(apart: int) -> None:
    n = 3000  # flows with a datagram of three fragments each; so many first ones come before the second ones follow
    first = udp([T0 + 1000 * k for k in range(n)], range(30_000, 30_000 + n))
    first.ip_id[:] = np.arange(n)
    first.src_lo[:] += np.arange(n).astype("u8") % np.uint64(7)
    first.kind[:] |= KIND_FIRST_FRAGMENT
    later = first._replace(
        kind=np.full_like(first.kind, Kind.IPV4 | KIND_FRAGMENT),
        sport=np.zeros_like(first.sport), dport=np.zeros_like(first.dport), checksum=np.full_like(first.checksum, 185),
    )  # fmt: skip
    last = later._replace(checksum=np.full_like(first.checksum, 370))
    parts = []
    for begin in range(0, n, apart):
        rows = slice(begin, begin + apart)
        parts += [take(first, rows), take(later, rows), take(last, rows)]
    p = concatenate(parts)
    p.ts[:] = T0 + 1000 * np.arange(p.ts.size)
    records = ended(Tracker(TrackerConfig(capacity=4 * n)), p)
    assert sorted(r["id.orig_p"] for r in records) == list(range(30_000, 30_000 + n))
    assert {(r["orig_pkts"], r["orig_bytes"]) for r in records} == {(3, 3 * 58)}
