"""Captures and label files of DetGen become label rows; what is odd about them is said, and is no error."""

from __future__ import annotations

from pathlib import Path

import pytest

from probing.imports.detgen import Name, Problem, import_folder, parse_name
from probing.imports.detgen_scenarios import SCENARIOS, scenario_of
from tests.support.capture_bytes import pcap
from tests.support.detgen_files import SECOND, SSH, T0, TIME, capture, label_file, packet, ssh

# names


@pytest.mark.parametrize(
    ("name", "host", "scenario", "repetition"),
    [
        # as in fusion/test of DetGen's repository
        ("dump-020-nginx-server-2024-03-20_11-49-26-1.pcap", "020-nginx-server", None, 1),
        ("dump-042-apachessl-rsyslog-server-2024-03-24_18-05-23-3.pcap", "042-apachessl-rsyslog-server", None, 3),
        ("dump-270-path_traversal_apache-server-2024-03-20_16-42-34-18.pcap", "270-path_traversal_apache-server", None,
         18),
        # as its composition files and container images make them
        ("dump-090-sshd-client-sc3-2021-03-10_19-13-15-12.pcap", "090-sshd-client", 3, 12),
        ("dump-080-syncthing2-2021-03-10_19-13-15-sc6-1.pcap", "080-syncthing2", 6, 1),
        ("dump-080-syncthing3-2021-03-10_19-13-15.pcap", "080-syncthing3", None, None),
        ("dump-0190-mpd-client-2021-03-10_19-13-15-2.pcap", "0190-mpd-client", None, 2),
        ("dump-140-admin-2021-03-10_19-13-15-sc0-1.pcap", "140-admin", 0, 1),
        ("dump-dump-022-wget_443-2021-03-10_19-13-15-sc1-4.pcap", "022-wget_443", 1, 4),
        ("dump-240-nginx_rtmp_host-2021-03-10_19-13-15-1.pcap.gz", "240-nginx_rtmp_host", None, 1),
        ("dump-050-vsftpd-server-2021-03-10_19:13:15-sc-7.pcapng", "050-vsftpd-server", None, 7),
        ("dump-dump-020-siege-2021-03-10_19-13-15-sc4-.pcap", "020-siege", None, 4),  # SCENARIO was not set
    ],
)  # fmt: skip
def test_names_of_captures_are_read_in_all_their_variants(
    name: str, host: str, scenario: int | None, repetition: int | None
) -> None:
    found = parse_name(name)
    assert found is not None
    assert found == Name(host, found.time, scenario, repetition)
    assert found.time in (
        TIME,
        *(t for t in ("2024-03-20_11-49-26", "2024-03-24_18-05-23", "2024-03-20_16-42-34")),
    )


