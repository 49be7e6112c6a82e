"""Captures and label files of DetGen become label rows; what is odd about them is said, and is no error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.errors import InputError
from engine.labels import read_labels
from engine.types import Kind
from probing.detgen import HEADER, Imported, Name, Problem, import_folder, parse_name, read_label_file
from probing.detgen_scenarios import SCENARIOS, scenario_of
from tests.capture_bytes import Record, pcap
from tests.captures import CAPTURES
from tests.frames import frame_of

TIME = "2021-03-10_19-13-15"
T0 = 1_615_403_600_000_000_000  # some seconds later
SECOND = 1_000_000_000
CLIENT, SERVER = 10 << 24 | 2, 10 << 24 | 1


def packet(at: int, sport: int = 40000, back: bool = False, flags: int = 2) -> Record:
    src, dst = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    ports = {"sport": 22, "dport": sport} if back else {"sport": sport, "dport": 22}
    frame = frame_of({
        "kind": Kind.IPV4, "src_mac": 1, "dst_mac": 2, "src_lo": src, "dst_lo": dst, "proto": 6, "payload": 0,
        "ip_id": 1, "ttl": 64, "seq": 1, "ack": 0, "tcp_flags": flags, "window": 1000, **ports,
    })  # fmt: skip
    return at, frame, len(frame)


def capture(path: Path, *packets: Record) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pcap(packets, magic=0xA1B23C4D))
    return path


def label_file(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in (header, *rows) if line))
    return path


SSH = "1;capture-090-openssh;9;4321;12;8;0.52;0100.23;020.5;0.05;0.012;;2;Filetransfer Client to server with password"


def ssh(folder: Path, *rows: str, name: str = "dump-090-sshd-server-sc2", **options: Any) -> Imported:
    """One capture of an SSH run, with a label file."""
    capture(folder / f"{name}-{TIME}-1.pcap", packet(T0), packet(T0 + 2 * SECOND, back=True, flags=18))
    label_file(folder / f"capture-090-openssh-{TIME}-labels.csv", *(rows or (SSH,)), **options)
    return import_folder(folder)


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
    capture(tmp_path / f"dump-150-apache-{TIME}-sc2-1.pcap", packet(T0))
    (row,) = import_folder(tmp_path).rows
    assert (row["attack"], row["attack_kind"], row["activity"]) == (1, "sql-injection", "tautology")


def test_of_a_scenario_that_nobody_knows_nothing_is_claimed(tmp_path: Path) -> None:
    path = capture(tmp_path / f"dump-998-new-{TIME}-1.pcap", packet(T0))
    found = import_folder(tmp_path)
    (row,) = found.rows
    assert (row["scenario"], row["task"], row["attack"], row["attack_kind"]) == ("998-new", None, None, None)
    assert Problem(path, "scenario '998-new' is not known: labelled by its name only") in found.problems


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
        "2 rows of label files are its own, and they differ: the first is taken"
    ]


# label files


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[Problem] = []
    runs = read_label_file(path, problems)
    assert all(problem.file == path for problem in problems)
    return [{"repetition": run.repetition, **run.values} for run in runs], [p.reason for p in problems]


@pytest.mark.parametrize("header", ["", HEADER, HEADER.replace(";", " ; ").upper()])
def test_the_header_may_be_missing_and_may_be_written_otherwise(tmp_path: Path, header: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH, header=header))
    assert (rows[0]["repetition"], rows[0]["delay_ms"]) == (1, 100.23)
    assert problems == []


def test_a_header_amid_rows_is_no_row(tmp_path: Path) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH, HEADER, "2" + SSH[1:]))
    assert [row["repetition"] for row in rows] == [1, 2]
    assert problems == []


def test_a_description_may_contain_what_separates_columns(tmp_path: Path) -> None:
    rows, _ = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH + "; then ls"))
    assert rows[0]["description"] == "Filetransfer Client to server with password; then ls"


def test_a_decimal_comma_is_read(tmp_path: Path) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH.replace("0.52", "0,52")))
    assert rows[0]["load_average"] == 0.52
    assert problems == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (SSH.replace(";0.52;", ";average;"), "load 'average' is no number: left empty"),
        (SSH.replace(";0.05;", ";101;"), "mean loss 101 is not from 0 to 100: left empty"),
        (SSH.replace(";4321;", ";-3;"), "file-length -3 is not from 0 to inf: left empty"),
        (SSH.replace(";020.5;", ";inf;"), "latency variance inf is not from 0 to inf: left empty"),
        (SSH.replace(";020.5;", ";nan;"), "latency variance nan is not from 0 to inf: left empty"),
    ],
)
def test_a_value_that_cannot_be_is_left_empty(tmp_path: Path, row: str, reason: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", row))
    whole, _ = read(label_file(tmp_path / f"-{TIME}-labels.csv", SSH))
    assert problems == [reason]
    assert len(rows[0]) == len(whole[0]) - 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (";" + SSH.split(";", 1)[1], "row 2: REPNUM '' is no number: left out"),
        ("1;capture-090-openssh;9", "row 2 has 3 of 14 columns: left out"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out(tmp_path: Path, row: str, reason: str) -> None:
    rows, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", row, SSH))
    assert [r["repetition"] for r in rows] == [1]
    assert problems == [reason]


def test_the_same_oddity_is_said_once(tmp_path: Path) -> None:
    odd = SSH.replace(";0.52;", ";average;")
    _, problems = read(label_file(tmp_path / f"-{TIME}-labels.csv", odd, "2" + odd[1:]))
    assert problems == ["load 'average' is no number: left empty (2 rows)"]


def test_a_label_file_without_a_time_and_one_of_other_bytes_are_said(tmp_path: Path) -> None:
    assert read(label_file(tmp_path / "my-labels.csv", SSH)) == ([], ["no capture time in its name"])
    path = tmp_path / f"-{TIME}-labels.csv"
    path.write_bytes(b"\x00\xff;\n" * 3)
    rows, problems = read(path)
    assert rows == []
    assert len(problems) == 3


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
    assert Problem(path, "no packets: no row") in found.problems


def test_a_capture_of_another_name_has_no_row(tmp_path: Path) -> None:
    path = capture(tmp_path / "other.pcap", packet(T0))
    found = ssh(tmp_path)
    assert len(found.rows) == 1
    assert found.problems == [Problem(path, "no capture time in its name: none of DetGen's")]


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
        f"its time overlaps that of dump-090-sshd-server-sc1-{TIME}-1.pcap, which has other labels: label by connection"
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


# the command


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["lab", "import", "detgen", *map(str, arguments)])


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv"])
@pytest.mark.parametrize("per", ["capture", "connection"])
def test_the_command_writes_what_labels_reads(tmp_path: Path, name: str, per: str) -> None:
    ssh(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / name, "--per", per)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"{tmp_path / name}: 1 rows for 1 captures\n"
    known = read_labels(tmp_path / name)
    assert known.patterns == (per == "capture")
    (labels,) = (values for probe, values in known.probes.items() if probe)
    assert labels == {
        "scenario": "090-openssh", "task": "ssh", "activity": "scp-up", "client_impl": "openssh",
        "server_impl": "openssh", "attack": "0", "attack_kind": "none", "delay_ms": "100.23", "jitter_ms": "20.5",
        "distribution": "pareto", "loss_pct": "0.05", "corrupt_pct": "0.012",
    }  # fmt: skip
    rule = known.rules[0]
    assert (rule["start"], rule["end"]) == (T0, T0 + 2 * SECOND)


def test_parquet_also_has_what_is_no_label(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    assert command(tmp_path / "data", "-o", tmp_path / "labels.parquet").exit_code == 0
    (row,) = pq.read_table(tmp_path / "labels.parquet").drop_columns(["start", "end"]).to_pylist()
    assert (row["content_bytes"], row["load_average"], row["run"]) == (4321, 0.52, f"090-openssh-{TIME}-1")


def test_the_command_says_what_it_could_not_use(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    capture(tmp_path / "data" / "other.pcap", packet(T0))
    result = command(tmp_path / "data", "-o", tmp_path / "labels.csv")
    assert result.exit_code == 0
    assert "other.pcap: no capture time in its name: none of DetGen's" in result.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path, "no such folder"),
        (lambda folder: folder.mkdir(), "no captures"),
        (lambda folder: capture(folder / "other.pcap", packet(T0)), "no capture could be labelled"),
    ],
)
def test_the_command_fails_where_there_is_nothing_to_label(tmp_path: Path, make: Any, says: str) -> None:
    make(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / "labels.csv")
    assert result.exit_code == 1
    assert f"{tmp_path / 'data'}: {says}" in result.stderr
    assert not (tmp_path / "labels.csv").exists()


def test_a_file_of_another_kind_is_not_written(tmp_path: Path) -> None:
    ssh(tmp_path / "data")
    result = command(tmp_path / "data", "-o", tmp_path / "labels.txt")
    assert result.exit_code == 2
    assert "ends with .parquet or .csv" in result.stderr


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        import_folder(tmp_path / "none")


@pytest.mark.captures
def test_captures_that_detgen_made_are_labelled(tmp_path: Path) -> None:
    paths = [path for path in CAPTURES.rglob("dump-*") if parse_name(path.name)]
    if not paths:
        pytest.skip(f"no captures of DetGen in {CAPTURES} (set WIRESONDE_CAPTURES)")
    for k, path in enumerate(paths):  # names are not unique across folders
        (tmp_path / str(k)).mkdir()
        (tmp_path / str(k) / path.name).symlink_to(path)
    found = import_folder(tmp_path)
    assert found.captures == len(paths)
    for row in found.rows:
        assert row["task"] is not None, row["capture"]
        assert 0 <= row["end"] - row["start"] < 3600 * SECOND
        assert row["attack"] in (0, 1)
