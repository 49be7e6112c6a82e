"""The command line: what it writes, and what it says when something is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine import __version__, console
from engine.cli import main
from engine.types import concatenate
from models import bundle
from tests.capture_bytes import pcap
from tests.datagrams import udp
from tests.demo import ROOT, command, piece, run
from tests.disks import listing, open_folder, small_disk, unprivileged
from tests.frames import frames_of

pytestmark = pytest.mark.compiled

N = 3000  # packets of the piece of the demo capture that most tests read


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return piece(tmp_path_factory.mktemp("captures") / "piece.pcap", N)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the last record cut."""
    path = piece(tmp_path_factory.mktemp("captures") / "damaged.pcap", N)
    path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.fixture(scope="module")
def trained(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "kitsune.bundle"
    assert called("train", "kitsune", capture, "-o", out).exit_code == 0
    return out


def called(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, code: int, said: str) -> None:
    """A command that ended with one line on stderr, nothing on stdout and this exit code."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("wiresonde: ")
    assert said in lines[0]


def misused(result: Result, said: str) -> None:
    """A command that click refused: one line that names the help, exit code 2."""
    refused(result, 2, said)
    assert "--help" in result.stderr


def commands(
    group: click.Group = main, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, (*at, name))
        yield (*at, name), one


# -------------------------------------------------------------------------------------------------------- help


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


# ------------------------------------------------------------------------------------------ packets and connections


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


# ------------------------------------------------------------------------------------------------ what goes wrong

Line = Callable[[Path, Path], tuple[object, ...]]  # arguments for a capture and a directory of outputs
READERS = [
    pytest.param(lambda c, o: ("packets", c, "-o", o / "f"), id="packets"),
    pytest.param(lambda c, o: ("connections", c, "--format", "parquet", "-o", o / "f"), id="connections"),
    pytest.param(lambda c, o: ("score", c, "--out", o / "d"), id="score"),
    pytest.param(lambda c, o: ("train", "kitsune", c, "-o", o / "f"), id="train"),
]  # fmt: skip


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
        folder.chmod(0o500)
        with unprivileged():
            result = called("train", "kitsune", folder / "missing.pcap", "-o", folder / "b")
        refused(result, 1, f"{folder}: Permission denied")


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
    misused(called("watch", "-i", "lo", "--duration", "nan"), "'nan' is no number of seconds")


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
    refused(
        called(*line, "--labels", tmp_path / "labels.csv"), 2, "labels.slice: taks: the label file has task"
    )
    assert listing(tmp_path) == ["labels.csv", "w.yaml"]


def test_a_metrics_port_that_is_taken_is_named(capture: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = called("score", capture, "--metrics-port", port, "--out", tmp_path)
    refused(result, 1, f"metrics endpoint 127.0.0.1:{port}: Address already in use")
    assert listing(tmp_path) == []


# ------------------------------------------------------------------------------------------------------- score


def summary(*arguments: object, code: int = 0) -> dict[str, object]:
    result = called("score", *arguments, "--json")
    assert result.exit_code == code, result.stderr
    values: dict[str, object] = json.loads(result.stdout, parse_constant=pytest.fail)
    return values


def test_a_capture_is_scored_and_summed_up(capture: Path, tmp_path: Path) -> None:
    got = summary(capture, "--learn", 1000, "--out", tmp_path)
    assert (got["packets"], got["phase"], got["losses"], got["problem"]) == (N, "score", {}, None)
    table = pq.read_table(tmp_path / "scores.parquet")
    final = np.array(table.column("final").to_pylist())
    assert got["connections"] == int(final.sum())
    assert got["alarms"] == int((final & np.array(table.column("alarm").to_pylist())).sum())
    assert got["alerts"] == len((tmp_path / "alerts.jsonl").read_text().splitlines())
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]


def test_the_table_for_people_is_whole_also_without_a_terminal(capture: Path) -> None:
    result = called("score", capture, "--learn", 1000)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"packets      {N:,} in" in result.stdout
    assert "…" not in result.stdout
    top = summary(capture, "--learn", 1000)["top"]
    assert isinstance(top, list)
    assert [row["community_id"] for row in top] == [w for w in result.stdout.split() if w.startswith("1:")]


def test_a_run_too_short_to_learn_says_so_in_its_summary(capture: Path) -> None:
    got = summary(capture)
    assert got["phase"] == "map"
    assert got["notes"]
    assert got["scored"] == 0


def test_what_came_before_the_damage_is_scored(damaged: Path, tmp_path: Path) -> None:
    whole = piece(tmp_path / "whole.pcap", N - 1)
    assert summary(whole, "--learn", 1000, "--out", tmp_path / "expected")["packets"] == N - 1
    result = called("score", damaged, "--learn", 1000, "--out", tmp_path / "got")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "damaged.pcap: " in result.stderr
    for name in ("scores.parquet", "alerts.jsonl"):
        assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()
    got = summary(damaged, "--learn", 1000, code=1)
    assert got["packets"] == N - 1
    assert "damaged.pcap" in str(got["problem"])


def test_two_runs_give_equal_bytes(capture: Path, tmp_path: Path) -> None:
    for k in range(3):
        summary(capture, "--learn", 1000, "--out", tmp_path / str(k))
    for name in ("scores.parquet", "alerts.jsonl", "metrics.prom"):
        assert len({(tmp_path / str(k) / name).read_bytes() for k in range(3)}) == 1, name


def test_a_capture_of_nothing_but_arp_is_learned_from_without_a_threshold(tmp_path: Path) -> None:
    arp = (
        b"\xff" * 6
        + b"\x02" * 6
        + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"
        + b"\x02" * 6
        + b"\x0a\0\0\x01"
        + b"\0" * 10
    )
    head = piece(tmp_path / "arp.pcap", 0).read_bytes()
    size = len(arp).to_bytes(4, "little")
    records = ((1_700_000_000 + k).to_bytes(4, "little") + bytes(4) + size + size + arp for k in range(100))
    (tmp_path / "arp.pcap").write_bytes(head + b"".join(records))
    got = summary(tmp_path / "arp.pcap", "--learn", 50)
    assert (got["packets"], got["connections"]) == (100, 0)


# ------------------------------------------------------------------------------------------------- train and bundles


def test_a_bundle_scores_as_the_model_it_was_made_of(capture: Path, trained: Path, tmp_path: Path) -> None:
    assert listing(trained.parent) == [trained.name]
    got = summary(capture, "--model", trained, "--out", tmp_path / "a")
    assert got["phase"] == "score"
    assert got["scored"] == got["connections"]
    summary(capture, "--model", trained, "--out", tmp_path / "b")
    assert (tmp_path / "a/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()


def test_a_bundle_scores_what_comes_after_as_the_process_that_learned_it(tmp_path: Path) -> None:
    """Learned and scored in one process, against learned, saved and scored in another: from the first packet on
    whose features owe nothing to what was learned from, scores are equal to the bit."""
    from engine.bundles import load_kitsune
    from engine.config import Config
    from engine.decode import decode
    from engine.detector import slots_needed
    from engine.reading import frames

    capture = piece(tmp_path / "c.pcap", 1000)
    trained = tmp_path / "m.bundle"
    assert called("train", "kitsune", capture, "-o", trained).exit_code == 0
    config = Config()
    later = [decode(f, config.decode) for f in frames([piece(tmp_path / "l.pcap", 500, 1000)], 4096)]
    scorers = [load_kitsune(trained, config, slots_needed(config.connections)) for _ in range(2)]
    frozen = [np.concatenate([s.score(p) for p in later]) for s in scorers]
    assert np.array_equal(frozen[0], frozen[1])
    features = [s.features for s in scorers]
    assert features[0].flows == features[1].flows > 0
    summary_scores = summary(tmp_path / "l.pcap", "--model", trained, "--out", tmp_path)["top"]
    assert isinstance(summary_scores, list)
    assert summary_scores[0]["score"] == frozen[0].max()


def test_training_twice_gives_equal_bundles(capture: Path, trained: Path, tmp_path: Path) -> None:
    assert called("train", "kitsune", capture, "-o", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again").read_bytes() == trained.read_bytes()


def test_training_writes_nothing_but_the_bundle_whatever_is_configured(capture: Path, tmp_path: Path) -> None:
    config = tmp_path / "w.yaml"
    config.write_text(
        f"output: {{directory: {tmp_path}/out}}\nbus: {{partitions: 3}}\nmetrics: {{port: 0}}\n"
    )
    assert called("train", "kitsune", capture, "-c", config, "-o", tmp_path / "b").exit_code == 0
    assert listing(tmp_path) == ["b", "w.yaml"]


def test_training_from_too_little_or_from_damage_is_refused(damaged: Path, tmp_path: Path) -> None:
    few = piece(tmp_path / "few.pcap", 9)
    refused(
        called("train", "kitsune", few, "-o", tmp_path / "b"), 1, "few.pcap: 9 packets in all; at least 10"
    )
    refused(called("train", "kitsune", few, "-o", tmp_path / "b", "--learn", 100), 1, "no bundle was written")
    refused(called("train", "kitsune", few, "-o", tmp_path / "b", "--learn", 0), 2, "--learn 0: at least 10")
    refused(
        called("train", "kitsune", damaged, "-o", tmp_path / "b", "--learn", 100), 1, "no bundle was written"
    )
    refused(called("train", "kitsune", "-", "-o", tmp_path / "b"), 2, "stdin can be read only once")
    assert listing(tmp_path) == ["few.pcap"]


def test_bundles_that_do_not_fit_are_named(capture: Path, trained: Path, tmp_path: Path) -> None:
    data = trained.read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    (tmp_path / "garbage").write_bytes(b"garbage" * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "w.yaml").write_text("kitsune: {features: {lambdas: [4, 3, 2, 1, 0.5]}}")
    (tmp_path / "other").write_bytes(bundle.pack({}, {}, {}, kind="kitnet"))
    for name, said in (
        ("cut", "cut: not a readable bundle"), ("garbage", "garbage: not a readable bundle"), ("empty", "empty: "),
        ("missing", "missing: "), (".", "not a regular file"), ("other", "holds a 'kitnet', not a 'kitsune'"),
    ):  # fmt: skip
        refused(called("score", capture, "--model", tmp_path / name, "--out", tmp_path / "out"), 1, said)
    result = called("score", capture, "--model", trained, "-c", tmp_path / "w.yaml")
    refused(result, 1, "learned with lambdas [5.0, 3.0, 1.0, 0.1, 0.01], the configuration has [4.0, 3.0")
    assert "out" not in listing(tmp_path)


def test_a_bundle_with_any_byte_of_its_header_changed_is_refused_or_used(trained: Path) -> None:
    from engine.bundles import load_kitsune
    from engine.config import Config
    from engine.errors import InputError

    data = trained.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(7)
    changed = trained.with_name("changed")
    used = 0
    for at in rng.integers(0, end, 300).tolist():
        changed.write_bytes(data[:at] + bytes([int(rng.integers(32, 127))]) + data[at + 1 :])
        try:
            load_kitsune(changed, Config(), 10)
            used += 1
        except InputError:
            pass
    changed.unlink()
    assert used < 150


# -------------------------------------------------------------------------------------------- pipes and interrupts


def test_a_capture_from_stdin_is_read_as_from_a_file(capture: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "score", "-", "--learn", 1000, "--json", "--out", tmp_path, input=capture.read_bytes()
    )
    assert (code, err) == (0, "")
    from_file = summary(capture, "--learn", 1000, "--out", tmp_path / "file")
    assert json.loads(out)["top"][0]["score"] == from_file["top"][0]["score"]  # type: ignore[index]


def test_a_reader_of_stdout_may_leave_early(capture: Path) -> None:
    process = command("packets", capture)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ts"] > 0
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_stdout_that_is_full_is_named(capture: Path) -> None:
    for line in (("packets", capture), ("score", capture)):
        with open("/dev/full", "wb") as full:
            code, _, err = run(*line, stdout=full)
        assert (code, err) == (1, "wiresonde: stdout: No space left on device\n"), line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_a_paced_replay_flushes_and_ends_well(
    number: int, capture: Path, tmp_path: Path
) -> None:
    process = command(
        "score", capture, "--speed", "1x", "--metrics-port", 0, "--linger", 100, "--out", tmp_path, "--json"
    )
    assert process.stderr is not None
    assert b"metrics at http://127.0.0.1:" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"interrupted: the captures were not read to their end\n")
    got = json.loads(out)
    assert got["interrupted"] is True
    assert got["packets"] < N
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]
    assert pq.read_table(tmp_path / "scores.parquet").num_rows >= got["connections"]


def test_an_interrupt_while_a_pipe_is_silent_ends_well(capture: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, capture.read_bytes()[:30_000])
    process = command("score", "-", "--metrics-port", 0, "--out", tmp_path, "--json", stdin=reader)
    assert process.stderr is not None
    assert b"metrics at" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    os.close(reader)
    assert (process.returncode, err) == (0, b"interrupted: the captures were not read to their end\n")
    assert json.loads(out)["interrupted"] is True
    assert listing(tmp_path) == ["alerts.jsonl", "metrics.prom", "scores.parquet"]


def test_a_terminal_sees_progress_on_stderr_and_data_on_stdout_alone(capture: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = command("packets", capture, stdout=out, stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(mine, 65536):
            shown += part
    os.close(mine)
    assert process.wait(60) == 0
    assert b"reading" in shown
    assert (tmp_path / "out").read_text() == called("packets", capture).stdout


# ------------------------------------------------------------------------------------- signals and closed streams


def many_flows(path: Path) -> Path:
    """A capture of more connections than wait to be written at a time, and packets by whose time they have ended."""
    n = 12_000
    p = udp([1_700_000_000_000_000_000 + 1000 * k for k in range(n)], [1024 + k for k in range(n)])
    later = udp([1_700_000_100_000_000_000 + k for k in range(2)], [1, 2])
    frames = frames_of(concatenate([p, later]))
    starts, sizes = frames.start.tolist(), frames.captured.tolist()
    records = zip((frames.ts // 1000).tolist(), starts, sizes, frames.wire.tolist())
    path.write_bytes(pcap((ts, frames.buffer[a : a + size].tobytes(), wire) for ts, a, size, wire in records))
    return path


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        never.wait(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize(
    ("what", "kind"), [("packets", "jsonl"), ("packets", "parquet"), ("connections", "jsonl")]
)
def test_a_signal_while_a_file_is_written_leaves_neither_it_nor_a_hidden_one(
    number: signal.Signals, what: str, kind: str, tmp_path: Path
) -> None:
    data = many_flows(tmp_path / "flows.pcap").read_bytes()
    place = tmp_path / "out"
    place.mkdir()
    process = command(what, "-", "--format", kind, "-o", place / "new", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(data)
        process.stdin.flush()  # and it waits for more
        until(lambda: listing(place) != [])
        (hidden,) = listing(place)
        assert re.fullmatch(r"\.new\.[0-9a-f]{32}\.tmp", hidden)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == b"wiresonde: terminated\n"
    assert listing(place) == []


def test_a_signal_while_a_file_is_written_leaves_the_one_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("earlier")
    process = command("packets", "-", "-o", tmp_path / "out", stdin=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        process.stdin.write(piece(tmp_path / "c.pcap", 50).read_bytes())
        process.stdin.flush()
        until(lambda: len(listing(tmp_path)) == 3)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert listing(tmp_path) == ["c.pcap", "out"]
    assert (tmp_path / "out").read_text() == "earlier"


def redirected(redirection: str, *arguments: object) -> tuple[int, str, str]:
    """Run wiresonde from a shell that closes a stream of it: exit code, stdout, stderr."""
    line = [
        "sh",
        "-c",
        f'exec "$@" {redirection}',
        "sh",
        sys.executable,
        "-m",
        "engine.cli",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("line", READERS)
def test_a_stdin_that_is_closed_is_named(line: Line, tmp_path: Path) -> None:
    learn = ("--learn", 100) if line(tmp_path, tmp_path)[0] == "train" else ()
    code, out, err = redirected("<&-", *line(Path("-"), tmp_path), *learn)
    assert (code, out, err) == (1, "", "wiresonde: -: stdin is closed\n")
    assert all(files == [] for _, _, files in os.walk(tmp_path))


@pytest.mark.parametrize(
    "line", [("packets",), ("connections",), ("score", "--json"), ("packets", "-o", "f")]
)
def test_a_stdout_that_is_closed_is_named(
    line: tuple[str, ...], capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert redirected(">&-", *line, capture) == (1, "", "wiresonde: stdout is closed\n")
    assert redirected(">&-", "config", "show") == (1, "", "wiresonde: stdout is closed\n")
    assert listing(tmp_path) == []


def test_a_stderr_that_is_closed_changes_no_exit_code(tmp_path: Path) -> None:
    assert redirected("2>&-", "config", "show") == (0, called("config", "show").stdout, "")
    assert redirected("2>&-", "config", "check", tmp_path / "missing") == (1, "", "")
    assert redirected("2>&-", "nonsense") == (2, "", "")


def test_a_stderr_that_is_closed_keeps_no_capture_from_being_read(capture: Path) -> None:
    assert redirected("2>&-", "packets", capture) == (0, called("packets", capture).stdout, "")


def test_a_signal_that_was_raised_where_nothing_can_be_raised_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python prints and forgets what a destructor or a callback raises."""

    class Forgetful:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    forgotten: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", forgotten.append)
    with console._terminated():
        thing = Forgetful()
        del thing
        assert len(forgotten) == 1
        with pytest.raises(SystemExit) as ended, console.interrupts(lambda: None):
            raise AssertionError("the command went on")
    assert ended.value.code == 128 + signal.SIGTERM
