"""A run whose halves are moved apart: capture, labels and frames go together."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow.parquet
import pytest

from engine.commands.reading import read_packets
from engine.config import Config
from probing.lab import assemble
from probing.lab.assemble import Made
from probing.lab.settings import Corpus, Entry
from tests.support.lab import perform

pytestmark = pytest.mark.lab

PAUSE_S = 900.0


def test_the_second_half_of_a_run_comes_after_the_pause(tmp_path: Path) -> None:
    entry = {"scenario": "http", "server": "nginx", "client": "asyncio", "activity": "get", "samples": 4, "copies": 2,
             "pause_s": PAUSE_S}  # fmt: skip
    done = perform(tmp_path, entry)
    for one in done:
        joined = sorted(one.joined(), key=lambda pair: pair[0]["start"])
        assert [row["pause_s"] for row, _ in joined] == [0.0, 0.0, PAUSE_S, PAUSE_S]
        assert 900 < joined[2][1]["ts"] - joined[1][1]["ts"] < 901
        assert all(connection["duration"] < 1 for _, connection in joined)
    corpus = Corpus(name="c", about="", vantage=("client",), runs=(Entry.model_validate(entry),))
    assemble.assemble(corpus, [one.run for one in done], tmp_path, tmp_path, Made("", 0.0, 1))
    ts = [t for p in read_packets([tmp_path / "c.pcap.zst"], Config()) for t in p.ts.tolist()]
    gaps = sorted(b - a for a, b in pairwise(ts))[-3:]
    assert 2e9 <= gaps[0] < 2.01e9  # between the runs
    assert all(900e9 < gap < 901e9 for gap in gaps[1:])
    frames = pyarrow.parquet.read_table(tmp_path / "c.frames.parquet").column("ts").cast("int64")
    assert frames.to_pylist() == ts
