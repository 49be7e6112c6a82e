"""Folders and patterns of captures: what is a capture, in which order, and what is left out."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from connectors.files import folder
from connectors.files.folder import TooManyFilesError, files_in, in_order, is_pattern
from tests.support.capture_bytes import pcap, pcapng

SECOND = 10**6


def capture(path: Path, second: int) -> Path:
    data = (pcapng if path.name.endswith("ng") else pcap)([(second * SECOND, b"x" * 60, 60)] * 2)
    path.write_bytes(gzip.compress(data) if path.name.endswith("gz") else data)
    return path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_captures_come_in_the_order_of_their_first_packets_then_of_their_names(tmp_path: Path) -> None:
    for name, second in (("c.pcap", 5), ("a.pcapng", 9), ("z", 1), ("b.pcap.gz", 5), ("no extension", 7)):
        capture(tmp_path / name, second)
    found = in_order(files_in(tmp_path))
    assert names(found.captures) == ["z", "b.pcap.gz", "c.pcap", "no extension", "a.pcapng"]
    assert found.skipped == []


def test_what_holds_no_packet_is_left_out_with_the_reason(tmp_path: Path) -> None:
    capture(tmp_path / "good.pcap", 1)
    (tmp_path / "README.md").write_text("# Captures of May")
    (tmp_path / "empty.pcap").touch()
    (tmp_path / "empty.pcap.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "header.pcap").write_bytes(pcap())
    (tmp_path / "cut.pcap").write_bytes(pcap()[:20])
    (tmp_path / "zeros.pcap").write_bytes(bytes(999))
    (tmp_path / "tail.pcap").write_bytes(pcap([(SECOND, b"x", 1)]) + bytes(999))  # damaged behind a packet
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo.pcap")
    (tmp_path / "sub").mkdir()
    capture(tmp_path / "sub" / "inside.pcap", 1)
    capture(tmp_path / ".hidden.pcap", 1)
    found = in_order(files_in(tmp_path))
    assert names(found.captures) == ["good.pcap", "tail.pcap"]
    reasons = {path.name: why for path, why in found.skipped}
    assert reasons.pop("README.md").startswith("not a pcap or pcapng file: begins with 23 20")
    assert reasons.pop("zeros.pcap").endswith("(zeros: perhaps it was never written)")
    assert reasons == {
        "empty.pcap": "the file is empty",
        "empty.pcap.gz": "the unpacked file is empty",
        "header.pcap": "no packet",
        "cut.pcap": "pcap file header needs 24 bytes, the file has 20",
        "dangling": "not a regular file",
        "fifo.pcap": "not a regular file",
    }


def test_a_pattern_matches_as_in_the_shell_and_not_below(tmp_path: Path) -> None:
    for name in ("a1.pcap", "a2.pcap", "b1.pcap", ".a3.pcap"):
        capture(tmp_path / name, 1)
    (tmp_path / "sub").mkdir()
    capture(tmp_path / "sub" / "a9.pcap", 1)
    for pattern, wanted in (
        ("a*.pcap", ["a1.pcap", "a2.pcap"]),
        ("?1.pcap", ["a1.pcap", "b1.pcap"]),
        ("[b-c]*", ["b1.pcap"]),
        ("*/a*", ["a9.pcap"]),
        ("*", ["a1.pcap", "a2.pcap", "b1.pcap"]),
        ("x*", []),
    ):
        assert is_pattern(tmp_path / pattern)
        assert names(files_in(tmp_path / pattern)) == wanted, pattern


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    odd = capture(tmp_path / "[1]*.pcap", 1)
    assert not is_pattern(odd)
    assert not is_pattern(tmp_path / "missing.pcap")


def test_more_files_than_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    for k in range(4):
        capture(tmp_path / f"{k}.pcap", k)
    for place in (tmp_path, tmp_path / "*"):
        with pytest.raises(TooManyFilesError, match="more than 3 files: give a pattern that matches fewer"):
            files_in(place)
    assert len(files_in(tmp_path / "[0-2].pcap")) == 3


def test_names_that_are_no_text_are_found_and_ordered(tmp_path: Path) -> None:
    raw = [
        os.fsencode(tmp_path) + b"/" + name
        for name in (b"\xff\xfe.pcap", b"a\n\x1b[31m.pcap", "ü.pcap".encode())
    ]
    for path in raw:
        capture(Path(os.fsdecode(path)), 1)
    assert [os.fsencode(path) for path in in_order(files_in(tmp_path)).captures] == sorted(raw)
