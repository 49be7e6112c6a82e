"""The connection table: what ends when, and what happens when it is full."""

from __future__ import annotations

from typing import Any

import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.record import community_ids, connection_table, json_lines
from engine.connections.tracker import Tracker
from engine.errors import ConfigError
from engine.types import (
    KIND_FIRST_FRAGMENT,
    KIND_FRAGMENT,
    KIND_TRANSPORT,
    Kind,
    Packets,
    empty_packets,
    join_rows,
    take,
)
from tests.conversation import MS, T0, A, B, Conversation

SECOND = 1000 * MS


def udp(times: list[int], ports: list[int]) -> Packets:
    """One datagram from A:port to B:9 at each time."""
    p = empty_packets(len(times))
    p.ts[:], p.sport[:], p.dport[:] = times, ports, 9
    p.src_lo[:], p.dst_lo[:] = A, B
    p.proto[:], p.kind[:] = 17, Kind.IPV4 | KIND_TRANSPORT
    p.size[:], p.ip_size[:], p.payload[:] = 100, 86, 58
    return p


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
    slots = [slot for batch in tracker.advance(T0 + 120 * SECOND) for slot in batch.tolist()]
    assert len(slots) == len(set(slots)) == 20
    assert tracker.counters["live"] == 0
    assert not list(tracker.advance(T0 + 240 * SECOND))


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
        "live": 0, "opened": n, "evicted": n - 100, "expired": 0, "late_packets": 0,
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
