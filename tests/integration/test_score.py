"""The whole path on the demo capture: capture, labels, bus, detectors, sinks and metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from engine.commands import score as app
from engine.commands.reading import read_packets
from engine.commands.run_summary import RunSummary
from engine.config import Config, load, replace
from engine.labels.file import read_labels
from engine.labels.rules import Labels
from tests.support.demo import CAPTURE, CONFIG, LABELS, piece

pytestmark = [
    pytest.mark.compiled,
    pytest.mark.skipif(not CAPTURE.is_file(), reason=f"no demo capture at {CAPTURE}"),
]

LEARN = {
    "kitsune.kitnet.map_samples": 1200,
    "kitsune.kitnet.learn_samples": 8400,
    "kitsune.scorer.calibrate_packets": 2400,
}


def scored(
    out: Path,
    captures: Sequence[Path] = (CAPTURE,),
    labels: Labels | None = None,
    speed: float = 0.0,
    **changes: Any,
) -> tuple[RunSummary, pa.Table]:
    """Score into a directory; ``changes`` to the demo's configuration, with __ for dots."""
    dotted = {k.replace("__", "."): v for k, v in changes.items()}
    config = replace(load(CONFIG), "test", {**LEARN, "output.directory": str(out), **dotted})
    if labels is None:
        config = config.model_copy(update={"labels": Config().labels})
    summary = app.score(app.Job(captures, config, labels, speed=speed))
    return summary, pq.read_table(out / "scores.parquet")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary, pa.Table]:
    """The demo, scored with its labels."""
    out = tmp_path_factory.mktemp("demo")
    return (out, *scored(out, labels=read_labels(LABELS)))


def ended(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        table.filter(table.column("final")).drop_columns(["ts", "peak_at"]).to_pylist()
    )
    return rows


def test_every_connection_has_the_labels_of_its_row(labelled: tuple[Path, RunSummary, pa.Table]) -> None:
    _, summary, table = labelled
    rows = ended(table)
    assert len(rows) == summary.connections
    unlabelled = [row for row in rows if row["label.task"] is None and row["proto"] != "arp"]
    assert {row["proto"] for row in rows} >= {"tcp", "udp", "icmp"}
    assert len(unlabelled) < 0.01 * len(rows)
    scans = [row for row in rows if row["label.activity"] == "port-scan"]
    assert len(scans) > 100
    assert {row["id.orig_h"] for row in scans} == {scans[0]["id.orig_h"]}
    assert all(row["label.attack"] == "1" for row in scans)


def test_the_attack_stands_out(labelled: tuple[Path, RunSummary, pa.Table]) -> None:
    _, summary, table = labelled
    rows = [row for row in ended(table) if row["phase"] == "score" and row["scored_pkts"]]
    assert summary.phase == "score"
    share = {
        attack: np.mean([row["alarm"] for row in rows if row["label.attack"] == attack])
        for attack in ("0", "1")
    }
    assert share["1"] > 10 * share["0"]
    assert sum(row["label.attack"] == "1" for row in summary.top) >= 8


def test_alerts_carry_labels_and_are_one_a_connection_that_alarmed(
    labelled: tuple[Path, RunSummary, pa.Table],
) -> None:
    out, summary, table = labelled
    alerts = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    assert len(alerts) == summary.alerts
    uids = [alert["wiresonde"]["uid"] for alert in alerts]
    assert len(set(uids)) == len(uids)
    by_uid = {row["uid"]: row for row in ended(table)}
    assert set(uids) >= {uid for uid, row in by_uid.items() if row["alarm"]}
    for alert in alerts:
        row = by_uid[alert["wiresonde"]["uid"]]
        assert alert["labels"]["activity"] == row["label.activity"]
        assert alert["network"]["community_id"] == row["community_id"]


