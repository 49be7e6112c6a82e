"""The command puts table, picture, frames, labels and twins together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.files.pcap import CaptureFile
from engine.commands.reading import read_connections
from probing.lab.frames import SCHEMA
from tests.support.calls import called, misused, refused
from tests.support.small_corpus import MS, SECOND, T0, Entry, Exchange, write

pytestmark = pytest.mark.compiled

PHASES = (("connect", 0), ("request", 2))  # and the number of the packet with which each begins


def visit(client: int, twin: str, second: int, delay: float, **more: object) -> Entry:
    """A visit of a twin, with phases that begin just before their first packets."""
    exchange = Exchange(
        T0 + second * SECOND, 0x0A000000 + client, 40000 + client, [300, -900, 200, -1400], delay
    )
    at = [[name, T0 + second * SECOND + round(k * delay * MS) - 1] for name, k in PHASES]
    labels = {
        "pair": "p-0",
        "twin": twin,
        "delay_ms": delay,
        "run": f"0000{twin}-http",
        "phases": json.dumps(at),
    }
    return exchange, labels | more


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    return write(folder, [visit(10, "a", 0, 5.0), visit(11, "b", 10, 20.0)]).with_name("made.pcap.zst")


@pytest.fixture(scope="module")
def baseline(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "baseline.bundle"
    assert called("train", "baseline", capture, "-o", out).exit_code == 0
    return out


def ids(capture: Path, name: str = "uid") -> list[str]:
    records = read_connections([capture]).sort_by("ts")
    found: list[str] = records[name].to_pylist()
    return found


def values(*arguments: object) -> Any:
    result = called("trace", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout, parse_constant=pytest.fail)


def frames_beside(capture: Path, phase: str | None = None) -> Path:
    """A frames file in which every third frame was lost."""
    with CaptureFile(capture) as file:
        times = [int(t) for block in file for t in block.ts]
    n = len(times)
    columns = {
        "frame": range(1, n + 1), "ts": times, "run": ["r"] * n,
        "verdict": ["lost" if k % 3 == 2 else "sent" for k in range(n)], "delayed_by_ms": [None] * n,
        "overtaken": [False] * n, "duplicated": [False] * n, "corrupted": [False] * n, "phase": [phase] * n,
    }  # fmt: skip
    plain = pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMA])
    path = capture.with_name("made.frames.parquet")
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()}, schema=plain).cast(SCHEMA), path)
    return path


def test_a_row_a_packet_with_the_scores_of_every_model(made: Path, trained: Path, baseline: Path) -> None:
    a, b = ids(made)
    got = values(made, "--connection", b, "--connection", a, "--model", f"x={trained}", "--model", baseline)
    assert [c["uid"] for c in got["connections"]] == [b, a]
    assert got["alignment"] == "time"
    first = got["connections"][0]
    assert set(first["thresholds"]) == {"x", "baseline"}
    assert first["labels"] == {"activity": "get", "delay_ms": "20.0"}
    assert [p["frame"] for p in first["packets"]] == list(range(11, 21))
    assert [p["seconds"] for p in first["packets"]] == pytest.approx([0.02 * k for k in range(10)])
    assert [p["payload"] for p in first["packets"]] == [0, 0, 0, 300, 900, 200, 1400, 0, 0, 0]
    assert [p["phase"] for p in first["packets"]] == ["connect"] * 2 + ["request"] * 8
    assert all(set(p["scores"]) == {"x", "baseline"} for p in first["packets"])
    assert {p["link"] for p in first["packets"]} == {None}


def test_a_community_id_names_a_connection_too(made: Path, trained: Path) -> None:
    got = values(made, "--connection", ids(made, "community_id")[1], "--model", trained)
    assert [c["uid"] for c in got["connections"]] == ids(made)[1:]


def test_the_frames_beside_a_capture_are_found_and_another_file_can_be_given(
    made: Path, trained: Path
) -> None:
    path = frames_beside(made)
    a, _ = ids(made)
    expected = ["lost" if k % 3 == 2 else "sent" for k in range(10)]
    try:
        found = values(made, "--connection", a, "--model", trained)["connections"][0]
        assert [p["link"] for p in found["packets"]] == expected
        elsewhere = path.rename(path.with_name("elsewhere.parquet"))
        given = values(made, "--connection", a, "--model", trained, "--frames", elsewhere)["connections"][0]
        assert given == found
        table = called("trace", made, "--connection", a, "--model", trained, "--frames", elsewhere).stdout
        assert "  lost  " in table
    finally:
        for left in (path, path.with_name("elsewhere.parquet")):
            left.unlink(missing_ok=True)


def test_frames_give_the_phases_where_labels_have_none(made: Path, trained: Path, tmp_path: Path) -> None:
    capture = tmp_path / "made.pcap.zst"
    capture.write_bytes(made.read_bytes())
    frames_beside(capture, "query")
    (a, b), more = ids(capture), ("--model", trained)
    got = values(capture, "--connection", a, "--twin", b, *more)
    assert got["alignment"] == "phase"
    assert {p["phase"] for c in got["connections"] for p in c["packets"]} == {"query"}


def test_twins_are_found_and_aligned_by_phase(made: Path, trained: Path, tmp_path: Path) -> None:
    a, b = ids(made)
    svg = tmp_path / "twins.svg"
    got = values(made, "--connection", a, "--twins", "--model", trained, "--svg", svg)
    assert [c["uid"] for c in got["connections"]] == [a, b]
    assert got["note"] == "x: aligned by 2 phases, each stretched to the same width"
    assert svg.read_text().count("score / threshold") + svg.read_text().count(">score<") == 2
    again = tmp_path / "again.svg"
    assert values(made, "--connection", a, "--twin", b, "--model", trained, "--svg", again) == got
    assert again.read_bytes() == svg.read_bytes()


def test_a_twin_may_be_in_another_capture_and_without_phases_bytes_align(
    made: Path, trained: Path, tmp_path: Path
) -> None:
    other = write(tmp_path, [visit(12, "c", 20, 50.0, phases="")], "other").with_name("other.pcap.zst")
    (twin,) = ids(other)
    words = (made, "--connection", ids(made)[0], "--twin", f"{other}:{twin}", "--model", trained)
    got = values(*words)
    assert [c["capture"] for c in got["connections"]] == ["made.pcap.zst", "other.pcap.zst"]
    assert got["alignment"] == "bytes"
    assert (
        called("trace", *words)
        .stdout.splitlines()[-1]
        .startswith("x: no common phases; aligned by the share")
    )


def test_labels_of_others_are_shown_whole(made: Path, trained: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("src,sport,dst,dport,proto,start,end,task,note\n10.0.0.10,,,,,,,web,0\n")
    words = (made, "--connection", ids(made)[0], "--model", trained, "--labels", labels)
    assert values(*words)["connections"][0]["labels"] == {"task": "web", "note": "0"}
    refused(called("trace", *words, "--twins"), 2, "no label file of the lab")


def test_an_unknown_connection_is_one_line_that_names_what_there_is(made: Path, trained: Path) -> None:
    result = called("trace", made, "--connection", "CAAAAAAAAAAAAAAAA", "--model", trained)
    refused(
        result,
        1,
        f"no connection CAAAAAAAAAAAAAAAA; there are {ids(made)[0]} (10.0.0.10:40010 > 10.0.0.1:80 tcp)",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--connection", "nonsense"), "--connection nonsense: give a uid"),
        (("--connection", "C" * 17, "--twin", "nonsense"), "--twin nonsense: give a uid"),
        (("--connection", "C" * 17, "--connection", "D" * 17, "--twins"), "give one --connection to align with, not 2"),
    ],
)  # fmt: skip
def test_misuse_is_one_line(made: Path, trained: Path, words: tuple[str, ...], said: str) -> None:
    refused(called("trace", made, *words, "--model", trained), 2, said)


def test_models_and_a_connection_must_be_given(made: Path, trained: Path) -> None:
    misused(called("trace", made, "--connection", "C" * 17), "--model")
    misused(called("trace", made, "--model", trained), "--connection")


def test_nothing_is_written_over_a_capture(made: Path, trained: Path) -> None:
    a, _ = ids(made)
    refused(
        called("trace", made, "--connection", a, "--model", trained, "--svg", made), 2, "one of the captures"
    )


def test_a_pipe_is_refused(trained: Path) -> None:
    refused(
        called("trace", "-", "--connection", "C" * 17, "--model", trained), 1, "a pipe cannot be read twice"
    )
