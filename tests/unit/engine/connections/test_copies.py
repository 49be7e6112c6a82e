"""Copies that a capture made: known, counted, left out; and what only looks like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.copies import LONGEST, MOST, print_of
from engine.connections.layout import PACKET_COPY, Segment
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.types import ICMP, Kind, Packets, concatenate, empty_packets, take
from tests.support.conversation import MS, T0, Conversation
from tests.support.datagrams import udp
from tests.support.tracking import kinds, only, tracked

NEW, COPY, DUPLICATE = Segment.NEW, Segment.CAPTURE_DUPLICATE, Segment.DUPLICATE
KEEP = TrackerConfig(capacity=64, copies="keep")


def records(p: Packets, config: TrackerConfig | None = None) -> list[dict[str, Any]]:
    tracker = Tracker(config or TrackerConfig(capacity=64))
    tables = [connection_table(*tracker.rows(step.closed)) for step in tracker.track(p)]
    tables += [connection_table(*tracker.rows(slots)) for slots in tracker.flush()]
    return [row for table in tables for row in table.drop_columns(["ts"]).to_pylist()]


def doubled(p: Packets, delay_us: float) -> Packets:
    """Every packet of p, and its copy later, in order of time."""
    copies = p._replace(ts=p.ts + round(delay_us * 1000))
    both = concatenate([p, copies])
    return take(both, np.argsort(both.ts, kind="stable"))


def of(p: Packets, **columns: Any) -> Packets:
    for name, value in columns.items():
        getattr(p, name)[:] = value
    return p


def conversation(ids: bool, apart: float = 1.0, trip: float = 10.0) -> Packets:
    """A whole connection with a burst of 40 segments ``apart`` ms from each other."""
    c = Conversation().open(trip).send("a", "PA", 1, 1, 100)
    for k in range(40):
        c.send("b", "A", 1 + 1448 * k, 101, 1448, after=apart)
    c.send("a", "A", 101, 1 + 1448 * 40).close(101, 1 + 1448 * 40)
    p = c.packets()
    return p if ids else of(p, ip_id=0)


SAME = (
    "conn_state",
    "history",
    "orig_bytes",
    "resp_bytes",
    "orig_pkts",
    "resp_pkts",
    "orig_ip_bytes",
    "resp_ip_bytes",
)


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
@pytest.mark.parametrize("apart", [0.003, 0.012, 1.0])
@pytest.mark.parametrize("delay", [5, 30, 300, 900])
def test_a_capture_with_every_packet_twice_is_as_the_capture_with_each_once(
    ids: bool, apart: float, delay: float
) -> None:
    once = conversation(ids, apart)
    (plain,) = records(once)
    (twice,) = records(doubled(once, delay))
    assert {k: twice[k] for k in SAME} == {k: plain[k] for k in SAME}
    assert plain["orig_capture_duplicate"] + plain["resp_capture_duplicate"] == 0
    assert (twice["orig_capture_duplicate"], twice["resp_capture_duplicate"]) == (6, 42)
    assert twice["resp_retransmitted"] == twice["orig_retransmitted"] == twice["orig_duplicate_ack"] == 0


def test_copies_that_are_kept_count_as_packets_and_are_still_no_events() -> None:
    (twice,) = records(doubled(conversation(True), 30), KEEP)
    assert (twice["orig_pkts"], twice["resp_pkts"]) == (12, 84)
    assert (twice["orig_capture_duplicate"], twice["resp_capture_duplicate"]) == (6, 42)
    assert (twice["resp_retransmitted"], twice["resp_bytes"]) == (0, 1448 * 40)


@pytest.mark.parametrize("delay", [30, 500, 3000])
def test_copies_of_refused_connections_are_not_new_ones(delay: float) -> None:
    parts = []
    for k in range(20):
        c = Conversation(isn_a=1000 * k)
        c.now += k * 10 * MS
        c.send("a", "S", 0, port=40_000 + k).send(
            "b", "RA", -7_000_000, 1, after=0.4, port=40_000 + k, ip_id=0
        )
        parts.append(c.packets())
    found = records(doubled(concatenate(parts), delay))
    assert {r["conn_state"] for r in found} == {"REJ"}
    assert len(found) == 20
    counts = [(r["orig_capture_duplicate"], r["resp_capture_duplicate"]) for r in found]
    assert counts == [(1, 1)] * 20


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_datagrams_have_copies(ids: bool) -> None:
    p = udp([T0 + k * MS for k in range(20)], [5] * 20)
    of(p, ip_id=np.arange(1, 21) * ids, checksum=np.arange(100, 120))
    (record,) = records(doubled(p, 5))
    assert (record["orig_pkts"], record["orig_capture_duplicate"], record["orig_bytes"]) == (20, 20, 20 * 58)


def test_echoes_have_copies() -> None:
    p = of(udp([T0 + k * MS for k in range(20)], [8] * 20), proto=ICMP, dport=0, checksum=np.arange(100, 120))
    (record,) = records(doubled(p, 200))
    assert (record["orig_pkts"], record["orig_capture_duplicate"]) == (20, 20)


def test_arp_has_copies() -> None:
    p = empty_packets(10)
    of(
        p,
        ts=T0 + np.arange(10) * 100 * MS,
        kind=Kind.ARP,
        ethertype=0x0806,
        src_mac=2,
        dst_mac=3,
        sport=1,
        size=60,
    )
    (record,) = records(doubled(p, 200))
    assert (record["proto"], record["orig_pkts"], record["orig_capture_duplicate"]) == ("arp", 10, 10)


def test_datagrams_of_one_size_with_other_contents_are_not_copies() -> None:
    p = of(udp([T0 + k * 20_000 for k in range(50)], [5] * 50), checksum=np.arange(1, 51))
    assert records(p)[0]["orig_capture_duplicate"] == 0
    assert (
        records(of(p, checksum=0))[0]["orig_capture_duplicate"] == 0
    )  # nothing tells them apart: not copies


def test_a_flood_of_equal_packets_does_not_vanish() -> None:
    p = of(udp([T0 + k * 20_000 for k in range(1000)], [5] * 1000), ip_id=7, checksum=9)
    (record,) = records(p)
    assert (record["orig_pkts"], record["orig_capture_duplicate"]) == (1000 - MOST, MOST)


@pytest.mark.parametrize(("later", "copies"), [(LONGEST - 8, 1), (LONGEST + 8, 0)])
def test_a_copy_comes_within_ten_milliseconds(later: int, copies: int) -> None:
    p = of(udp([T0, T0 + later], [5, 5]), ip_id=7)
    assert records(p)[0]["orig_capture_duplicate"] == copies


def test_a_step_of_the_tracker_flags_copies_and_leaves_them_with_their_connection() -> None:
    p = doubled(conversation(True), 5)
    (step,) = Tracker(TrackerConfig(capacity=8)).track(p)
    assert np.count_nonzero(step.flags & PACKET_COPY) == 48
    assert set(step.slot.tolist()) == {int(step.slot[0])}


@pytest.mark.parametrize("after", [11.0, 250.0])
def test_a_segment_sent_again_is_no_copy_without_an_id_nor_with_one(after: float) -> None:
    for ids in (None, 0):
        c = Conversation().open(10.0).send("a", "PA", 1, 1, 100, ip_id=ids)
        assert kinds(c.send("a", "PA", 1, 1, 100, after=after, ip_id=ids))[-1] is DUPLICATE


@pytest.mark.parametrize(
    ("trip", "after", "kind"), [(10, 9.0, COPY), (0.2, 0.25, DUPLICATE), (0.2, 0.15, COPY)]
)
def test_without_an_id_a_segment_is_sent_again_no_sooner_than_a_round_trip(
    trip: float, after: float, kind: Segment
) -> None:
    c = Conversation().open(trip).send("a", "A", 1, 1, 100, ip_id=0)
    assert kinds(c.send("a", "A", 1, 1, 100, after=after, ip_id=0))[-1] is kind


@pytest.mark.parametrize(("after", "kind"), [(0.01, COPY), (0.09, COPY), (0.11, DUPLICATE)])
def test_without_an_id_and_a_round_trip_a_copy_comes_within_100_us(after: float, kind: Segment) -> None:
    c = Conversation().send("a", "A", 1, 1, 100, ip_id=0)
    assert kinds(c.send("a", "A", 1, 1, 100, after=after, ip_id=0))[-1] is kind


def test_copies_of_two_queues_may_come_in_either_order() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100, ip_id=7)
    assert kinds(c.send("a", "A", 1, 1, 100, after=-0.01, ip_id=7))[-1] is COPY


def test_a_copy_of_a_copy_is_one() -> None:
    c = Conversation().open()
    for after in (1, 0.9, 0.9):
        c.send("a", "A", 1, 1, 100, after=after, ip_id=7)
    assert kinds(c)[-2:] == [COPY, COPY]


@pytest.mark.parametrize("later", [4294.967296, 4294.967296 * 1.024])
def test_the_same_packet_much_later_is_none(later: float) -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100, ip_id=7)
    assert kinds(c.send("a", "A", 1, 1, 100, after=later, ip_id=7))[-1] is DUPLICATE


def test_equal_acks_without_an_id_are_two() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100).send("a", "A", 101, 1, 100)
    for _ in range(3):
        c.send("b", "A", 1, 101, after=0.01, ip_id=0)
    assert kinds(c)[-3:] == [Segment.ACK] * 3
    assert only(c)["resp_duplicate_ack"] == 2


@pytest.mark.parametrize("other", [{"seq": 2}, {"ack": 2}, {"payload": 99}, {"flags": "A"}, {"ip_id": 8}])
def test_a_packet_that_differs_in_anything_is_no_copy(other: dict[str, object]) -> None:
    same: dict[str, object] = {"flags": "PA", "seq": 1, "ack": 1, "payload": 100, "ip_id": 7}
    c = Conversation().open().send("b", "A", 1, 1)
    c.send("a", after=1, **same).send("a", after=0.01, **{**same, **other})  # type: ignore[arg-type]
    assert kinds(c)[-1] is not COPY


def test_what_routers_write_does_not_matter() -> None:
    p = doubled(conversation(True), 30)
    odd = np.arange(p.ts.size) % 2 == 1
    of(p, ttl=np.where(odd, 63, 64), src_mac=np.where(odd, 9, 8), vlan=np.where(odd, 20, 10))
    assert records(p)[0]["resp_capture_duplicate"] == 42


def test_where_vlans_are_told_apart_an_equal_packet_in_another_is_none() -> None:
    once = conversation(True)
    p = doubled(of(once, vlan=10), 30)
    p.vlan[1::2] = 20
    found = records(p, TrackerConfig(capacity=64, vlans=True))
    assert sorted((r["vlan"], r["conn_state"], r["resp_pkts"], r["resp_capture_duplicate"]) for r in found) == [
        (10, "SF", 42, 0), (20, "SF", 42, 0),
    ]  # fmt: skip
    assert len({r["uid"] for r in found}) == 2


def test_a_copy_prolongs_nothing() -> None:
    c = Conversation().open().send("a", "A", 1, 1, 100, ip_id=7).send("a", "A", 1, 1, 100, after=5, ip_id=7)
    assert tracked(c)[2][0]["duration"] == pytest.approx(0.011)


def test_arp_for_other_addresses_is_no_copy() -> None:
    p = empty_packets(20)
    of(p, ts=T0 + np.arange(20) * 10_000, kind=Kind.ARP, ethertype=0x0806, src_mac=2, dst_mac=3, size=60)
    of(p, sport=1 + np.arange(20) % 2, dst_lo=np.arange(20) // 2)
    assert sum(r["orig_capture_duplicate"] for r in records(p)) == 0
    of(p, dst_lo=1, src_lo=np.arange(20) // 2)
    assert sum(r["orig_capture_duplicate"] for r in records(p)) == 0


@pytest.mark.parametrize("last", [0.02, 5.0, 60.0])
def test_a_capture_that_is_read_twice_is_not_full_of_copies(last: float) -> None:
    once = conversation(True, apart=last * 1000 / 40)
    found = records(concatenate([once, once]))
    assert [(r["conn_state"], r["resp_pkts"], r["resp_capture_duplicate"]) for r in found] == [
        ("SF", 42, 0)
    ] * 2


def test_copies_are_known_after_time_has_gone_back() -> None:
    rng = np.random.default_rng(3)
    p = of(udp([T0 + k * 1000 for k in range(20_000)], [5] * 20_000), ip_id=7)
    of(p, payload=rng.integers(0, 1400, 20_000), checksum=rng.integers(1, 65_536, 20_000))
    again = take(p, slice(0, 3000))._replace(ts=p.ts[:3000] - 3600 * 1000 * MS)
    again = again._replace(ip_id=np.full(3000, 8, p.ip_id.dtype))
    tracker = Tracker(TrackerConfig(capacity=64))
    list(tracker.track(p))
    before = tracker.counters["copies"]
    list(tracker.track(doubled(again, 2000)))
    assert tracker.counters["copies"] - before > 2900


def test_no_two_packets_of_many_that_differ_in_one_field_or_two_have_one_print() -> None:
    base = of(udp([T0], [5]), proto=6, seq=7, ack=9, payload=3, window=5, checksum=77, ip_id=1, ip_size=60)
    fields = ("tcp_flags", "ip_id", "payload", "window", "checksum", "seq", "ack", "ip_size", "proto")
    seen: dict[int, tuple[int, ...]] = {}
    for one in fields:
        for other in fields:
            for a in range(0, 64, 5):
                for b in range(0, 64, 7):
                    p = base._replace(**{one: getattr(base, one) ^ getattr(base, one).dtype.type(a)})
                    p = p._replace(**{other: getattr(p, other) ^ getattr(p, other).dtype.type(b)})
                    words = tuple(int(getattr(p, name)[0]) for name in fields)
                    with np.errstate(over="ignore"):
                        found = int(print_of(p, 0, np.uint64(11), np.uint64(12), np.uint64(0)))
                    assert seen.setdefault(found, words) == words
