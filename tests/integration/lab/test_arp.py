"""A segment of the lab whose hosts find each other by ARP; a scan and a man in the middle on it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.commands.reading import Choice, read_connection_tables
from engine.config import Config
from engine.connections.record import json_lines
from engine.types import KIND_MASK, Kind
from probing.lab import labels
from probing.lab.run import How
from tests.integration.live.ring import of_file
from tests.support.calls import called
from tests.support.lab import Done, perform

pytestmark = [pytest.mark.lab, pytest.mark.compiled]

EVERYBODY = "ff:ff:ff:ff:ff:ff"
ENTRY: dict[str, Any] = {"scenario": "arp", "server": "nginx", "parameters": {"quiet_s": 1.5, "attack_s": 3}}


def macs(done: Done) -> tuple[str, str, list[str]]:
    """MACs of server, attacker and the others."""

    def mac(last: int, number: int) -> str:
        return f"02:77:{done.run.number >> 8:02x}:{done.run.number & 255:02x}:{last:02x}:{number:02x}"

    return mac(1, 1), mac(10, 2), [mac(11, 3), mac(12, 4)]


def records(done: Done) -> list[dict[str, Any]]:
    """The records of ARP in the capture."""
    tables = read_connection_tables([done.capture()], Config(), choice=Choice(link_layer=True))
    found = [json.loads(line) for table in tables for line in json_lines(table)]
    return [record for record in found if record["proto"] == "arp"]


def rows_of(done: Done) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of ARP by pair of MACs. Each is one record of the capture, with as many frames either way."""
    rows = {(row["src"], row["dst"]): row for row in done.rows if row["proto"] == "arp"}
    seen = Counter((c["id.orig_h"], c["id.resp_h"], c["orig_pkts"], c["resp_pkts"]) for c in records(done))
    assert seen == Counter((*pair, row["packets_up"], row["packets_down"]) for pair, row in rows.items())
    assert len(rows) == sum(row["proto"] == "arp" for row in done.rows)
    frames = int(np.count_nonzero((of_file(done.capture()).kind & KIND_MASK) == Kind.ARP))
    assert frames == sum(row["packets_up"] + row["packets_down"] for row in rows.values()), (
        "each is seen once"
    )
    kept = pq.read_table(done.folder / "client.frames.parquet", columns=["verdict", "duplicated"])
    assert Counter(map(tuple, map(dict.values, kept.to_pylist()))) == {
        ("sent", False): done.account["packets"]["client"]
    }
    assert done.account["failed_samples"] == 0
    assert all(row["succeeded"] for row in done.rows)
    return rows


def diverted(done: Done, mac: str, since: int) -> int:
    """The number of IP packets to the server's address that went to this MAC since a time."""
    p = of_file(done.capture())
    server = int.from_bytes(bytes([10, *divmod(done.run.number, 256), 1]), "big") | 0xFFFF << 32
    there = ((p.kind & KIND_MASK) == Kind.IPV4) & (p.dst_lo == server) & (p.ts > since)
    return int(np.count_nonzero(there & (p.dst_mac == int(mac.replace(":", ""), 16))))


def ports_diverted(done: Done, mac: str) -> set[int]:
    """The hosts' ports of connections between others of which a frame went to this MAC."""
    p = of_file(done.capture())
    attacker = int.from_bytes(bytes([10, *divmod(done.run.number, 256), 10]), "big") | 0xFFFF << 32
    others = (p.proto == 6) & (p.src_lo != attacker) & (p.dst_lo != attacker)
    there = others & (p.dst_mac == int(mac.replace(":", ""), 16))
    return {int(port) for port in np.where(p.dport[there] == 80, p.sport[there], p.dport[there])}


def attack_begins(done: Done) -> int:
    """The time at which the attack begins."""
    return int(dict(json.loads(done.rows[0]["phases"]))["attack"])


def test_ordinary_hosts_ask_for_each_other(tmp_path: Path) -> None:
    (done,) = perform(tmp_path, ENTRY | {"activity": "visits"})
    server, first, others = macs(done)
    found = rows_of(done)
    assert {(mac, EVERYBODY) for mac in (first, *others)} <= found.keys()
    assert {(server, mac) for mac in (first, *others)} <= found.keys()
    assert {row["attack"] for row in done.rows} == {0}
    assert diverted(done, first, 0) == 0


