"""Port scans: what nmap asks of a host and what it hears, held against the capture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from probing.lab.services.open_host import FILTERED, TCP, UDP
from tests.support.lab import Done, is_delayed, perform

pytestmark = pytest.mark.lab

DELAY_MS = 5


def agrees(done: Done) -> list[dict[str, Any]]:
    """Hold a run against its capture. Returns its rows, merged with their connections."""
    assert done.account["failed_samples"] == 0, done.run.id
    rows = [row | connection for row, connection in _joined(done)]
    for row in rows:
        assert (row["attack"], row["attack_kind"], row["succeeded"]) == (1, "port-scan", True), row
        assert row["phases"].startswith('[["scan",'), row
        if row["proto"] == "tcp":
            answered = row["dport"] in TCP
            assert (row.get("handshake_ms") is not None) is answered, row
            assert (row["termination"] != "refused") is answered, row
        else:
            assert row["termination"] == "none", row
        if row.get("handshake_ms") is not None:
            assert is_delayed(row, DELAY_MS), row
    return rows


def _joined(done: Done) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """As ``Done.joined``, but ICMP, sent by both, has no ports in its rows and no originator."""

    def key(src: str, sport: int | None, dst: str, dport: int | None, proto: str) -> tuple[object, ...]:
        return (frozenset((src, dst)), proto) if proto == "icmp" else (src, sport, dst, dport, proto)

    found = {
        key(c["id.orig_h"], c["id.orig_p"], c["id.resp_h"], c["id.resp_p"], c["proto"]): c
        for c in done.connections()
    }
    keys = [key(r["src"], r["sport"], r["dst"], r["dport"], r["proto"]) for r in done.rows]
    assert len(keys) == len(set(keys)) == len(done.connections())
    assert set(keys) == found.keys()
    return [(row, found[k]) for row, k in zip(done.rows, keys)]


def run(folder: Path, activity: str | list[str], samples: int = 1, **parameters: Any) -> list[Done]:
    """Scans of each kind."""
    return perform(folder, {
        "scenario": "port-scan", "activity": activity, "link": {"delay_ms": DELAY_MS}, "samples": samples,
        "parameters": parameters,
    })  # fmt: skip


def test_a_scan_asks_each_port_for_itself(tmp_path: Path) -> None:
    n = 60
    for done in run(tmp_path, ["syn-scan", "connect-scan"], samples=2, ports=n):
        rows = agrees(done)
        states: dict[str, set[tuple[int, int]]] = {}
        for row in rows:
            assert row["role"] == "scan"
            states.setdefault(row["conn_state"], set()).add((row["sample"], row["dport"]))
        assert states.keys() == {"RSTO", "REJ", "S0"}, done.run.id
        assert all(port in TCP for _, port in states["RSTO"])
        assert all(port in FILTERED for _, port in states["S0"])
        for sample in (0, 1):
            counts = {state: sum(s == sample for s, _ in ports) for state, ports in states.items()}
            assert counts["S0"] == 1
            assert sum(counts.values()) == n, done.run.id


def test_ports_are_the_same_whatever_the_link(tmp_path: Path) -> None:
    runs = perform(tmp_path, {
        "scenario": "port-scan", "activity": "syn-scan", "twins": [{}, {"delay_ms": 20}],
        "parameters": {"ports": 40},
    })  # fmt: skip
    one, other = ({row["dport"] for row in done.rows} for done in runs)
    assert len(one) == 40
    assert one == other


def test_a_slow_scan_waits_between_packets(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "slow-scan", ports=6, pause_ms=150)
    rows = sorted(agrees(done), key=lambda row: row["start"])
    assert len(rows) == 6
    gaps = [b["start"] - a["start"] for a, b in pairwise(rows)]
    assert min(gaps) > 100e6


def test_versions_are_asked_in_connections_that_end_well(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "version-scan", ports=3)
    rows = agrees(done)
    looked = {row["dport"] for row in rows if row["conn_state"] == "RSTO"}
    asked = {row["dport"] for row in rows if row["conn_state"] == "SF"}
    assert looked == asked
    assert len(looked) == 3
    assert len(rows) == 6
    for row in rows:
        assert row["role"] == "scan"
        assert row["termination"] == {"RSTO": "rst", "SF": "fin"}[row["conn_state"]], row


def test_closed_udp_ports_answer_with_icmp(tmp_path: Path) -> None:
    (done,) = run(tmp_path, "udp-scan", ports=6)
    rows = agrees(done)
    asked = {row["dport"] for row in rows if row["proto"] == "udp"}
    heard = {row["dport"] for row in rows if row["conn_state"] == "SF"}
    assert len(asked) == 6
    assert heard == asked & set(UDP)
    (answers,) = [row for row in rows if row["proto"] == "icmp"]
    assert answers["packets_up"] + answers["packets_down"] >= len(asked - heard)
