"""Who is the originator, where a VLAN or a MAC is part of a connection's name."""

from __future__ import annotations

from typing import Any

import pytest

from engine.connections.bounds import TrackerConfig
from engine.connections.record import connection_table
from engine.connections.tracker import Tracker
from engine.sensor.pseudonyms import Pseudonymiser
from engine.types import Kind, Packets, concatenate, empty_packets
from tests.support.conversation import MS, T0, Conversation
from tests.support.datagrams import udp

SECOND = 1000 * MS
V4 = 0xFFFF << 32
GROUPS = {
    "224.0.0.251": (0, V4 | 0xE00000FB, 0x01005E0000FB), "239.1.1.1": (0, V4 | 0xEF010101, 0x01005E010101),
    "255.255.255.255": (0, V4 | 0xFFFFFFFF, 0xFFFFFFFFFFFF), "10.0.0.255": (0, V4 | 0x0A0000FF, 0xFFFFFFFFFFFF),
    "ff02::1": (0xFF02 << 48, 1, 0x333300000001),
}  # fmt: skip


def records(p: Packets, config: TrackerConfig | None = None) -> list[dict[str, Any]]:
    tracker = Tracker(config or TrackerConfig(capacity=64))
    tables = [connection_table(*tracker.rows(step.closed)) for step in tracker.track(p)]
    tables += [connection_table(*tracker.rows(slots)) for slots in tracker.flush()]
    return [row for table in tables for row in table.drop_columns(["ts"]).to_pylist()]


@pytest.mark.parametrize("port", [53, 123, 5353, 161])
@pytest.mark.parametrize("group", list(GROUPS))
def test_a_group_is_no_originator(group: str, port: int) -> None:
    p = udp([T0, T0 + SECOND], [port] * 2)
    hi, lo, mac = GROUPS[group]
    p.dst_hi[:], p.dst_lo[:], p.dst_mac[:], p.dport[:] = hi, lo, mac, 40_000
    (record,) = records(p)
    assert (record["id.orig_h"], record["conn_state"], record["history"]) == ("10.0.0.1", "S0", "D")
    assert record["id.resp_h"] == group


def test_an_answer_from_a_servers_port_to_one_host_still_comes_from_the_responder() -> None:
    p = udp([T0], [53])
    p.dport[:] = 40_000
    assert records(p)[0]["id.orig_h"] == "10.0.0.2"


@pytest.mark.parametrize("pause", [301, 400, 7200])
@pytest.mark.parametrize(("flags", "state"), [("PA", "OTH"), ("A", "OTH"), ("R", "RSTRH"), ("FA", "SHR")])
def test_the_originator_survives_a_pause(pause: int, flags: str, state: str) -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100).send("b", "PA", 1, 101, 500)
    for row in c.rows:  # a port of no known server
        row["sport"], row["dport"] = (8443 if port == 80 else port for port in (row["sport"], row["dport"]))
    before = c.packets()
    c.send("b", flags, 501, 101, after=pause * 1000.0)
    c.rows[-1]["sport"] = 8443
    after = c.packets()
    found = records(after)
    assert [r["id.orig_h"] for r in found] == ["10.0.0.1"] * 2
    assert found[1]["conn_state"] == state
    assert before.ts.size + 1 == after.ts.size


@pytest.mark.parametrize("late", [6.0, 60.0, 290.0])
def test_a_server_whose_reset_comes_late_is_not_the_scanner(late: float) -> None:
    parts = []
    for port in range(20):
        c = Conversation(isn_a=5000 * port).send("a", "S", 0, after=1 + port, port=50_000 + port)
        parts.append(c)
    p = concatenate([c.packets() for c in parts])
    q = concatenate(
        [
            Conversation(isn_a=5000 * k)
            .send("b", "RA", -7_000_000, 1, after=late * 1000 + k, port=50_000 + k)
            .packets()
            for k in range(20)
        ]
    )
    found = records(concatenate([p, q]))
    assert {r["id.orig_h"] for r in found} == {"10.0.0.1"}
    assert len(found) == 40


def test_what_is_remembered_of_a_pair_is_not_told_of_another() -> None:
    c = Conversation().open().send("a", "PA", 1, 1, 100, port=40_000)
    c.send("b", "PA", 501, 101, 10, after=400_000, port=41_000)
    for row in c.rows:
        row["sport"], row["dport"] = (8443 if port == 80 else port for port in (row["sport"], row["dport"]))
    assert [r["id.orig_h"] for r in records(c.packets())] == ["10.0.0.1", "10.0.0.2"]


def in_vlan(vlan: int, isn: int) -> Packets:
    c = Conversation(isn_a=isn).open().send("a", "PA", 1, 1, 100).send("b", "PA", 1, 101, 500)
    p = c.send("a", "A", 101, 501).close(101, 501).packets()
    p.vlan[:] = vlan
    return p


