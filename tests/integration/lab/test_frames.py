"""Labels for packets: a row for each frame of a capture, which says what the link did to it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from engine.commands.reading import read_packets
from engine.config import Config
from probing.lab import assemble, frames
from probing.lab.assemble import Made
from probing.lab.settings import Corpus, Entry
from tests.integration.lab.test_link import total
from tests.support.lab import perform

pytestmark = pytest.mark.lab

TWINS = (
    {"delay_ms": 5, "loss_pct": 5, "duplicate_pct": 2, "corrupt_pct": 2, "reorder_pct": 2},
    {"delay_ms": 5, "burst_loss_pct": 5, "burst_packets": 2, "outage_every_ms": 80, "outage_ms": 20},
    {"delay_ms": 5, "rate_kbit": 2000, "queue_packets": 1, "congestion_control": "cubic"},
)


def test_each_frame_has_a_row_that_says_what_the_labels_count(tmp_path: Path) -> None:
    entry = {
        "scenario": "c2", "server": "hive", "client": "bot", "activity": "command-3", "samples": 2, "twins": TWINS,
        "parameters": {"content_bytes": 200_000, "requests": 3, "pause_ms": 20},
    }  # fmt: skip
    done = perform(tmp_path, entry)
    corpus = Corpus(name="c", about="", vantage=("client", "server"), runs=(Entry.model_validate(entry),))
    assemble.assemble(corpus, [one.run for one in done], tmp_path, tmp_path, Made("", 0.0, 1))
    rows = [row for one in done for row in one.rows]
    way = {}
    for side, name, direction in (("client", "c", "up"), ("server", "c.server", "down")):
        table = pyarrow.parquet.read_table(tmp_path / f"{name}.frames.parquet")
        found = table.set_column(1, "ts", table.column("ts").cast("int64")).to_pylist()
        captured = [
            ts for p in read_packets([tmp_path / f"{name}.pcap.zst"], Config()) for ts in p.ts.tolist()
        ]
        assert [row["ts"] for row in found] == captured
        assert [row["frame"] for row in found] == list(range(1, len(captured) + 1))
        counts = {word: sum(row["verdict"] == word for row in found) for word in frames.VERDICTS}
        assert counts == {
            "lost": total(rows, f"lost_{direction}"), "burst": total(rows, f"burst_lost_{direction}"),
            "outage": total(rows, f"outage_lost_{direction}"), "overflow": total(rows, f"overflow_{direction}"),
            "codel": 0, "cut": 0,
        }, side  # fmt: skip
        for row in found:
            assert (row["delayed_by_ms"] is None) == (row["verdict"] != "sent")
            assert row["delayed_by_ms"] is None or row["delayed_by_ms"] > 0
        assert {row["run"] for row in found} == {one.run.id for one in done}
        way[direction] = found
    dropped = {n: total(rows, f"{n}_down") for n in ("lost", "burst_lost", "outage_lost", "overflow")}
    assert min(dropped.values()) > 0, dropped
    # what comes to a side is there once more, as it came: both sides together have each of these twice
    both = way["up"] + way["down"]
    for name, column in (("overtaken", "reordered"), ("corrupted", "corrupted")):
        assert sum(row[name] for row in both) == 2 * (
            total(rows, f"{column}_up") + total(rows, f"{column}_down")
        )
    copies = total(rows, "duplicated_up") + total(rows, "duplicated_down")
    assert sum(row["duplicated"] for row in both) == copies > 0  # seen where they arrive, and only there
    table = pyarrow.parquet.read_table(
        tmp_path / "c.labels.parquet", columns=["run", "start", "end", "phases"]
    )
    for k, name in enumerate(("start", "end"), 1):
        table = table.set_column(k, name, table.column(name).cast("int64"))
    rows, phases = table.to_pylist(), set()
    for row in rows:
        marks = json.loads(row["phases"])
        others = [r for r in rows if r is not row]
        for frame in way["up"]:
            if row["start"] <= frame["ts"] <= row["end"] and not any(
                r["start"] <= frame["ts"] <= r["end"] for r in others
            ):
                before = [word for word, at in marks if at <= frame["ts"]]
                assert frame["phase"] == (before[-1] if before else None)
                phases.add(frame["phase"])
    assert len(phases) > 2
