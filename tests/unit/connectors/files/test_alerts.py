"""Alerts as documents of the Elastic Common Schema, version 8.11."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.files.alerts import JsonLines, to_ecs
from engine.scoring.columns import as_dicts, score_table
from engine.types import ICMP, ICMP6
from tests.support.batches import batch

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")  # ECS: date; nanoseconds kept

# Fields of ECS 8.11 (elastic.co/guide/en/ecs/8.11) that a document may have, with their types there.
ECS = {
    "@timestamp": "date", "ecs.version": "keyword", "event.kind": "keyword", "event.category": "keyword[]",
    "event.type": "keyword[]", "event.module": "keyword", "event.dataset": "keyword", "event.id": "keyword",
    "event.start": "date", "event.end": "date", "event.duration": "long", "observer.name": "keyword",
    "observer.type": "keyword", "observer.vendor": "keyword", "source.ip": "ip", "source.port": "long",
    "source.packets": "long", "source.bytes": "long", "destination.ip": "ip", "destination.port": "long",
    "destination.packets": "long", "destination.bytes": "long", "network.transport": "keyword",
    "network.iana_number": "keyword", "network.type": "keyword", "network.community_id": "keyword",
    "network.packets": "long", "network.bytes": "long", "related.ip": "ip[]", "rule.name": "keyword",
    "rule.category": "keyword",
}  # fmt: skip
KINDS = {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"}
TYPES = {  # event.type allowed for both of the categories network and intrusion_detection, or one of them
    "network": {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},
    "intrusion_detection": {"allowed", "denied", "info"},
}


def rows(**changes: Any) -> list[dict[str, Any]]:
    """Rows as the sink hands them over; ``changes`` to fields of connections."""
    one = batch(20, probes=2)
    for name, value in changes.items():
        one.rows[name] = value
    return as_dicts(score_table(one, {0: {}, 1: {"task": "http", "attack": "1"}}))


def flat(document: dict[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in document.items():
        out |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {at + key: value}
    return out


def is_of(kind: str, value: Any) -> bool:
    if kind.endswith("[]"):
        return isinstance(value, list) and all(is_of(kind[:-2], v) for v in value)
    if kind == "ip":
        return bool(ipaddress.ip_address(value))
    if kind == "long":
        return type(value) is int and 0 <= value < 1 << 63
    return isinstance(value, str) and (kind != "date" or TIME.fullmatch(value) is not None)


def test_every_field_is_of_ecs_with_its_type_or_our_own() -> None:
    for row in rows():
        document = json.loads(json.dumps(to_ecs(row, "sensor-1"), allow_nan=False))
        fields = {k: v for k, v in flat(document).items() if not k.startswith(("labels.", "wiresonde."))}
        assert fields.keys() <= ECS.keys()
        assert set(ECS) - set(fields) == set()
        for name, value in fields.items():
            assert is_of(ECS[name], value), (name, value)


def test_allowed_values_are_kept_to() -> None:
    document = to_ecs(rows()[0], "sensor-1")
    assert document["ecs"]["version"] == "8.11.0"
    assert document["event"]["kind"] in KINDS
    allowed = [TYPES[category] for category in document["event"]["category"]]
    assert set(document["event"]["type"]) <= set.union(*allowed)
    assert all(kinds & set(document["event"]["type"]) for kinds in allowed)
    assert document["network"]["type"] == "ipv4"
    assert document["network"]["transport"] == "tcp"
    assert document["network"]["iana_number"] == "6"


def test_the_community_id_is_that_of_the_specification() -> None:
    for row in rows():
        ends = sorted(
            (ipaddress.ip_address(row[f"id.{s}_h"]).packed, row[f"id.{s}_p"]) for s in ("orig", "resp")
        )
        data = (
            b"\0\0"
            + ends[0][0]
            + ends[1][0]
            + b"\x06\0"
            + b"".join(port.to_bytes(2, "big") for _, port in ends)
        )
        expected = "1:" + base64.b64encode(hashlib.sha1(data).digest()).decode()
        assert to_ecs(row, "s")["network"]["community_id"] == expected


def test_times_are_kept_to_the_nanosecond() -> None:
    row = rows(start=1_700_000_000_123_456_789, last=1_700_000_002_000_000_001)[0]
    row["peak_at"] = 1_700_000_001_000_000_007
    document = to_ecs(row, "s")
    assert document["@timestamp"] == "2023-11-14T22:13:21.000000007Z"
    assert document["event"]["start"] == "2023-11-14T22:13:20.123456789Z"
    assert document["event"]["end"] == "2023-11-14T22:13:22.000000001Z"
    assert document["event"]["duration"] == 1_876_543_212


def test_a_connection_of_one_packet_has_no_duration() -> None:
    row = rows(start=1_700_000_000_000_000_000, last=1_700_000_000_000_000_000)[0]
    event = to_ecs(row, "s")["event"]
    assert (event["duration"], event["start"]) == (0, event["end"])


def test_totals_are_the_sums_of_both_sides() -> None:
    for row in rows():
        document = to_ecs(row, "s")
        for unit in ("packets", "bytes"):
            assert document["network"][unit] == document["source"][unit] + document["destination"][unit] > 0


@pytest.mark.parametrize(
    ("proto", "name"), [(ICMP, "icmp"), (ICMP6, "ipv6-icmp"), (47, "gre"), (50, "esp"), (250, None)]
)
def test_what_has_no_ports_shows_none(proto: int, name: str | None) -> None:
    document = to_ecs(rows(proto=proto)[0], "s")
    assert "port" not in document["source"]
    assert "port" not in document["destination"]
    assert (document["network"].get("transport"), document["network"]["iana_number"]) == (name, str(proto))


@pytest.mark.parametrize(("proto", "name"), [(6, "tcp"), (17, "udp"), (132, "sctp"), (33, "dccp")])
def test_what_has_ports_shows_them(proto: int, name: str) -> None:
    document = to_ecs(rows(proto=proto, a_port=4000, b_port=80)[0], "s")
    assert document["network"]["transport"] == name
    assert {document["source"]["port"], document["destination"]["port"]} == {4000, 80}


def test_a_dot_in_a_labels_name_makes_no_object_of_it() -> None:
    row = rows()[0] | {"label.link.delay": "5"}
    assert to_ecs(row, "s")["labels"]["link_delay"] == "5"


def test_ipv6_is_named() -> None:
    document = to_ecs(rows(a_hi=np.uint64(0x20010DB8 << 32), b_hi=np.uint64(0x20010DB8 << 32))[0], "s")
    assert document["network"]["type"] == "ipv6"
    assert document["source"]["ip"].startswith("2001:db8:")


def test_labels_of_the_probe_are_keywords_and_absent_without_one() -> None:
    both = {row["probe"]: to_ecs(row, "s") for row in rows()}
    assert both[1]["labels"] == {"task": "http", "attack": "1"}
    assert "labels" not in both[0]


def test_our_own_fields_say_what_alarmed_and_where_it_stands_in_the_log() -> None:
    row = rows()[0]
    ours = to_ecs(row, "s")["wiresonde"]
    assert ours["score"] == row["score"]
    assert ours["uid"] == row["uid"]
    assert {"model", "version", "threshold", "partition", "offset", "final", "conn_state", "history"} <= set(
        ours
    )


def test_only_whole_lines_stand_in_the_file(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "a")
    file.write([{"a": 1}, {"b": "zwei\n"}])
    file.write([])
    assert (tmp_path / "a").read_bytes() == b'{"a":1}\n{"b":"zwei\\n"}\n'
    file.close()
    assert (tmp_path / "a").read_bytes() == b'{"a":1}\n{"b":"zwei\\n"}\n'