def test_metrics_count_by_model_and_slice_what_the_scores_say(
    labelled: tuple[Path, RunSummary, pa.Table],
) -> None:
    out, summary, table = labelled
    text = (out / "metrics.prom").read_text()
    got = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in parse(text) for s in f.samples}
    names = load(CONFIG).labels.slice
    assert names

    def sliced(row: dict[str, Any]) -> dict[str, str]:
        return {n: row[f"label.{n}"] or "" for n in names}

    def labels(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        version = "learning" if row["threshold"] is None else row["version"]
        return tuple(sorted({"model": row["model"], "version": version, **sliced(row)}.items()))

    rows = ended(table)
    connections = Counter(tuple(sorted(sliced(row).items())) for row in rows)
    alarms = Counter(labels(row) for row in rows if row["alarm"])
    scores = Counter(labels(row) for row in rows if row["scored_pkts"])
    assert {dict(key)["version"] for key in scores} > {"learning"}
    for name, counts in (
        ("wiresonde_connections_total", connections),
        ("wiresonde_alarms_total", alarms),
        ("wiresonde_score_count", scores),
    ):
        assert {key: n for (series, key), n in got.items() if series == name and n} == counts
    assert got["wiresonde_packets_total", (("sensor", "wiresonde"),)] == summary.packets


def test_values_beyond_the_most_allowed_are_folded_into_other_and_counted(tmp_path: Path) -> None:
    capture = piece(tmp_path / "piece.pcap", 3000)
    _, table = scored(
        tmp_path, [capture], read_labels(LABELS), labels__slice=["activity"], labels__max_values=2
    )
    text = (tmp_path / "metrics.prom").read_text()
    samples = [s for f in parse(text) for s in f.samples]
    shown = {s.labels["activity"] for s in samples if s.name == "wiresonde_connections_total"}
    assert len(shown - {"", "other"}) == 2
    folded = sum(s.value for s in samples if s.name == "wiresonde_folded_label_values_total")
    other = sum(
        s.value
        for s in samples
        if s.name == "wiresonde_connections_total" and s.labels["activity"] == "other"
    )
    assert folded == other == sum(row["label.activity"] not in (*shown, None) for row in ended(table)) > 0


def connections(table: pa.Table) -> list[tuple[Any, ...]]:
    """Connections without what their model says, in an order of their own."""
    names = table.column_names[: table.column_names.index("model")]
    plain = table.filter(table.column("final")).select(names)
    plain = plain.set_column(0, "ts", plain.column("ts").cast(pa.int64()))
    return sorted(tuple(row.items()) for row in plain.to_pylist())


def test_one_partition_and_four_give_the_same_connections(
    labelled: tuple[Path, RunSummary, pa.Table], tmp_path: Path
) -> None:
    _, one, table = labelled
    summary, other = scored(tmp_path, labels=read_labels(LABELS), bus__partitions=4)
    assert (summary.packets, summary.connections) == (one.packets, one.connections)
    assert [dict(c)["uid"] for c in connections(other)] == [dict(c)["uid"] for c in connections(table)]
    assert connections(other) == connections(table)
    assert set(other.column("partition").to_pylist()) == {0, 1, 2, 3}


def bits(table: pa.Table) -> bytes:
    """Everything but offset and row, which tell how the stream was cut into messages, sorted by connection."""
    plain = table.drop_columns(["offset", "row"]).sort_by([("uid", "ascending"), ("final", "ascending")])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain.combine_chunks())
    data: bytes = sink.getvalue().to_pybytes()
    return data


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A piece of the demo in which a model learns and scores, and its scores."""
    out = tmp_path_factory.mktemp("reference")
    capture = piece(out / "piece.pcap", 6000)
    _, table = scored(out, [capture], **SHORT)
    assert table.num_rows > 100
    assert set(table.column("phase").to_pylist()) >= {"learn", "calibrate", "score"}
    return capture, bits(table)


SHORT: dict[str, Any] = {
    "kitsune__kitnet__map_samples": 200,
    "kitsune__kitnet__learn_samples": 1400,
    "kitsune__scorer__calibrate_packets": 2500,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"bus__queue_blocks": 1},
        {"bus__block_packets": 64},
        {"bus__block_packets": 64, "bus__queue_blocks": 1},
        {"bus__block_packets": 1000, "output__flush_connections": 1},
        {"speed": 500.0},
        {"speed": 500.0, "bus__queue_blocks": 1, "bus__block_packets": 100},
    ],
    ids=["queue of 1", "blocks of 64", "both", "flush each", "paced", "paced, queue of 1"],
)
def test_pace_blocks_and_queues_change_no_bit_of_a_score(
    changes: dict[str, Any], reference: tuple[Path, bytes], tmp_path: Path
) -> None:
    capture, expected = reference
    _, table = scored(tmp_path, [capture], **(SHORT | changes))
    assert bits(table) == expected


def test_several_partitions_give_the_same_scores_in_every_run(
    reference: tuple[Path, bytes], tmp_path: Path
) -> None:
    capture, _ = reference
    runs = [scored(tmp_path / str(k), [capture], bus__partitions=3, **SHORT)[1] for k in range(2)]
    assert bits(runs[0]) == bits(runs[1])


def test_a_paced_replay_takes_the_time_of_the_capture(tmp_path: Path) -> None:
    capture = piece(tmp_path / "piece.pcap", 2000)
    ts = np.concatenate([p.ts for p in read_packets([capture])])
    seconds = (ts[-1] - ts[0]) * 1e-9
    summary, _ = scored(tmp_path, [capture], speed=10.0, **SHORT)
    assert summary.seconds >= 0.9 * seconds / 10.0
