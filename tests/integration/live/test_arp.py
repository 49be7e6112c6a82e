"""A scan by ARP, and a host that puts itself between two others by forged ARP: what a model that learned alarms on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.types import KIND_MASK, Kind
from tests.integration.live.ring import of_file
from tests.support.calls import called, summary
from tests.support.segment import EVERYBODY, Segment, scan, segment, stand_between

pytestmark = [pytest.mark.live, pytest.mark.compiled]

SECOND = 10**9
GATEWAY, CLIENT, ATTACKER = 1, 11, 66
MACS = {last: f"02:00:00:00:09:{last:02x}" for last in (GATEWAY, CLIENT, ATTACKER)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures of six hosts: without an attack to learn from, and what could have come a second later. And the bundle.

    The attacker is a host that the model has learned as an ordinary one.
    """
    place = tmp_path_factory.mktemp("arp")
    with segment((GATEWAY, CLIENT, 12, 13, 14, ATTACKER)) as net:
        end = net.capture(place / "normal.pcap", lambda: net.talk(15.0, 1))
        for name, busy in _later(net).items():
            net.capture(place / f"{name}.pcap", busy, end + SECOND)
    # One row that a busy machine made strange may not be the threshold.
    (place / "train.yaml").write_text("kitsune: {threshold: {false_positive_rate: 0.01}}\n")
    words = ("-c", place / "train.yaml", "-o", place / "normal.safetensors")
    done = called("train", "kitsune", place / "normal.pcap", *words)
    assert done.exit_code == 0, done.stderr
    return place


def _later(net: Segment) -> dict[str, Callable[[], None]]:
    gateway, client, attacker = net.hosts[0], net.hosts[1], net.hosts[-1]
    return {
        "control": lambda: net.talk(5.0, 2),
        "scan": lambda: net.beside(3.0, 3, lambda: scan(attacker)),
        "replies": lambda: net.beside(5.0, 4, lambda: stand_between(attacker, gateway, client, 4.0)),
        "gratuitous": lambda: net.beside(5.0, 5, lambda: stand_between(attacker, gateway, client, 4.0, True)),
    }


def scored(folder: Path, name: str) -> dict[str, Any]:
    """The summary of a capture scored with the bundle, in the default configuration."""
    bundle = folder / "normal.safetensors"
    return summary(folder / f"{name}.pcap", "--model", bundle, "--out", folder / name)


def arp_alarms(got: dict[str, Any]) -> list[tuple[str, str]]:
    """Originators and responders of the ARP rows with an alarm among the most anomalous rows, greatest score first."""
    return [
        (row["id.orig_h"], row["id.resp_h"]) for row in got["top"] if row["proto"] == "arp" and row["alarm"]
    ]


def diverted(capture: Path) -> int:
    """IP packets from the client to the gateway's address that were sent to the attacker's MAC."""
    p = of_file(capture)
    mine = ((p.kind & KIND_MASK) == Kind.IPV4) & (p.src_lo == _v4(CLIENT)) & (p.dst_lo == _v4(GATEWAY))
    return int(np.count_nonzero(mine & (p.dst_mac == int(MACS[ATTACKER].replace(":", ""), 16))))


def _v4(last: int) -> int:
    return 0xFFFF_0A09_0000 | last


def test_ordinary_arp_raises_no_more_alarms_than_promised(folder: Path) -> None:
    got = scored(folder, "control")
    columns = ["final", "proto", "score", "alarm"]
    rows = pq.read_table(folder / "control" / "scores.parquet", columns=columns).to_pylist()
    arp = [row for row in rows if row["final"] and row["proto"] == "arp"]
    assert sum(row["score"] is not None for row in arp) > 20
    assert got["promised_rate"] < 0.02
    assert sum(row["alarm"] for row in arp) <= got["promised_rate"] * got["scored"]


def test_a_scan_is_the_most_anomalous_row(folder: Path) -> None:
    got = scored(folder, "scan")
    assert arp_alarms(got)[0] == (MACS[ATTACKER], EVERYBODY)
    row = got["top"][0]
    assert (row["proto"], row["id.orig_h"]) == ("arp", MACS[ATTACKER])
    assert row["orig_pkts"] >= 254
    assert row["resp_pkts"] == 0


def test_a_host_between_two_others_by_forged_replies_is_among_the_most_anomalous_rows(folder: Path) -> None:
    assert diverted(folder / "replies.pcap") > 0
    found = arp_alarms(scored(folder, "replies"))
    assert {(MACS[ATTACKER], MACS[CLIENT]), (MACS[ATTACKER], MACS[GATEWAY])} <= set(found[:4])


def test_a_host_between_two_others_by_gratuitous_arp_is_among_the_most_anomalous_rows(folder: Path) -> None:
    assert diverted(folder / "gratuitous.pcap") > 0
    assert (MACS[ATTACKER], EVERYBODY) in arp_alarms(scored(folder, "gratuitous"))[:2]


def test_an_alert_of_arp_names_macs_and_no_addresses(folder: Path) -> None:
    scored(folder, "scan")
    lines = (folder / "scan" / "alerts.jsonl").read_text().splitlines()
    alerts = [alert for alert in map(json.loads, lines) if alert["network"]["type"] == "arp"]
    (alert,) = (a for a in alerts if a["destination"]["mac"] == "FF-FF-FF-FF-FF-FF" and _by_attacker(a))
    assert not {"ip", "port"} & (alert["source"].keys() | alert["destination"].keys())
    assert "related" not in alert
    assert "community_id" not in alert["network"]


def _by_attacker(alert: dict[str, Any]) -> bool:
    return bool(alert["source"]["mac"] == MACS[ATTACKER].upper().replace(":", "-"))


def test_connections_shows_arp_when_asked(folder: Path) -> None:
    asked = called("connections", folder / "scan.pcap", "--link-layer")
    rows = [json.loads(line) for line in asked.stdout.splitlines()]
    (found,) = (row for row in rows if (row["id.orig_h"], row["id.resp_h"]) == (MACS[ATTACKER], EVERYBODY))
    assert (found["proto"], found["orig_pkts"] >= 254) == ("arp", True)
    assert not {"id.orig_p", "id.resp_p", "community_id", "ip_proto"} & found.keys()
    assert '"arp"' not in called("connections", folder / "scan.pcap").stdout
