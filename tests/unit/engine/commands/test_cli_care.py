"""What commands take care of: inputs that are outputs, what was not read, odd places and values."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN

from tests.support.calls import called, misused, refused, summary
from tests.support.capture_bytes import pcap
from tests.support.conversation import T0
from tests.support.datagrams import udp
from tests.support.demo import ROOT, command
from tests.support.disks import listing, open_folder, unprivileged
from tests.support.frames import frames_of

pytestmark = pytest.mark.compiled

HOUR = 3600 * 10**9


def written(path: Path, times: list[int], ports: list[int]) -> Path:
    """A capture of UDP packets."""
    frames = frames_of(udp(times, ports))
    starts, sizes = frames.start.tolist(), frames.captured.tolist()
    records = zip((frames.ts // 1000).tolist(), starts, sizes, frames.wire.tolist())
    path.write_bytes(pcap((ts, frames.buffer[a : a + size].tobytes(), wire) for ts, a, size, wire in records))
    return path


# ------------------------------------------------------------------------------------------- inputs and outputs


@pytest.mark.parametrize("line", [("packets",), ("connections", "--format", "parquet"), ("train", "kitsune")])
def test_a_capture_is_not_replaced_by_what_is_made_of_it(line: tuple[str, ...], tmp_path: Path) -> None:
    capture = written(tmp_path / "c.pcap", [T0, T0 + 1], [1, 2])
    before = capture.read_bytes()
    (tmp_path / "link").symlink_to(capture)
    (tmp_path / "hard").hardlink_to(capture)
    for place in ("c.pcap", "link", "hard"):
        refused(called(*line, capture, "-o", tmp_path / place), 2, f"{place}: this is one of the captures")
    assert capture.read_bytes() == before
    (tmp_path / "w.yaml").write_text("{}")
    refused(
        called(*line, capture, "-c", tmp_path / "w.yaml", "-o", tmp_path / "w.yaml"),
        2,
        "this is the configuration",
    )


@pytest.mark.parametrize("what", ["packets", "connections", "score"])
def test_all_captures_are_looked_for_before_anything_is_said(what: str, tmp_path: Path) -> None:
    capture = written(tmp_path / "c.pcap", [T0, T0 + 1], [1, 2])
    refused(called(what, capture, tmp_path / "missing"), 1, "missing: No such file or directory")
    refused(called(what, "-", "-"), 2, "stdin (-) can be read only once")


def test_dash_is_stdout_for_text_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    capture = written(tmp_path / "c.pcap", [T0, T0 + 1], [1, 2])
    assert called("packets", capture, "-o", "-").stdout == called("packets", capture).stdout != ""
    refused(called("packets", capture, "--format", "parquet", "-o", "-"), 2, "--format parquet needs a file")
    refused(called("train", "kitsune", capture, "-o", "-"), 2, "-o -: a bundle cannot go to stdout")
    assert listing(tmp_path) == ["c.pcap"]


@pytest.mark.parametrize(
    "line",
    [
        ("score", ""),
        ("score", "c", "--config", ""),
        ("score", "c", "--labels", ""),
        ("packets", "c", "-o", ""),
    ],
)
def test_an_empty_path_is_misuse(line: tuple[str, ...]) -> None:
    misused(called(*line), "a path cannot be empty")


def test_a_bundle_is_written_like_every_other_file(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    before = os.umask(0o027)
    try:
        assert (
            called("train", "kitsune", capture, "--learn", 500, "--force", "-o", tmp_path / "link").exit_code
            == 0
        )
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o640
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "got").open("wb") as got, subprocess.Popen(["cat", tmp_path / "pipe"], stdout=got):
        assert (
            called("train", "kitsune", capture, "--learn", 500, "--force", "-o", tmp_path / "pipe").exit_code
            == 0
        )
    assert (tmp_path / "got").read_bytes() == (tmp_path / "target").read_bytes()
    assert (tmp_path / "pipe").is_fifo()


def test_a_bundle_that_may_not_be_read_is_not_called_missing(trained: Path, capture: Path) -> None:
    with open_folder() as folder:
        (folder / "b").write_bytes(trained.read_bytes())
        (folder / "b").chmod(0)
        mine = folder / "c.pcap"
        mine.write_bytes(capture.read_bytes())
        with unprivileged():
            refused(
                called("score", mine, "--model", folder / "b"),
                1,
                "b: not a readable bundle: Permission denied",
            )


def test_a_place_of_the_metrics_that_is_a_folder_is_named_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out" / "metrics.prom").mkdir(parents=True)
    (tmp_path / "garbage").write_bytes(b"garbage")
    result = called("score", tmp_path / "garbage", "--out", tmp_path / "out")
    refused(result, 1, "metrics.prom: Is a directory")
    assert listing(tmp_path / "out") == ["metrics.prom"]


def test_a_metrics_port_that_is_taken_leaves_no_folder(tmp_path: Path) -> None:
    import socket

    capture = written(tmp_path / "c.pcap", [T0], [1])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        line = ("score", capture, "--metrics-port", other.getsockname()[1], "--out", tmp_path / "out")
        refused(called(*line), 1, "Address already in use")
    assert listing(tmp_path) == ["c.pcap"]


# -------------------------------------------------------------------------------------------- what was not read


def notes(*line: object) -> list[str]:
    result = called(*line)
    assert result.exit_code == 0
    return result.stderr.splitlines()


@pytest.mark.parametrize("what", ["packets", "connections"])
def test_link_types_without_a_decoder_are_named(what: str, tmp_path: Path) -> None:
    (tmp_path / "w.pcap").write_bytes(pcap([(0, b"x" * 60, 60)] * 3, link_type=220))
    said = ["3 packets not read: no decoder for link type 220 (USB_LINUX_MMAPPED)"]
    assert notes(what, tmp_path / "w.pcap") == said
    (tmp_path / "o.pcap").write_bytes(pcap([(0, b"x" * 60, 60)] * 2, link_type=147))
    both = notes(what, tmp_path / "w.pcap", tmp_path / "o.pcap")
    assert both == ["5 packets not read: no decoder for link type 147 (USER0), 220 (USB_LINUX_MMAPPED)"]


@pytest.mark.parametrize("what", ["packets", "connections"])
def test_tunnels_that_the_configuration_does_not_name_are_counted(what: str, tmp_path: Path) -> None:
    inner = Ether(src="02:00:00:00:00:01") / IP() / UDP(sport=5, dport=6)
    outer = Ether(src="02:00:00:00:00:01") / IP(src="10.0.0.1", dst="10.0.0.2")
    packets = [outer / UDP(dport=4789) / VXLAN(vni=1) / inner, outer / GRE() / inner[IP], inner]
    frames = [bytes(packet) for packet in packets * 2]
    (tmp_path / "t.pcap").write_bytes(pcap([(k, frame, len(frame)) for k, frame in enumerate(frames)]))
    said = ["4 packets carry tunnels (gre, vxlan) that `decode.tunnels` does not name"]
    assert notes(what, tmp_path / "t.pcap") == said
    (tmp_path / "w.yaml").write_text("decode: {tunnels: [vxlan]}")
    said = ["2 packets carry tunnels (gre) that `decode.tunnels` does not name"]
    assert notes(what, tmp_path / "t.pcap", "-c", tmp_path / "w.yaml") == said
    (tmp_path / "w.yaml").write_text("decode: {tunnels: [vxlan, gre]}")
    assert notes(what, tmp_path / "t.pcap", "-c", tmp_path / "w.yaml") == []
    assert summary(tmp_path / "t.pcap")["losses"] == {}


@pytest.mark.parametrize("what", ["packets", "connections"])
def test_packets_not_read_whole_are_counted_by_reason(what: str, tmp_path: Path) -> None:
    short, foreign = bytes(12) + b"\x08\x00\x45", bytes(12) + b"\x88\xcc" + bytes(40)
    (tmp_path / "c.pcap").write_bytes(
        pcap([(0, short, 60), (1, short, 60), (2, b"12345", 5), (3, foreign, 54)])
    )
    said = ["3 packets whose headers could not all be read: ip_truncated 2, link_truncated 1"]
    assert notes(what, tmp_path / "c.pcap") == said
    losses = summary(tmp_path / "c.pcap")["losses"]
    assert losses == {"not read whole: ip_truncated": 2, "not read whole: link_truncated": 1}


def test_what_was_said_of_a_damaged_capture_comes_before_the_damage(tmp_path: Path) -> None:
    (tmp_path / "w.pcap").write_bytes(pcap([(0, b"x" * 60, 60)] * 3, link_type=220)[:-1])
    result = called("packets", tmp_path / "w.pcap")
    first, last = result.stderr.splitlines()
    assert first.startswith("2 packets not read")
    assert last.startswith("wiresonde: ")
    assert "w.pcap: byte 176: packet record needs 76 bytes" in last


def test_evicted_connections_are_counted(tmp_path: Path) -> None:
    capture = written(tmp_path / "c.pcap", [T0 + k for k in range(60)], list(range(1, 61)))
    (tmp_path / "w.yaml").write_text("connections: {capacity: 50}")
    said = ["10 connections ended early, the table was full: raise connections.capacity"]
    assert notes("connections", capture, "-c", tmp_path / "w.yaml") == said


def test_captures_the_wrong_way_round_are_suspected(tmp_path: Path) -> None:
    late = "7 packets are older than earlier ones: are the captures in order of time?"
    back = "time went back once, and was followed: a clock that was set, or captures that are not in order of time"
    for n, said in ((7, late), (8, back), (100, back)):
        times = range(1000, 1000 * (n + 1), 1000)
        old = written(tmp_path / "old.pcap", [T0 + k for k in times], [1] * n)
        new = written(tmp_path / "new.pcap", [T0 + HOUR // 2 + k for k in times], [1] * n)
        assert notes("connections", old, new) == []
        assert notes("connections", new, old) == [said]


def test_packets_that_cannot_be_learned_from_are_not_counted_as_such(tmp_path: Path) -> None:
    (tmp_path / "w.pcap").write_bytes(pcap([(0, b"x" * 60, 60)] * 30, link_type=220))
    note = str(summary(tmp_path / "w.pcap", "--learn", 10)["notes"])
    assert "it needs 10 packets in a partition, and the largest had 0. To score this capture, train" in note


# ------------------------------------------------------------------------------------------------- odd values


def test_a_map_of_no_packets_is_refused_where_the_configuration_is_checked(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("kitsune: {kitnet: {map_samples: 0}}")
    refused(
        called("config", "check", tmp_path / "w.yaml"), 2, "kitsune.kitnet.map_samples 0: the feature map"
    )


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "+1e-3"])
def test_numbers_may_be_written_as_everywhere(text: str, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(f"kitsune: {{threshold: {{false_positive_rate: {text}}}}}")
    assert "false_positive_rate: 0.001\n" in called("config", "show", "-c", tmp_path / "w.yaml").stdout


def test_a_path_that_is_no_text_is_refused_in_a_line(tmp_path: Path) -> None:
    result = command(
        "score", ROOT / "demo" / "demo.pcap.zst", "--out", os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    )
    out, err = result.communicate(timeout=60)
    assert (result.returncode, out) == (2, b"")
    assert err.endswith(b"/\\udcff' is not UTF-8\n")
    assert len(err) < 300


@pytest.mark.parametrize("line", [("--help",), ("--version",), ("score", "--help"), ("config", "show")])
def test_help_on_a_stdout_that_is_full_or_closed_ends_in_a_line(line: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "engine.cli", *line]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"wiresonde: stdout: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert done.returncode in (0, 1)  # click's own, for the whole command's help
    assert done.stderr == b""


def test_a_label_that_a_terminal_would_obey_is_shown_without_it(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('src,sport,dst,dport,proto,start,end,task\n,,,,,,,"a\x1b]0;x\x07b"\n')
    shown = called("score", capture, "--labels", tmp_path / "l.csv", "--learn", 1000).stdout
    assert "a\N{REPLACEMENT CHARACTER}]0;x\N{REPLACEMENT CHARACTER}b" in shown
    assert "\x1b" not in shown


def test_the_summary_is_printed_before_the_metrics_linger(capture: Path) -> None:
    process = command("score", capture, "--learn", 1000, "--metrics-port", 0, "--linger", 1000, "--json")
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["packets"] == 3000
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 0


def test_thresholds_of_several_partitions_are_shown_as_a_range(capture: Path) -> None:
    shown = called("score", capture, "--learn", 300, "--partitions", 2).stdout
    found = summary(capture, "--learn", 300, "--partitions", 2)
    least, most = found["least_threshold"], found["threshold"]
    assert isinstance(least, float)
    assert isinstance(most, float)
    assert least < most
    assert f"(above {least:.4f} to {most:.4f}, by partition; " in shown
    assert "by partition" not in called("score", capture, "--learn", 300).stdout