def test_equal_addresses_in_two_vlans_are_two_connections_where_vlans_are_told_apart() -> None:
    p = concatenate([in_vlan(10, 5), in_vlan(20, 99_999_999), in_vlan(20 | 7 << 16, 4)])
    p.ts[:] = T0 + MS * (1 + (p.ts - T0) // MS)
    found = records(p, TrackerConfig(capacity=64, vlans=True))
    assert {(r["vlan"], r["inner_vlan"], r["conn_state"], r["orig_pkts"]) for r in found} == {
        (10, None, "SF", 6), (20, None, "SF", 6), (20, 7, "SF", 6),
    }  # fmt: skip
    assert len({r["uid"] for r in found}) == 3


def test_the_vlan_is_in_the_record_and_one_that_changes_on_the_way_splits_nothing() -> None:
    p = in_vlan(10, 5)
    p.vlan[1::2] = 20
    (record,) = records(p)
    assert (record["vlan"], record["inner_vlan"], record["conn_state"]) == (10, None, "SF")
    assert records(in_vlan(0, 5))[0]["vlan"] is None


def arp(pairs: list[tuple[int, int]], ethertype: int = 0x0806, kind: Kind = Kind.ARP) -> Packets:
    p = empty_packets(len(pairs))
    for i, (src, dst) in enumerate(pairs):
        p.ts[i], p.src_mac[i], p.dst_mac[i] = T0 + i * 50 * MS, src, dst
        p.src_lo[i], p.dst_lo[i] = V4 | src, V4 | i
    p.kind[:], p.ethertype[:], p.size[:], p.sport[:] = kind, ethertype, 60, 1
    return p


@pytest.mark.parametrize(
    ("probes", "expected"), [([7, 7, 7], 7), ([0, 7, 0], 0), ([7, 0, 0], 0), ([7, 8, 8], 0), ([0, 0, 0], 0)]
)
def test_a_pair_of_macs_has_the_label_that_all_its_frames_have(probes: list[int], expected: int) -> None:
    p = arp([(2, 0xFFFFFFFFFFFF)] * len(probes))
    p.probe[:] = probes
    assert records(p)[0]["probe"] == expected


def test_arp_has_a_record_for_each_pair_of_macs() -> None:
    scan = [(2, 0xFFFFFFFFFFFF), (2, 0xFFFFFFFFFFFF), (3, 2), (2, 0xFFFFFFFFFFFF), (2, 3)]
    found = records(arp(scan))
    assert [(r["id.orig_h"], r["id.resp_h"], r["orig_pkts"], r["resp_pkts"]) for r in found] == [
        ("00:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", 3, 0), ("00:00:00:00:00:03", "00:00:00:00:00:02", 1, 1),
    ]  # fmt: skip
    assert {(r["proto"], r["id.orig_p"], r["ip_proto"], r["community_id"]) for r in found} == {
        ("arp", None, None, None)
    }
    assert [r["conn_state"] for r in found] == ["S0", "SF"]


@pytest.mark.parametrize(
    ("ethertype", "name"),
    [(0x88CC, "lldp"), (0x8892, "profinet"), (0x42, "stp"), (0x9999, "0x9999"), (0, "link")],
)
def test_frames_that_are_not_ip_are_named_by_their_ethertype(ethertype: int, name: str) -> None:
    (record,) = records(arp([(2, 3), (3, 2)], ethertype, Kind.LINK))
    assert (record["proto"], record["orig_pkts"], record["resp_pkts"]) == (name, 1, 1)


def test_macs_and_addresses_of_equal_numbers_are_not_one_host() -> None:
    p = arp([(2, 3)])
    q = udp([T0], [0])
    q.src_hi[:], q.src_lo[:], q.dst_hi[:], q.dst_lo[:] = 1 << 63, 2, 1 << 63, 3
    q.dport[:], q.proto[:] = 0, 0
    assert len(records(concatenate([p, q]))) == 2
    assert len({r["uid"] for r in records(concatenate([p, q]))}) == 2


@pytest.mark.parametrize(
    ("port", "flags", "seq", "first"),
    [
        (113, "RA", 5, "10.0.0.1"), (113, "R", 5, "10.0.0.1"), (60_000, "RA", 0, "10.0.0.1"),
        (60_000, "RA", 5, "10.0.0.2"), (113, "A", 5, "10.0.0.2"), (443, "RA", 5, "10.0.0.1"),
    ],
)  # fmt: skip
def test_who_resets_what_was_not_captured_is_the_server(port: int, flags: str, seq: int, first: str) -> None:
    c = Conversation(isn_b=0).send("b", flags, seq, 1, port=50_551)
    c.rows[0]["sport"] = port
    (record,) = records(c.packets())
    assert record["id.orig_h"] == first


def test_a_client_that_resets_a_known_server_is_the_originator() -> None:
    c = Conversation().send("a", "RA", 5, 1, port=70)
    assert records(c.packets())[0]["id.orig_h"] == "10.0.0.1"


@pytest.mark.parametrize("key", [bytes(range(32)), b"k" * 32])
def test_frames_of_two_macs_still_pair_up_under_pseudonyms(key: bytes) -> None:
    pairs = [(2, 0xFFFFFFFFFFFF), (0x0050_5684_1234, 2), (2, 0x0050_5684_1234), (2, 0xFFFFFFFFFFFF), (3, 2)]
    p = arp(pairs)
    plain, hidden = records(p), records(Pseudonymiser(key).apply(p))
    counts = ("orig_pkts", "resp_pkts", "proto", "conn_state")
    assert [[row[name] for name in counts] for row in hidden] == [
        [row[name] for name in counts] for row in plain
    ]
    ends = [(row["id.orig_h"], row["id.resp_h"]) for row in hidden]
    assert ends[0][0] == ends[1][1] == ends[2][1]  # MAC 2 in all three
    assert ends[0][1] == "ff:ff:ff:ff:ff:ff"
    assert not {mac for end in ends for mac in end} & {row["id.orig_h"] for row in plain}