def test_a_scan_asks_for_every_address(tmp_path: Path) -> None:
    (done,) = perform(tmp_path, ENTRY | {"activity": "arp-scan"})
    server, attacker, others = macs(done)
    found = rows_of(done)
    assert found[attacker, EVERYBODY]["packets_up"] >= 253
    assert {(mac, attacker) for mac in (server, *others)} <= found.keys()
    for pair, row in found.items():
        assert (row["attack"], row["activity"]) == ((1, "arp-scan") if attacker in pair else (0, "visits"))
    assert {row["attack"] for row in done.rows if row["proto"] == "tcp"} == {0}


def check_what_is_part_of_the_attack(done: Done) -> None:
    """What passes through the man in the middle is, and nothing else."""
    _, attacker, _ = macs(done)
    found, begins = rows_of(done), attack_begins(done)
    assert diverted(done, attacker, 0) == diverted(done, attacker, begins) > 100
    for pair, row in found.items():
        assert row["attack"] == row["carries_attack"] == (attacker in pair), pair
    visits = [row for row in done.rows if row["proto"] == "tcp"]
    assert {row["sport"] for row in visits if row["attack"]} == ports_diverted(done, attacker)
    after = [row["attack"] for row in visits if row["start"] > begins]
    assert sum(after) > len(after) / 2
    assert not any(row["attack"] or row["carries_attack"] for row in visits if row["start"] < begins)


def test_a_man_in_the_middle_by_gratuitous_requests_is_labelled_by_what_passes_through_him(
    tmp_path: Path,
) -> None:
    (done,) = perform(tmp_path, ENTRY | {"activity": "arp-mitm-gratuitous"})
    _, attacker, others = macs(done)
    check_what_is_part_of_the_attack(done)
    assert rows_of(done)[attacker, EVERYBODY]["packets_up"] > 3 * len(others)


def test_a_man_in_the_middle_stands_out_for_a_model_of_the_time_before(tmp_path: Path) -> None:
    parameters = {"quiet_s": 6, "attack_s": 4, "pause_ms": 20}
    (done,) = perform(tmp_path, ENTRY | {"activity": "arp-mitm", "parameters": parameters})
    _, attacker, others = macs(done)
    begins, known = attack_begins(done), tmp_path / "labels.parquet"
    pq.write_table(labels.table(done.rows), known)
    before = int(np.count_nonzero(of_file(done.capture()).ts < begins))
    assert before > 2000
    check_what_is_part_of_the_attack(done)
    found = rows_of(done)
    for mac in others:
        row = found.get((attacker, mac)) or found[mac, attacker]
        assert row["packets_up"] + row["packets_down"] > 5
    bundle = tmp_path / "quiet.safetensors"
    trained = called("train", "kitsune", done.capture(), "--learn", str(before), "-o", bundle)
    assert trained.exit_code == 0, trained.stderr
    words = ("--model", bundle, "--labels", known, "--out", tmp_path / "scores")
    scored = called("score", done.capture(), *words)
    assert scored.exit_code == 0, scored.stderr
    columns = ["final", "proto", "id.orig_h", "id.resp_h", "score", "alarm", "label.attack"]
    rows = pq.read_table(tmp_path / "scores" / "scores.parquet", columns=columns).to_pylist()
    rows = [row for row in rows if row["final"] and row["score"] is not None]
    assert all(row["label.attack"] is not None for row in rows), "every row has its labels, by MAC too"
    odd = sorted(rows, key=lambda row: -row["score"])[:3]
    assert {(row["proto"], row["label.attack"], row["alarm"]) for row in odd} == {("arp", "1", True)}
    pairs = [{row["id.orig_h"], row["id.resp_h"]} for row in odd]
    assert all({attacker, mac} in pairs for mac in others)
    benign = [row["score"] for row in rows if row["label.attack"] == "0"]
    assert odd[-1]["score"] > max(benign)


def test_queues_of_the_kernel_do_not_carry_arp(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="only the link in user space carries ARP"):
        perform(tmp_path, ENTRY | {"activity": "visits"}, how=How(link="tbf"))
