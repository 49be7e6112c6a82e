"""Packets of chosen connections: every frame, with the scores that `score` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from connectors.files.pcap import CaptureFile
from engine.commands import trace as traces
from engine.commands.models import chosen_models
from engine.commands.reading import read_connections
from engine.commands.trace import chosen_records, trace
from engine.config import Config, replace
from engine.errors import InputError
from engine.scoring import trace as tracers
from engine.scoring.columns import as_dicts
from tests.support.calls import summary
from tests.support.capture_bytes import pcap
from tests.support.demo import CAPTURE
from tests.support.small_corpus import MS, NANOSECONDS, T0, Exchange

pytestmark = pytest.mark.compiled


def copied(path: Path) -> Path:
    """Two connections in turns; the fourth packet of the first comes twice, as a mirror makes it."""
    one, other = Exchange(T0).packets(), Exchange(T0 + 5 * MS, 0x0A00000B).packets()
    ts, frame, wire = one[3]
    records = sorted([*one, *other, (ts + 1000, frame, wire)], key=lambda record: record[0])
    path.write_bytes(pcap(records, magic=NANOSECONDS))
    return path


def times_of(capture: Path) -> NDArray[np.int64]:
    """Times of a capture's frames."""
    with CaptureFile(capture) as file:
        return np.concatenate([block.ts for block in file])


def uid_of(capture: Path, host: str) -> str:
    records = read_connections([capture])
    return str(records.filter(pc.equal(records["id.orig_h"], host))["uid"][0].as_py())


@pytest.mark.parametrize("copies", ["drop", "keep"])
def test_packets_name_their_frames_and_copies_are_among_them_without_a_score_where_they_are_dropped(
    tmp_path: Path, trained: Path, copies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = copied(tmp_path / "x.pcap")
    config = replace(Config(), "test", {"connections.copies": copies})
    uid = uid_of(capture, "10.0.0.10")
    beside = traces._beside
    monkeypatch.setattr(traces, "_beside", lambda p, s, m, d: beside(p, numbered(s), m, d))
    got = trace(capture, config, chosen_models(config, [f"m={trained}"]), frozenset([uid]))
    packets = as_dicts(got.packets)
    assert (
        times_of(capture)[got.packets["number"].to_numpy()].tolist()
        == got.packets["ts"].cast(pa.int64()).to_pylist()
    )
    assert len(packets) == len(Exchange(T0).packets()) + 1
    copy = [p["segment"] == "capture_duplicate" for p in packets]
    assert copy == [k == 4 for k in range(len(packets))]
    scores = [p["score.m"] for p in packets]
    if copies == "drop":
        assert scores == [0, 1, 2, 3, None, *range(4, len(packets) - 1)]
    else:
        assert scores == list(range(len(packets)))


def numbered(scored: pa.Table) -> pa.Table:
    """Scores that count the packets of the connection."""
    return scored.set_column(
        scored.column_names.index("score.m"), "score.m", pa.array([float(k) for k in range(scored.num_rows)])
    )


def test_scores_and_thresholds_are_those_of_score(trained: Path, tmp_path: Path) -> None:
    capture = CAPTURE  # longer than the model's warm-up
    summary(capture, "--model", trained, "--out", tmp_path / "a")
    rows = pq.read_table(tmp_path / "a/scores.parquet")
    row: Any = as_dicts(rows.filter(pc.greater(rows["scored_pkts"], 10)))[-1]
    uid = row["uid"]
    summary(capture, "--model", trained, "--out", tmp_path / "b", "--trace", uid)
    written = pq.read_table(tmp_path / "b/trace.parquet")
    got = trace(capture, Config(), chosen_models(Config(), [str(trained)]), frozenset([uid]))
    assert got.packets.num_rows == written.num_rows == row["orig_pkts"] + row["resp_pkts"]
    for name in ("ts", "direction", "size", "segment", "recovery", "score.kitsune"):
        assert got.packets[name].combine_chunks().equals(written[name].combine_chunks()), name
    assert pc.count(got.packets["score.kitsune"]).as_py() > 0
    assert got.thresholds == {"kitsune": row["threshold"]}
    assert got.left_out == 0
    number = got.packets["number"].to_numpy()
    assert number[0] > 4096  # not of the first block
    assert times_of(capture)[number].tolist() == got.packets["ts"].cast(pa.int64()).to_pylist()


def test_packets_beyond_the_bound_are_counted(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound holds for all connections together, ended or not."""
    capture = copied(tmp_path / "x.pcap")
    monkeypatch.setattr(tracers, "MOST_ROWS", 6)
    uids = frozenset(read_connections([capture])["uid"].to_pylist())
    got = trace(capture, Config(), chosen_models(Config(), [str(trained)]), uids)
    assert got.packets.num_rows == 6
    assert got.left_out == 2 * len(Exchange(T0).packets()) + 1 - 6


def test_records_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    capture = copied(tmp_path / "x.pcap")
    records = read_connections([capture])
    (a, b), communities = records["uid"].to_pylist(), records["community_id"].to_pylist()
    assert chosen_records(capture, [records], [b, a])["uid"].to_pylist() == [b, a]
    assert chosen_records(capture, [records.slice(0, 1), records.slice(1)], [communities[1]])[
        "uid"
    ].to_pylist() == [b]
    assert chosen_records(capture, [records], [b, communities[1]])["uid"].to_pylist() == [b]


def test_a_name_that_is_not_there_is_said_with_some_that_are(tmp_path: Path) -> None:
    capture = copied(tmp_path / "x.pcap")
    records = read_connections([capture])
    wanted = [records["uid"][0].as_py(), "CAAAAAAAAAAAAAAAA"]
    there = rf"there are {wanted[0]} \(10\.0\.0\.10:40000 > 10\.0\.0\.1:80 tcp\)"
    said = rf"x\.pcap: no connection CAAAAAAAAAAAAAAAA; {there}"
    with pytest.raises(InputError, match=said):
        chosen_records(capture, [records], wanted)
    with pytest.raises(InputError, match=r"there are none$"):
        chosen_records(capture, [records.slice(0, 0)], wanted)
    with pytest.raises(InputError, match=r"and 5 more$"):
        chosen_records(capture, [records] * 5, wanted)


def test_interim_records_do_not_count(tmp_path: Path) -> None:
    records = read_connections([copied(tmp_path / "x.pcap")])
    live = records.set_column(
        records.column_names.index("ending"), "ending", pa.array(["live"] * records.num_rows)
    )
    uid = records["uid"][0].as_py()
    assert chosen_records(tmp_path, [live, records], [uid]).num_rows == 1


def test_too_many_connections_of_an_id_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = read_connections([copied(tmp_path / "x.pcap")])
    monkeypatch.setattr(traces, "MOST_CHOSEN", 1)
    with pytest.raises(InputError, match="2 connections have these ids: give the uids of at most 1"):
        chosen_records(tmp_path, [records], records["uid"].to_pylist())
