"""The attacks of CIC-IDS2017: their times in UTC, their addresses, and what they mean to packets."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.commands.reading import frames, read_packets
from engine.headers.decode import decode
from engine.labels.file import read_labels
from probing.imports.cicids import (
    ATTACKS,
    DAYS,
    FLOW,
    KALI,
    NAT,
    VISTA,
    WEB,
    Windows,
    label_rows,
    local_windows,
)
from tests.support.captures import CAPTURES, needs_captures
from tests.support.detgen_files import capture, spoken

EXCERPT = CAPTURES / "attack" / "ndpi__WebattackSQLinj.pcap"
MINUTE = 60_000_000_000


def utc(day: int, hour: int, minute: int) -> int:
    return int(datetime(2017, 7, day, hour, minute, tzinfo=UTC).timestamp()) * 1_000_000_000


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["lab", "import", "cicids2017", *map(str, arguments)])


def rows_of(activity: str, windows: Windows = "published") -> list[dict[str, Any]]:
    return [row for row in label_rows(windows) if row["activity"] == activity]


def test_local_time_is_three_hours_behind_utc_and_the_last_minute_is_whole() -> None:
    assert local_windows(6, "10:40-10:42 14:19-14:19") == (
        (utc(6, 13, 40), utc(6, 13, 43) - 1),
        (utc(6, 17, 19), utc(6, 17, 20) - 1),
    )


def test_the_days_are_those_of_the_week() -> None:
    assert {day: datetime(2017, 7, day).strftime("%A").lower() for day in DAYS} == DAYS
    for windows in ("published", "corrected"):
        for row in label_rows(windows):
            assert {
                datetime.fromtimestamp(row[k] // 10**9, UTC).strftime("%A").lower() for k in ("start", "end")
            } == {row["group"]}


def test_every_published_attack_is_there() -> None:
    days: dict[str, set[str]] = {}
    for row in label_rows():
        days.setdefault(row["group"], set()).add(row["activity"])
    assert days == {
        "tuesday": {"ftp-patator", "ssh-patator"},
        "wednesday": {"slowloris", "slowhttptest", "hulk", "goldeneye", "heartbleed"},
        "thursday": {
            "web-brute-force", "web-xss", "web-sql-injection", "infiltration-dropbox", "infiltration-cool-disk",
            "infiltration-scan",
        },
        "friday": {"botnet-ares", "port-scan", "ddos-loit"},
    }  # fmt: skip
    assert len(local_windows(7, next(a.published for a in ATTACKS if a.activity == "port-scan"))) == 27


def test_a_row_says_who_attacked_whom_how() -> None:
    row = next(row for row in rows_of("ftp-patator") if row["src"] == NAT)
    assert row == {
        "src": NAT, "dst": WEB, "dport": 21, "proto": "tcp", "start": utc(4, 12, 20), "end": utc(4, 13, 21) - 1,
        "scenario": "cicids2017", "task": "login", "activity": "ftp-patator", "client_impl": "patator", "attack": 1,
        "attack_kind": "password-guessing", "group": "tuesday",
    }  # fmt: skip


def test_attacks_from_outside_are_labelled_by_both_of_the_attackers_addresses() -> None:
    assert {row["src"] for row in rows_of("hulk")} == {NAT, KALI}
    assert {row["src"] for row in rows_of("infiltration-scan")} == {VISTA}
    assert {(row["src"], row["dst"]) for row in rows_of("botnet-ares")} >= {
        (VISTA, KALI),
        ("192.168.10.15", KALI),
    }


def test_windows_of_a_pair_do_not_overlap() -> None:
    """Otherwise the one that begins last would take what is another's."""
    for windows in ("published", "corrected"):
        last: dict[tuple[str, str], tuple[int, str]] = {}
        for row in label_rows(windows):
            pair = row["src"], row["dst"]
            if pair in last:
                assert row["start"] > last[pair][0], (row["activity"], last[pair][1])
            last[pair] = row["end"], row["activity"]


def test_the_two_accounts_are_of_the_same_attacks() -> None:
    """Both begin within minutes of each other, but for SSH-Patator and for the scan, which had a first round."""
    for attack in ATTACKS:
        if attack.published:
            known = local_windows(attack.day, attack.published)
            assert all(start < end for start, end in attack.corrected)
            assert any(start <= b and a <= end for start, end in attack.corrected for a, b in known)
            apart = 32 if attack.activity in ("ssh-patator", "infiltration-scan") else 6
            assert abs(attack.corrected[0][0] - known[0][0]) < apart * MINUTE


