"""The command line: its help, packets and connections, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from engine import __version__
from engine.cli import main
from tests.support.calls import READERS, Line, N, called, misused, refused
from tests.support.demo import ROOT, piece
from tests.support.disks import listing, open_folder, small_disk, unprivileged

pytestmark = pytest.mark.compiled


def commands(
    group: click.Group = main, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, (*at, name))
        yield (*at, name), one


@pytest.mark.parametrize(("path", "one"), [pytest.param(p, c, id=" ".join(p)) for p, c in commands()])
def test_every_command_and_every_option_has_help(path: tuple[str, ...], one: click.Command) -> None:
    result = called(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert one.help
    for option in one.params:
        assert not isinstance(option, click.Option) or option.help or option.name == "kind", option.name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom engine.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numba', 'numpy', 'pyarrow', 'scipy', 'pydantic', 'yaml', 'rich', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "score" in done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert called("--version").stdout == f"wiresonde, version {__version__}\n"


@pytest.mark.parametrize("what", ["packets", "connections"])
def test_parquet_and_json_lines_agree(what: str, capture: Path, tmp_path: Path) -> None:
    assert called(what, capture, "--format", "parquet", "-o", tmp_path / "p").exit_code == 0
    assert called(what, capture, "--format", "jsonl", "-o", tmp_path / "j").exit_code == 0
    printed = called(what, capture)
    assert printed.stdout == (tmp_path / "j").read_text()
    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    table = pq.read_table(tmp_path / "p")
    assert table.num_rows == len(lines) > 100
    if what == "connections":  # whose time is a number of seconds, as Zeek writes it
        ns = table.column("ts").cast("int64").to_pylist()
        assert [f'{{"ts": {t // 10**9}.{t % 10**9:09d},' for t in ns] == [
            line.split(' "uid')[0] for line in printed.stdout.splitlines()
        ]
        table = table.drop_columns("ts")
        lines = [{k: v for k, v in line.items() if k != "ts"} for line in lines]
    rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    assert rows == lines
    assert listing(tmp_path) == ["j", "p"]


def test_packets_are_one_row_a_frame_with_nanoseconds(capture: Path) -> None:
    lines = [json.loads(line) for line in called("packets", capture).stdout.splitlines()]
    assert len(lines) == N
    assert all(type(line["ts"]) is int and line["ts"] > 10**18 for line in lines)
    assert {"src", "dst", "sport", "dport", "proto", "size", "tcp_flags", "reason", "network"} <= lines[
        50
    ].keys()


def test_several_captures_follow_one_another(capture: Path, tmp_path: Path) -> None:
    first, second = piece(tmp_path / "1.pcap", 100), piece(tmp_path / "2.pcap", 50, 100)
    both = called("packets", first, second).stdout
    assert both == called("packets", first).stdout + called("packets", second).stdout
    assert both.splitlines() == called("packets", capture).stdout.splitlines()[:150]


@pytest.mark.parametrize("what", ["packets", "connections"])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_capture_without_packets_gives_a_file_without_rows(what: str, kind: str, tmp_path: Path) -> None:
    empty = piece(tmp_path / "empty.pcap", 0)
    assert called(what, empty, "--format", kind, "-o", tmp_path / "out").exit_code == 0
    if kind == "parquet":
        assert pq.read_table(tmp_path / "out").num_rows == 0
    else:
        assert (tmp_path / "out").read_text() == ""


@pytest.mark.parametrize("what", ["packets", "connections"])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_what_came_before_the_damage_is_written(what: str, kind: str, damaged: Path, tmp_path: Path) -> None:
    whole = piece(tmp_path / "whole.pcap", N - 1)
    assert called(what, whole, "--format", kind, "-o", tmp_path / "expected").exit_code == 0
    result = called(what, damaged, "--format", kind, "-o", tmp_path / "got")
    refused(result, 1, "damaged.pcap: ")
    assert (tmp_path / "got").read_bytes() == (tmp_path / "expected").read_bytes()
    if kind == "jsonl":
        printed = called(what, damaged)
        assert printed.exit_code == 1
        assert printed.stdout == (tmp_path / "expected").read_text()


def test_parquet_needs_a_file(capture: Path) -> None:
    refused(called("packets", capture, "--format", "parquet"), 2, "--format parquet needs a file: give -o")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_link_to_a_file_stays_a_link(kind: str, capture: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert called("packets", capture, "--format", kind, "-o", tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_size > 0


def test_what_is_no_regular_file_is_written_to_and_not_replaced(capture: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "got").open("wb") as got, subprocess.Popen(["cat", tmp_path / "pipe"], stdout=got):
        assert called("packets", capture, "-o", tmp_path / "pipe").exit_code == 0
    assert (tmp_path / "got").read_text() == called("packets", capture).stdout
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("line", READERS)
def test_captures_that_cannot_be_read_are_named_and_leave_nothing(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "garbage").write_bytes(b"\x00garbage" * 1000)
    (tmp_path / "empty").touch()
    for name, said in (
        ("missing.pcap", "missing.pcap: No such file or directory"),
        ("out", "out: Is a directory"),
        ("garbage", "garbage: byte 0: not a pcap or pcapng file"),
        ("empty", "empty: byte 0: the file is empty"),
    ):
        refused(called(*line(tmp_path / name, out)), 1, said)
    assert all(files == [] for _, _, files in os.walk(out))


@pytest.mark.parametrize("line", READERS)
def test_a_capture_that_may_not_be_read_is_named(line: Line, tmp_path: Path) -> None:
    called(*line(piece(tmp_path / "mine.pcap", 100), tmp_path))  # loads the kernels it needs
    with open_folder() as folder:
        mine = piece(folder / "mine.pcap", 100)
        mine.chmod(0)
        with unprivileged():
            refused(called(*line(mine, folder)), 1, "mine.pcap: Permission denied")
        assert all(files == [] for _, _, files in os.walk(folder / "d"))


@pytest.mark.parametrize("line", READERS)
def test_places_that_cannot_be_written_are_named(line: Line, capture: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(called(*line(capture, tmp_path / "file")), 1, "file")
    if line(capture, tmp_path)[0] != "score":  # which makes its directory
        refused(called(*line(capture, tmp_path / "missing")), 1, "missing")
    assert listing(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("line", READERS)
def test_a_full_disk_is_named_and_nothing_half_written_stays(
    line: Line, capture: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        refused(called(*line(capture, disk)), 1, "No space left on device")
        assert all(files == [] for _, _, files in os.walk(disk))


@pytest.mark.parametrize("line", READERS)
def test_a_directory_that_may_not_be_written_is_named(line: Line, tmp_path: Path) -> None:
    called(*line(piece(tmp_path / "mine.pcap", 100), tmp_path))  # loads the kernels it needs
    with open_folder() as folder:
        mine = piece(folder / "mine.pcap", 100)
        folder.chmod(0o500)
        with unprivileged():
            refused(called(*line(mine, folder)), 1, "Permission denied")
        assert listing(folder) == ["mine.pcap"]


def test_the_place_of_a_bundle_is_looked_at_before_captures_are_read() -> None:
    with open_folder() as folder:
        (folder / "garbage.pcap").write_bytes(b"garbage")
        folder.chmod(0o500)
        with unprivileged():
            result = called("train", "kitsune", folder / "garbage.pcap", "-o", folder / "b")
        refused(result, 1, f"{folder / 'b'}: Permission denied")


def test_an_output_of_an_earlier_run_stays_when_a_run_fails(capture: Path, tmp_path: Path) -> None:
    assert called("score", capture, "--learn", 1000, "--out", tmp_path).exit_code == 0
    before = {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)}
    assert set(before) == {"scores.parquet", "alerts.jsonl", "metrics.prom"}
    assert called("score", ROOT / "LICENSE", "--learn", 1000, "--out", tmp_path).exit_code == 1
    assert {name: (tmp_path / name).read_bytes() for name in listing(tmp_path)} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--learn", 9), "--learn 9: at least 10 packets are needed"),
        (("--learn", 0), "--learn 0: at least 10"),
        (("--learn", -5), "--learn -5: at least 10"),
        (("--learn", 100, "--model", "x"), "--learn and --model exclude each other"),
        (("--partitions", 0), "command line: bus.partitions 0: Input should be greater than or equal to 1"),
        (("--metrics-port", 70000), "command line: metrics.port 70000"),
        (("--out", ""), "command line: output.directory"),
    ],
)
def test_a_wrong_value_on_the_command_line_is_named(
    options: tuple[object, ...], said: str, capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(called("score", capture, *options), 2, said)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("speed", ["fast", "2", "0x", "-1x", "x", "nanx", "infx", "", "1xx"])
def test_a_speed_that_is_none_is_misuse(speed: str, capture: Path) -> None:
    misused(called("score", capture, "--speed", speed), "is neither max nor a factor from 1e-6x to 1e6x")


def test_misuse_is_told_apart() -> None:
    misused(called("score"), "Missing argument 'PCAP…'.")
    misused(called("nonsense"), "No such command 'nonsense'")
    misused(called("score", "x", "--nonsense"), "No such option")
    misused(called("score", "x", "--linger", "-1"), "-1.0 is not in the range")
    misused(called("watch", "-i", "lo", "--duration", "nan"), "'nan' is not a number of seconds")


def test_a_wrong_configuration_stops_every_command(capture: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("bus:\n  partition: 2\n")
    for line in (
        ("score", capture), ("packets", capture), ("connections", capture), ("config", "show"),
        ("train", "kitsune", capture, "-o", tmp_path / "x"),
    ):  # fmt: skip
        refused(called(*line, "--config", wrong), 2, "wrong.yaml: bus.partition: unknown key")
    refused(called("config", "check", wrong), 2, "wrong.yaml: bus.partition: unknown key")
    refused(called("config", "check", tmp_path / "none"), 1, "none: No such file or directory")
    assert listing(tmp_path) == ["wrong.yaml"]


def test_a_good_configuration_is_checked_and_shown(tmp_path: Path) -> None:
    shown = called("config", "show").stdout
    (tmp_path / "all.yaml").write_text(shown)
    checked = called("config", "check", tmp_path / "all.yaml")
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert called("config", "show", "-c", tmp_path / "all.yaml").stdout == shown


def test_a_wrong_label_file_is_named_before_anything_is_written(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("src,sport,dst,dport,proto,start,end,task\n1.2.3,,,,,,,a\n")
    result = called("score", capture, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "out")
    refused(result, 1, "labels.csv: row 1: address '1.2.3'")
    assert listing(tmp_path) == ["labels.csv"]


def test_a_slice_that_the_label_file_does_not_have_is_named(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("labels: {slice: [taks]}")
    (tmp_path / "labels.csv").write_text("src,sport,dst,dport,proto,start,end,task\n,,,,,,,a\n")
    line = ("score", capture, "-c", tmp_path / "w.yaml", "--out", tmp_path / "out")
    refused(called(*line, "--labels", tmp_path / "labels.csv"), 2, "labels.csv, which has task")
    assert listing(tmp_path) == ["labels.csv", "w.yaml"]


def test_a_metrics_port_that_is_taken_is_named(capture: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = called("score", capture, "--metrics-port", port, "--out", tmp_path)
    refused(result, 1, f"cannot listen on 127.0.0.1:{port} for metrics: Address already in use")
    assert listing(tmp_path) == []
