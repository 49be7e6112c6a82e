"""What commands say of their captures, folders and patterns, and --filter: the same in every command."""

from __future__ import annotations

import gzip
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import called, refused, summary
from tests.support.capture_bytes import block, enhanced, interface, option, pcap, section, simple
from tests.support.captures import CAPTURES
from tests.support.demo import piece, run

pytestmark = pytest.mark.compiled

HUNT = CAPTURES / "hunt"
needs_inputs = pytest.mark.skipif(not HUNT.is_dir(), reason=f"no folder {HUNT} (set WIRESONDE_CAPTURES)")
SECOND = 10**6
IP = "450000{:02x}000100004011000a0a0000{:02x}0a000002"


def datagram(k: int, port: int = 53, host: int = 1) -> bytes:
    """An Ethernet frame with a UDP datagram."""
    ip = bytes.fromhex(IP.format(28, host)) + struct.pack(">HHHH", 5000 + k, port, 8, 0)
    return bytes.fromhex("020000000002020000000001") + b"\x08\x00" + ip


def records(n: int = 30, begin: int = 1_700_000_000, port: int = 53) -> list[tuple[int, bytes, int]]:
    return [(begin * SECOND + k * 1000, datagram(k, port), 42) for k in range(n)]


def odd_inputs() -> dict[str, tuple[bytes, str]]:
    """Captures of 30 packets, and what every command says of them."""
    plain, head = records(), section() + interface()
    packets = b"".join(enhanced(r) for r in plain)
    drops = option(5, struct.pack("<Q", 321)) + option(7, struct.pack("<Q", 12))
    statistics = block(5, struct.pack("<III", 0, 0, 0) + drops)
    late = option(14, struct.pack("<q", 2**62))
    early = option(14, struct.pack("<q", -1_800_000_000))
    fractions = [(r[0] // SECOND, r[0] % SECOND * 1000, r[1]) for r in plain]
    over = pcap() + b"".join(struct.pack("<IIII", s, part, 42, 42) + f for s, part, f in fractions)
    nanoseconds = "nanoseconds under the magic number of microseconds?"
    some = head + interface(147) + packets + enhanced(plain[0], 1)
    both = section() + interface(147) + interface(148) + packets + enhanced(plain[0], 1)
    return {
        "losses": (head + packets + statistics, "333 packets said to be lost, by the captures' own counts"),
        "untimed": (
            head + b"".join(simple(r[1], 42) for r in plain),
            "30 packets have no time, and count as of 1970-01-01",
        ),
        "fractions": (over, f"29 packets have fractions of a second above 999,999 µs: {nanoseconds}"),
        "joined": (
            pcap(plain[:20]) + pcap(plain[20:], order=">"),
            "another capture begins at byte 1184 of {}: read one after the other",
        ),
        "late": (
            section() + interface(options=late) + packets,
            "30 packets are later than times can be: set to 2262-04-11",
        ),
        "early": (section() + interface(options=early) + packets, "30 packets have a time before 1970"),
        "link type": (pcap(plain, link_type=147), "30 packets not read: no decoder for link type 147"),
        "some link type": (some, "1 packet not read: no decoder for link type 147"),
        "two link types": (both, "31 packets not read: no decoder for link type 147"),
    }


ODD = odd_inputs()
COMMANDS: dict[str, tuple[str, ...]] = {
    "connections": ("connections",),
    "packets": ("packets",),
    "score": ("score", "--learn", "10"),
    "score --json": ("score", "--learn", "10", "--json"),
    "train": ("train", "kitsune", "--learn", "20", "--force"),
    "train on all": ("train", "kitsune", "--force"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_the_same_of_a_capture(name: str, command: str, tmp_path: Path) -> None:
    data, said = ODD[name]
    path = tmp_path / "c.pcap"
    path.write_bytes(data)
    words = (*COMMANDS[command], path, *(("-o", tmp_path / "bundle") if command.startswith("train") else ()))
    result = called(*words)
    lines = [line for line in result.stderr.splitlines() if line.startswith(said.format(path))]
    assert len(lines) == 1, result.stderr
    unread = name in ("link type", "two link types")
    assert result.exit_code == (1 if unread and command.startswith("train") else 0)
    if command == "score --json":
        assert lines[0] in json.loads(result.stdout)["notes"]
    if command == "score":
        assert " ".join(lines[0].split()) in " ".join(result.stdout.split())


def test_an_ordinary_capture_needs_no_note(tmp_path: Path) -> None:
    (tmp_path / "c.pcap").write_bytes(pcap(records()))
    for command in ("connections", "packets"):
        assert called(command, tmp_path / "c.pcap").stderr == ""


def test_nobody_is_told_to_learn_from_packets_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.pcap").write_bytes(pcap(records(), link_type=147))
    result = called("score", tmp_path / "c.pcap", "--learn", 10)
    assert "--learn N" not in result.stdout
    assert "none of its packets could be read" in result.stdout
    said = called("train", "kitsune", tmp_path / "c.pcap", "-o", tmp_path / "b").stderr
    assert "c.pcap: only 0 of 30 packets can be learned from; at least 10 are needed" in said
    said = called("train", "kitsune", tmp_path / "c.pcap", "--learn", 20, "-o", tmp_path / "b").stderr
    assert "c.pcap: none of the packets could be read; no bundle was written" in said
    assert not (tmp_path / "b").exists()


def lossy(folder: Path, lost: int = 7) -> Path:
    """A connection that ends, a loss, a connection after it."""
    drop = option(4, struct.pack("<Q", lost))
    t = 1_700_000_000 * SECOND
    data = (
        section()
        + interface()
        + enhanced((t, datagram(1), 42))
        + enhanced((t + 200 * SECOND, datagram(2), 42))
    )
    data += enhanced((t + 201 * SECOND, datagram(2), 42), options=drop) + enhanced(
        (t + 202 * SECOND, datagram(3), 42)
    )
    path = folder / "lossy.pcapng"
    path.write_bytes(data)
    return path


def test_connections_that_lived_through_a_reported_loss_are_marked(tmp_path: Path) -> None:
    path = lossy(tmp_path)
    rows = [json.loads(line) for line in called("connections", path).stdout.splitlines()]
    assert {row["id.orig_p"]: row["capture_loss"] for row in rows} == {5001: False, 5002: True, 5003: False}
    found = summary(path, "--out", tmp_path / "out")
    assert found["losses"] == {"dropped by the sensor": 7}
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert {row["id.orig_p"]: row["capture_loss"] for row in table} == {5001: False, 5002: True, 5003: False}
    many = summary(path, "--partitions", 3)
    assert many["losses"] == {"dropped by the sensor": 7}


def test_a_loss_reported_at_the_end_marks_what_is_open_there(tmp_path: Path) -> None:
    (tmp_path / "c.pcapng").write_bytes(ODD["losses"][0])
    lines = called("connections", tmp_path / "c.pcapng").stdout.splitlines()
    assert [json.loads(line)["capture_loss"] for line in lines] == [True] * 30
    assert summary(tmp_path / "c.pcapng", "--learn", 10)["losses"] == {"dropped by the sensor": 333}
    paced = summary(tmp_path / "c.pcapng", "--learn", 10, "--speed", "100x")
    assert paced["losses"] == {"dropped by the sensor": 333}


def test_the_packets_before_zeros_are_kept_and_the_exit_code_says_so(tmp_path: Path) -> None:
    good = pcap(records())
    (tmp_path / "z.pcap").write_bytes(good + bytes(5000))
    result = called("connections", tmp_path / "z.pcap")
    assert len(result.stdout.splitlines()) == 30
    assert result.exit_code == 1
    assert f"zeros from byte {len(good)} to the end" in result.stderr
    found = summary(tmp_path / "z.pcap", "--learn", 10, code=1)
    assert (found["packets"], "zeros from byte" in str(found["problem"])) == (30, True)


# ------------------------------------------------------------------------------------------ folders and patterns


def rows(*words: object) -> list[dict[str, Any]]:
    result = called("packets", *words)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """Captures whose names do not sort as their times do, and other files."""
    folder = tmp_path / "days"
    folder.mkdir()
    for name, second in (("c.pcap", 100), ("b.pcap", 300), ("a.pcap.gz", 200)):
        data = pcap(records(5, second, port=second))
        (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (folder / "notes.txt").write_text("two taps")
    return folder


@pytest.mark.parametrize("command", ["connections", "packets", "score", "train"])
def test_a_folder_is_read_in_order_of_time(command: str, days: Path, tmp_path: Path) -> None:
    words: tuple[object, ...] = {
        "score": ("--json", "--learn", 10), "train": ("-o", tmp_path / "b", "--learn", 10, "--force"),
    }.get(command, ())  # fmt: skip
    kind = ("kitsune",) if command == "train" else ()
    for place in (days, f"{days}/*"):
        result = called(command, *kind, place, *words)
        assert result.exit_code == 0, result.stderr
        assert "notes.txt: skipped: not a pcap or pcapng file" in result.stderr
        assert "packets are older" not in result.stderr
        if command in ("connections", "packets"):
            found = [json.loads(line) for line in result.stdout.splitlines()]
            key = "dport" if command == "packets" else "id.resp_p"
            assert [row[key] for row in found] == [100] * 5 + [200] * 5 + [300] * 5


def test_files_keep_their_place_and_folders_beside_each_other_are_ordered_together(
    days: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "x.pcap").write_bytes(pcap(records(1, 250, port=250)))
    assert [r["dport"] for r in rows(days / "b.pcap", days / "c.pcap")] == [300] * 5 + [100] * 5
    ordered = [100] * 5 + [200] * 5 + [250] + [300] * 5
    assert [r["dport"] for r in rows(days, more)] == ordered
    assert [r["dport"] for r in rows(more, days / "b.pcap", f"{days}/c*")] == [250] + [300] * 5 + [100] * 5
    assert [r["dport"] for r in rows(days, f"{days}/*.pcap", days, more)] == ordered  # each file once


def test_folders_and_patterns_without_captures_are_refused(days: Path, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    refused(called("packets", tmp_path / "void"), 1, "void: Is a directory without files")
    refused(called("packets", f"{days}/*.pcapng"), 1, "days/*.pcapng: no file matches this pattern")
    refused(called("packets", days / "missing.pcap"), 1, "missing.pcap: No such file or directory")
    result = called("packets", f"{days}/*.txt")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith(
        "days/*.txt: none of the 1 files is a capture with packets"
    )


def test_an_output_does_not_replace_a_capture_that_a_folder_gave(days: Path) -> None:
    before = (days / "b.pcap").read_bytes()
    result = called("packets", days, "-o", days / "b.pcap")
    assert result.exit_code == 2
    assert "this is one of the captures" in result.stderr
    assert (days / "b.pcap").read_bytes() == before


def test_odd_names_are_read_and_shown_without_control_characters(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for k, name in enumerate((b"\xff\xfe.pcap", b"\x1b[31m\n.pcap", b"-x.pcap")):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(pcap(records(4, 1_700_000_000 + k)))
    for name in (b"\xff.txt", b"\x1b[31m.txt"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"text")
    for command, extra in (("packets", ()), ("train", ("kitsune", "--force"))):
        words = (command, *extra, folder, *(("-o", tmp_path / "b") if extra else ()))
        code, _, said = run(*words)
        assert code == 0, said
        assert "\x1b" not in said
        assert said.count("skipped: not a pcap") == 2


# ------------------------------------------------------------------------------------------------------ --filter


def test_a_filter_leaves_packets_out_and_says_how_many(tmp_path: Path) -> None:
    path = piece(tmp_path / "c.pcap", 3000)
    every = rows(path)
    mine = [row for row in every if row["proto"] == 6 and 80 in (row["sport"], row["dport"])]
    assert 0 < len(mine) < 3000
    said = f"{3000 - len(mine):,} packets left out by --filter"
    result = called("packets", path, "--filter", "tcp port 80")
    assert [json.loads(line) for line in result.stdout.splitlines()] == mine
    assert result.stderr.splitlines() == [said]
    assert called("packets", path, "--filter", " ").stdout == called("packets", path).stdout
    scored = summary(path, "--learn", 100, "--filter", "tcp port 80")
    assert (scored["packets"], said in str(scored["notes"])) == (len(mine), True)
    found = map(json.loads, called("connections", path, "--filter", "tcp port 80").stdout.splitlines())
    ports = [(row["id.orig_p"], row["id.resp_p"]) for row in found]
    assert ports
    assert all(80 in pair for pair in ports)
    trained = called("train", "kitsune", path, "-o", tmp_path / "b", "--force", "--filter", "tcp port 80")
    assert trained.exit_code == 0
    assert said in trained.stderr
    few = called("train", "kitsune", path, "-o", tmp_path / "b2", "--filter", "tcp port 1")
    assert few.exit_code == 1
    assert "only 0 packets; at least 10" in few.stderr


def test_a_loss_is_told_though_no_packet_passes_the_filter(tmp_path: Path) -> None:
    result = called("connections", lossy(tmp_path), "--filter", "udp src port 5003")
    (row,) = map(json.loads, result.stdout.splitlines())
    assert row["capture_loss"] is False
    assert result.stderr.splitlines() == [
        "7 packets said to be lost, by the captures' own counts", "3 packets left out by --filter",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["connections", "packets", "score", "train"])
def test_a_filter_that_cannot_be_compiled_is_misuse(command: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pcap"
    path.write_bytes(pcap(records()))
    kind = ("kitsune",) if command == "train" else ()
    words = (command, *kind, path, *(("-o", tmp_path / "b") if kind else ()))
    refused(called(*words, "--filter", "tcp prot 80"), 2, "filter 'tcp prot 80': ")
    path.write_bytes(pcap(records(), link_type=147))
    refused(called(*words, "--filter", "tcp"), 2, "(for link type 147)")
    assert not (tmp_path / "b").exists()


# ------------------------------------------------------------------------------------------------------- --max-gap


def test_pauses_are_shortened_and_counted(tmp_path: Path) -> None:
    t = 1_700_000_000
    times = [t, t + 1, t + 500, t + 501, t + 9000, t + 9001]
    (tmp_path / "c.pcap").write_bytes(pcap([(s * SECOND, datagram(k), 42) for k, s in enumerate(times * 2)]))
    before = called("connections", tmp_path / "c.pcap").stdout
    found = summary(
        tmp_path / "c.pcap", "--learn", 10, "--speed", "100x", "--max-gap", 5, "--out", tmp_path / "out"
    )
    assert "4 pauses shortened by --max-gap, by 17,976.0 s of the capture" in str(found["notes"])
    seconds = found["seconds"]
    assert isinstance(seconds, float)
    assert 0.25 <= seconds < 60  # 9 s of the capture and 4 pauses of 5 s, a hundred times faster: not 180 s
    assert before == called("connections", tmp_path / "c.pcap").stdout
    import pyarrow.parquet as pq

    ts = pq.read_table(tmp_path / "out" / "scores.parquet")["ts"].cast("int64").to_pylist()
    assert max(ts) - min(ts) == 9001 * 10**9  # times of packets are unchanged


def test_a_longest_pause_without_a_speed_is_misuse(tmp_path: Path) -> None:
    (tmp_path / "c.pcap").write_bytes(pcap(records()))
    refused(called("score", tmp_path / "c.pcap", "--max-gap", 5), 2, "--max-gap needs --speed")


# -------------------------------------------------------------------------------------------- files that others made


@needs_inputs
@pytest.mark.parametrize(
    ("name", "code", "connections", "said"),
    [
        ("f04_isb_drops.pcapng", 0, [("SF", True)], "333 packets said to be lost"),
        (
            "f05_nsec_under_usec_magic.pcap",
            0,
            [("S0", False), ("SF", False)],
            "fractions of a second above 999,999 µs",
        ),
        ("f05_spb_only.pcapng", 0, [("SF", False)], "12 packets have no time"),
        ("f06_zero_tail.pcap", 1, [("SF", False)], "zeros from byte 3064"),
        ("f06_cat_two.pcap", 0, [("SF", False)] * 2, "another capture begins at byte 3064"),
        ("f06_empty.pcap.gz", 1, [], "the unpacked file is empty"),
    ],
)
def test_inputs_that_other_tools_were_reported_to_get_wrong(
    name: str, code: int, connections: list[tuple[str, bool]], said: str
) -> None:
    result = called("connections", HUNT / name)
    assert result.exit_code == code
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["conn_state"], row["capture_loss"]) for row in found] == connections
    assert said in result.stderr
    assert said in called("score", HUNT / name, "--learn", 10).stderr