def tagged(path: Path, labels: Path) -> list[str | None]:
    """The label ``attack_kind`` of each packet."""
    known = read_labels(labels)
    probes = [k for p in read_packets([path]) for k in known.tag(p).probe.tolist()]
    return [known.probes[k].get("attack_kind") for k in probes]


@pytest.mark.parametrize("activity", ["ftp-patator", "web-sql-injection", "slowloris", "port-scan"])
def test_a_connection_that_outlasts_its_window_is_an_attack_to_its_last_ack(
    activity: str, tmp_path: Path
) -> None:
    attack = next(a for a in ATTACKS if a.activity == activity)
    src, dst = (int.from_bytes(socket.inet_aton(a), "big") for a in (NAT, WEB))
    _, end = attack.corrected[-1]
    port = attack.port or 8000
    path = capture(tmp_path / "c.pcap", *spoken(end, src, dst, 40001, port))
    command("-o", tmp_path / "labels.csv", "--windows", "corrected", "--benign")
    assert tagged(path, tmp_path / "labels.csv") == [attack.kind] * 8
    capture(path, *spoken(end + FLOW + 1, src, dst, 40001, port))
    assert tagged(path, tmp_path / "labels.csv") == ["none"] * 8


def test_a_row_gives_way_to_the_next_attack_of_its_pair(tmp_path: Path) -> None:
    xss = next(a for a in ATTACKS if a.activity == "web-xss")
    sql = next(a for a in ATTACKS if a.activity == "web-sql-injection")
    assert xss.corrected[-1][1] + FLOW > sql.corrected[0][0]
    src, dst = (int.from_bytes(socket.inet_aton(a), "big") for a in (NAT, WEB))
    path = capture(tmp_path / "c.pcap", *spoken(sql.corrected[0][0], src, dst, 40001))
    command("-o", tmp_path / "labels.csv", "--windows", "corrected")
    assert tagged(path, tmp_path / "labels.csv") == [sql.kind] * 8


@needs_captures
@pytest.mark.captures
@pytest.mark.parametrize("windows", ["published", "corrected"])
def test_the_excerpt_of_the_sql_injection_is_labelled_so(tmp_path: Path, windows: str) -> None:
    assert command("-o", tmp_path / "labels.parquet", "--windows", windows, "--benign").exit_code == 0
    known = read_labels(tmp_path / "labels.parquet")
    tagged = [known.tag(decode(block)) for block in frames([EXCERPT], 4096)]
    probes = np.concatenate([p.probe for p in tagged])
    assert probes.size == 94
    (probe,) = np.unique(probes).tolist()
    assert known.probes[probe] == {
        "scenario": "cicids2017", "task": "sql", "activity": "web-sql-injection", "attack": "1",
        "attack_kind": "sql-injection", "group": "thursday",
    }  # fmt: skip


def test_the_rest_of_a_day_is_no_attack_when_asked_for() -> None:
    rest = [row for row in label_rows(benign=True) if not row["attack"]]
    assert [row["group"] for row in rest] == list(DAYS.values())
    for row in rest:
        day = [r for r in label_rows(benign=True) if r["group"] == row["group"]]
        assert (
            min(r["start"] for r in day if r is not row) >= row["start"]
        )  # attacks begin later: they are preferred
        assert max(r["end"] for r in day) == row["end"]
    assert all(row["attack"] for row in label_rows())


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv"])
@pytest.mark.parametrize("windows", ["published", "corrected"])
def test_the_command_writes_what_labels_reads(tmp_path: Path, name: str, windows: Windows) -> None:
    result = command("-o", tmp_path / name, "--windows", windows)
    assert result.exit_code == 0, result.stderr
    rows = label_rows(windows)
    assert result.stderr == f"{tmp_path / name}: {len(rows)} rows\n"
    known = read_labels(tmp_path / name)
    assert sorted(known.rules["start"].tolist()) == [row["start"] for row in rows]
    assert sorted(known.rules["end"].tolist()) == sorted(row["end"] for row in rows)
    kinds = {values.get("attack_kind") for probe, values in known.probes.items() if probe}
    assert kinds == {row["attack_kind"] for row in rows}


def test_times_in_parquet_are_times(tmp_path: Path) -> None:
    assert command("-o", tmp_path / "labels.parquet").exit_code == 0
    table = pq.read_table(tmp_path / "labels.parquet")
    assert str(table.schema.field("start").type) == "timestamp[ns, tz=UTC]"
    assert table.column_names == [
        "src", "sport", "dst", "dport", "proto", "start", "end", "scenario", "task", "activity", "client_impl",
        "attack", "attack_kind", "group",
    ]  # fmt: skip


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    result = command("-o", tmp_path / "none" / "labels.csv")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr
