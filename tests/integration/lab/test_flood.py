"""Floods of bounded size, and their ordinary neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Done, perform

pytestmark = pytest.mark.lab

SERVER, ATTACKER, PROBER = 1, 10, 11


def rows_by_host(done: Done) -> dict[int, dict[str, Any]]:
    """The one row of each client host, merged with its connection; every connection has one."""
    assert done.account["failed_samples"] == 0, done.account["problems"]
    pairs = {(c["id.orig_h"], c["id.resp_h"], c["proto"]): c for c in done.connections()}
    assert len(pairs) == len(done.connections()) == len(done.rows)
    merged = [row | pairs[row["src"], row["dst"], row["proto"]] for row in done.rows]
    return {int(row["src"].rpartition(".")[2]): row for row in merged}


@pytest.mark.parametrize(("activity", "proto"), [("ping", "icmp"), ("datagrams", "udp")])
def test_neighbours_ask_at_an_ordinary_rate(tmp_path: Path, activity: str, proto: str) -> None:
    entry = {"scenario": "flood", "activity": activity, "link": {"delay_ms": 10},
             "parameters": {"requests": 6, "pause_ms": 50}}  # fmt: skip
    (done,) = perform(tmp_path, entry)
    ((_, row),) = rows_by_host(done).items()
    assert (row["proto"], row["attack"], row["succeeded"]) == (proto, 0, True)
    assert (row["orig_pkts"], row["resp_pkts"]) == (row["packets_up"], row["packets_down"]) == (6, 6)
    assert row["duration"] > 5 * (0.05 + 0.02)


@pytest.mark.parametrize(("activity", "proto"), [("icmp-flood", "icmp"), ("udp-flood", "udp")])
def test_a_flood_is_bounded_and_succeeds_where_the_link_is_narrow(
    tmp_path: Path, activity: str, proto: str
) -> None:
    entry = {"scenario": "flood", "activity": activity, "parameters": {"packets": 500, "rate_pps": 1000}}
    links: list[dict[str, Any]] = [{"rate_kbit": 200, "queue_packets": 20}, {}]
    for link in links if proto == "udp" else links[:1]:
        (done,) = perform(tmp_path / str(len(link)), entry | {"link": link})
        found = rows_by_host(done)
        flood, probe = found[ATTACKER], found[PROBER]
        assert (flood["attack"], flood["attack_kind"], flood["proto"]) == (1, "flood", proto)
        assert (probe["attack"], probe["attack_kind"], probe["activity"]) == (
            0, "none", "ping" if proto == "icmp" else "datagrams",
        )  # fmt: skip
        assert flood["orig_pkts"] == flood["packets_up"] == 500
        assert flood["duration"] > 0.4
        assert 10 <= probe["packets_up"] < 200
        if link:
            assert flood["succeeded"] is True
            assert flood["overflow_up"] > 100
            assert flood["resp_pkts"] < 400
        else:
            assert flood["resp_pkts"] == flood["packets_down"]
