"""Rows for frames, from the log of a link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from probing.lab import frames
from probing.lab.link import kernels, tables
from probing.lab.link.link import Bounds, Link
from probing.lab.settings import Link as Setting
from tests.support.lab_link import MS, Bench, Port
from tests.unit.probing.lab.test_vantage import release

pytestmark = pytest.mark.compiled


def written(folder: Path, link: Link, vantage: str) -> list[dict[str, Any]]:
    """The rows of a log's frames whose flows all have the same phases."""
    log = link.log()
    rows = [{"phases": '[["one",0]]'} for _ in log.flows]
    frames.write(folder / "f.parquet", log, vantage, rows, "r")
    table = pyarrow.parquet.read_table(folder / "f.parquet")
    return table.drop_columns(["ts"]).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("vantage", ["client", "server"])
def test_a_frame_of_arp_for_all_is_one_that_was_sent_and_no_duplicate(tmp_path: Path, vantage: str) -> None:
    ports = [Port(1, False), Port(2, False), Port(10, True), Port(11, True)]
    link = Link(ports, [Setting(loss_pct=100, duplicate_pct=100)] * 4, 1, Bounds(1 << 24, 1 << 17))  # type: ignore[arg-type]
    state, waiting = link._state, 0
    for k, origin in enumerate((0, 2)):
        frame = b"\xff" * 6 + ports[origin].mac + b"\x08\x06" + bytes(46)
        used = int(state.control[tables.USED])
        state.store[used : used + len(frame)] = np.frombuffer(frame, np.uint8)
        waiting = kernels.decide(state, origin, len(frame), (k + 1) * MS, waiting)
    n = int(state.control[tables.RECORDS])
    assert n == 6
    state.records["out_ts"][:n] = state.records["in_ts"][:n] + MS
    found = written(tmp_path, link, vantage)
    assert found == [
        {"frame": k, "run": "r", "verdict": "sent", "delayed_by_ms": 1.0, "overtaken": False, "duplicated": False,
         "corrupted": False, "phase": "one"} for k in (1, 2)
    ]  # fmt: skip


def test_what_is_not_carried_after_the_network_failed_is_cut_and_a_copy_by_the_link_is_a_duplicate(
    tmp_path: Path,
) -> None:
    bench = Bench(Setting(duplicate_pct=100))
    for k in range(2):
        bench.put(bench.client, 40_000, 80, ts=k * MS + 1, payload=9)
    assert bench.link.cut_after("10.0.0.10", 40_000, "client", 10)
    for k in range(2, 5):
        bench.put(bench.client, 40_000, 80, ts=k * MS + 1, payload=9)
    release(bench)
    sent = [(row["verdict"], row["duplicated"], row["delayed_by_ms"] is None, row["phase"])
            for row in written(tmp_path, bench.link, "client")]  # fmt: skip
    assert sent == [("sent", False, False, "one")] * 3 + [("cut", False, True, "one")] * 2
    heard = [row["duplicated"] for row in written(tmp_path, bench.link, "server")]
    assert heard == [False, True] * 3