@pytest.mark.parametrize(
    "name", ["dump.pcap", "demo.pcap.zst", "dump-020-nginx-server-1.pcap", f"x-{TIME}-1.txt"]
)
def test_other_names_are_none_of_its(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize(
    ("directory", "host", "number"),
    [
        ("capture-090-openssh", "", 90), ("capture-041-apachewget", "", 41),
        ("capture-150-insecureSQLwithXSS", "", 150),
        ("", "090-sshd-server", 90), ("", "0190-mpd-server", 190), ("", "100-ircd-server", 100),
        ("", "130-heartbleed-client", 120), ("", "110-backdoor-nginx-cnc", 160), ("", "110-vuln-nginx-server", 110),
        ("capture-130-bittorrent", "130-heartbleed-client", 130), ("capture-140-secureSQL", "150-sql", 140),
    ],
)  # fmt: skip
def test_the_scenario_is_that_of_the_folder_then_that_of_the_name(
    directory: str, host: str, number: int
) -> None:
    assert scenario_of(directory, host) == SCENARIOS[number]


@pytest.mark.parametrize(("directory", "host"), [("", ""), ("", "sshd"), ("capture-999-new", "998-new")])
def test_an_unknown_scenario_is_none(directory: str, host: str) -> None:
    assert scenario_of(directory, host) is None


# labels


def test_a_run_is_labelled_in_our_names_and_units(tmp_path: Path) -> None:
    found = ssh(tmp_path)
    assert found.problems == []
    assert found.captures == 1
    assert found.rows == [
        {
            "start": T0, "end": T0 + 2 * SECOND,
            "scenario": "090-openssh", "task": "ssh", "activity": "scp-up", "client_impl": "openssh",
            "server_impl": "openssh", "attack": 0, "attack_kind": "none", "delay_ms": 100.23, "jitter_ms": 20.5,
            "distribution": "pareto", "loss_pct": 0.05, "corrupt_pct": 0.012, "content_bytes": 4321,
            "filename_bytes": 9, "username_bytes": 12, "password_bytes": 8, "load_average": 0.52,
            "description": "Filetransfer Client to server with password", "run": f"090-openssh-{TIME}-1",
            "capture": f"dump-090-sshd-server-sc2-{TIME}-1.pcap",
        }
    ]  # fmt: skip


def test_what_was_not_set_is_not_labelled(tmp_path: Path) -> None:
    """As the scripts write it that neither emulate a network nor have a user interface."""
    capture(tmp_path / f"dump-100-ircd-server-{TIME}.pcap", packet(T0))
    label_file(tmp_path / f"-{TIME}-labels.csv", "1;;;;;;;;;;;;;")
    found = import_folder(tmp_path)
    assert found.problems == []
    (row,) = found.rows
    assert (row["scenario"], row["task"], row["activity"]) == ("100-irc", "chat", None)
    assert (
        not {"delay_ms", "jitter_ms", "distribution", "loss_pct", "content_bytes", "load_average"}
        & row.keys()
    )


def test_the_number_of_an_activity_stands_in_the_name_where_there_is_no_label_file(tmp_path: Path) -> None:
    capture(tmp_path / f"dump-080-syncthing-{TIME}-sc3-1.pcap", packet(T0))
    capture(tmp_path / f"dump-080-syncthing-{TIME}-sc9-2.pcap", packet(T0 + SECOND))
    found = import_folder(tmp_path)
    assert [row["activity"] for row in found.rows] == ["put-edit", "activity-9"]
    assert {problem.reason for problem in found.problems} == {
        "no label file has its capture time: labelled by its name only"
    }


def test_attacks_are_labelled_so(tmp_path: Path) -> None:
    capture(tmp_path / f"dump-150-apache-{TIME}-sc2-1.pcap", packet(T0, dport=80))
    row = import_folder(tmp_path).rows[-1]
    assert (row["attack"], row["attack_kind"], row["activity"]) == (1, "sql-injection", "tautology")


def test_of_a_scenario_that_nobody_knows_nothing_is_claimed(tmp_path: Path) -> None:
    path = capture(tmp_path / f"dump-998-new-{TIME}-1.pcap", packet(T0))
    found = import_folder(tmp_path)
    (row,) = found.rows
    assert (row["scenario"], row["task"], row["attack"], row["attack_kind"]) == ("998-new", None, None, None)
    assert Problem(path, "scenario '998-new' is unknown: labelled by its name only") in found.problems


def test_the_folder_of_a_capture_says_its_scenario(tmp_path: Path) -> None:
    capture(tmp_path / "capture-140-secureSQL" / "data" / f"dump-150-sql-{TIME}-1.pcap", packet(T0))
    (row,) = import_folder(tmp_path).rows
    assert row["scenario"] == "140-securesql"


def test_each_repetition_has_its_row(tmp_path: Path) -> None:
    for k in (1, 2, 12):
        capture(tmp_path / f"dump-090-sshd-server-sc1-{TIME}-{k}.pcap", packet(T0 + 60 * k * SECOND))
    label_file(
        tmp_path / f"capture-090-openssh-{TIME}-labels.csv", SSH, "2" + SSH[1:].replace(";4321;", ";5;")
    )
    found = import_folder(tmp_path)
    assert [row.get("content_bytes") for row in found.rows] == [4321, 5, None]
    assert [p.reason for p in found.problems] == [
        f"no row for repetition 12 in capture-090-openssh-{TIME}-labels.csv: labelled by its name only"
    ]


def test_a_capture_without_repetition_is_the_last_one(tmp_path: Path) -> None:
    capture(tmp_path / f"dump-080-syncthing-{TIME}.pcap", packet(T0))
    label_file(
        tmp_path / f"capture-080-syncthing-{TIME}-labels.csv", "1;;1;10;;;;;;;;;2;", "2;;1;20;;;;;;;;;3;"
    )
    (row,) = import_folder(tmp_path).rows
    assert (row["content_bytes"], row["activity"], row["run"]) == (20, "put-edit", f"080-syncthing-{TIME}-2")


def test_two_scripts_that_began_in_the_same_second_are_told_apart(tmp_path: Path) -> None:
    for name in ("090-sshd-server", "080-syncthing"):
        capture(tmp_path / f"dump-{name}-{TIME}-1.pcap", packet(T0))
    label_file(
        tmp_path / f"capture-080-syncthing-{TIME}-labels.csv", "1;capture-080-syncthing;;80;;;;;;;;;1;"
    )
    label_file(tmp_path / f"capture-090-openssh-{TIME}-labels.csv", "1;capture-090-openssh;;90;;;;;;;;;1;")
    found = import_folder(tmp_path)
    assert {(row["scenario"], row["content_bytes"]) for row in found.rows} == {
        ("080-syncthing", 80),
        ("090-openssh", 90),
    }


def test_a_label_file_beside_the_capture_goes_before_another(tmp_path: Path) -> None:
    for folder, size in (("one", 1), ("other", 2)):
        capture(tmp_path / folder / f"dump-090-sshd-server-{TIME}-1.pcap", packet(T0 + size))
        label_file(tmp_path / folder / f"-{TIME}-labels.csv", f"1;;;{size};;;;;;;;;1;")
    assert [row["content_bytes"] for row in import_folder(tmp_path).rows] == [1, 2]


def test_rows_that_contradict_each_other_are_said(tmp_path: Path) -> None:
    found = ssh(tmp_path, SSH, SSH.replace(";4321;", ";5;"))
    assert found.rows[0]["content_bytes"] == 4321
    assert [p.reason for p in found.problems] == [
        "2 rows of label files fit, and they differ: the first is used"
    ]


# captures


def test_a_damaged_capture_is_labelled_as_far_as_it_goes(tmp_path: Path) -> None:
    path = capture(tmp_path / f"dump-090-sshd-server-sc1-{TIME}-1.pcap", packet(T0), packet(T0 + SECOND))
    path.write_bytes(path.read_bytes()[:-7])
    found = import_folder(tmp_path)
    assert [(row["start"], row["end"]) for row in found.rows] == [(T0, T0)]
    assert any(p.file == path and "byte" in p.reason for p in found.problems)


@pytest.mark.parametrize("data", [pcap([]), b"", b"no capture"])
def test_a_capture_without_packets_has_no_row(tmp_path: Path, data: bytes) -> None:
    ssh(tmp_path)
    path = tmp_path / f"dump-090-sshd-client-sc2-{TIME}-1.pcap"
    path.write_bytes(data)
    found = import_folder(tmp_path)
    assert (len(found.rows), found.captures) == (1, 1)
    assert Problem(path, "no packets, so no row") in found.problems


def test_a_capture_of_another_name_has_no_row(tmp_path: Path) -> None:
    path = capture(tmp_path / "other.pcap", packet(T0))
    found = ssh(tmp_path)
    assert len(found.rows) == 1
    assert found.problems == [Problem(path, "no capture time in its name: not made by DetGen")]


def test_packets_out_of_order_do_not_shorten_the_time(tmp_path: Path) -> None:
    capture(tmp_path / f"dump-090-sshd-server-{TIME}-1.pcap", packet(T0 + SECOND), packet(T0), packet(T0 + 2))
    (row,) = import_folder(tmp_path).rows
    assert (row["start"], row["end"]) == (T0, T0 + SECOND)


def test_captures_of_the_same_time_with_other_labels_are_said(tmp_path: Path) -> None:
    capture(tmp_path / f"dump-090-sshd-server-sc1-{TIME}-1.pcap", packet(T0), packet(T0 + 9 * SECOND))
    capture(tmp_path / f"dump-090-sshd-client-sc1-{TIME}-1.pcap", packet(T0 + 1), packet(T0 + 8 * SECOND))
    other = capture(
        tmp_path / "dump-080-syncthing-2021-03-10_19-13-20-sc1-1.pcap", packet(T0 + 2), packet(T0 + SECOND)
    )
    reasons = [p.reason for p in import_folder(tmp_path).problems if "overlaps" in p.reason]
    assert reasons == [
        f"its time overlaps that of dump-090-sshd-server-sc1-{TIME}-1.pcap, which has other labels: "
        "use --per connection"
    ]
    other.unlink()
    assert not any("overlaps" in p.reason for p in import_folder(tmp_path).problems)


def test_connections_are_labelled_each(tmp_path: Path) -> None:
    """Those seen at both containers once, with the times of both."""
    capture(
        tmp_path / f"dump-090-sshd-server-sc2-{TIME}-1.pcap",
        packet(T0), packet(T0 + SECOND + 20, back=True, flags=18), packet(T0 + 5 * SECOND, 40001),
    )  # fmt: skip
    capture(
        tmp_path / f"dump-090-sshd-client-sc2-{TIME}-1.pcap",
        packet(T0 - 9),
        packet(T0 + SECOND + 9, back=True, flags=18),
    )
    label_file(tmp_path / f"capture-090-openssh-{TIME}-labels.csv", SSH)
    found = import_folder(tmp_path, "connection")
    assert found.problems == []
    keys = ("src", "sport", "dst", "dport", "proto", "start", "end", "activity", "delay_ms")
    assert [tuple(row[key] for key in keys) for row in found.rows] == [
        ("10.0.0.2", 40000, "10.0.0.1", 22, "tcp", T0 - 9, T0 + SECOND + 20, "scp-up", 100.23),
        ("10.0.0.2", 40001, "10.0.0.1", 22, "tcp", T0 + 5 * SECOND, T0 + 5 * SECOND, "scp-up", 100.23),
    ]
    assert found.captures == 2
