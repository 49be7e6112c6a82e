"""Over Kafka, a model beside another changes no row of it, and a shadow comes and goes without a trace."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.consumer.segments import Merged, merge
from engine.scoring.columns import as_dicts
from tests.integration.kafka.site import LABELS, Site
from tests.integration.kafka.site import summary as printed
from tests.support.demo import piece

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]

LEARNING = {"baseline": {"learn_samples": 1800}, "scorer": {"calibrate_packets": 500}}
SHADOWED = {
    "kitsune": {"kind": "kitsune"},
    "watcher": {"kind": "baseline", "shadow": True, **LEARNING},
    "twin": {"kind": "kitsune", "shadow": True, "kitnet": {"seed": 7}},
}


def of(merged: Merged, model: str) -> pa.Table:
    return merged.table.filter(pc.equal(merged.table["model"], model)).combine_chunks()


def assert_rows_equal(got: Merged, wanted: Merged) -> None:
    assert got.gaps == {}
    assert got.spans == wanted.spans
    a, b = of(got, "kitsune"), of(wanted, "kitsune")
    assert a.num_rows == b.num_rows > 0
    for name in a.column_names:
        assert a[name].equals(b[name]), name


def test_rows_of_kitsune_are_equal_with_and_without_shadows_beside_it(site: Site, wanted: Merged) -> None:
    site.configure(models=SHADOWED)
    got = merge([site.finish("shadowed", group="shadowed", state=site.folder / "state-shadowed")])
    assert_rows_equal(got, wanted)
    assert len(of(got, "watcher")) > 0
    assert len(of(got, "twin")) > 0
    assert sum(of(got, "watcher")["final"].to_pylist()) == sum(of(got, "kitsune")["final"].to_pylist())
    alerts = [
        json.loads(line) for line in (site.folder / "out-shadowed/alerts.jsonl").read_text().splitlines()
    ]
    assert {a["wiresonde"]["model"] for a in alerts} == {"kitsune"}


def test_shadows_turned_on_and_off_over_restarts_lose_nothing_and_begin_cold_alone(
    empty_site: Site, tmp_path: Path
) -> None:
    site, folders, said = empty_site, [], []
    for k, models in enumerate(({}, SHADOWED, {}, SHADOWED)):
        part = piece(tmp_path / f"{k}.pcap", 5000, 5000 * k)
        site.run("replay", part, "--labels", LABELS, "--epoch", k + 1)
        site.configure(models=models)
        folders.append(site.finish(f"toggled-{k}", group="toggled"))
        said.append((site.folder / f"toggled-{k}.log").read_text())
    site.configure()
    assert_rows_equal(merge(folders), site.undisturbed())
    cold = [sorted(set(re.findall(r"model=(\S+) starts without state", text))) for text in said]
    assert cold == [[], ["twin", "watcher"], [], ["twin", "watcher"]]


def test_a_model_that_alarms_and_has_changed_stops_the_detector_with_its_name(site: Site) -> None:
    state = site.folder / "state-changed"
    site.finish("first", group="changed", state=state)
    site.configure(models={"kitsune": {"kind": "kitsune", "kitnet": {"seed": 5}}})
    detector = site.detect("second", "--stop-at-end", group="changed", state=state)
    text = detector.ended(1)
    assert "model kitsune: the snapshot was made with another configuration or bundle" in text
    assert "to start without it, move" in text


def test_a_trace_over_kafka_has_every_packet_of_the_chosen_connections(site: Site, wanted: Merged) -> None:
    rows = of(wanted, "kitsune")
    rows = rows.filter(rows["final"])
    uids = rows["uid"].to_pylist()[:5]
    words = [w for uid in uids for w in ("--trace", uid)]
    out = site.finish("traced", *words, group="traced", state=site.folder / "state-traced")
    trace = pa.concat_tables([pq.read_table(path) for path in sorted(out.glob("trace-*.parquet"))])
    counts = dict(zip(*(pc.value_counts(trace["uid"]).flatten()[k].to_pylist() for k in range(2))))
    for uid in uids:
        (row,) = as_dicts(rows.filter(pc.equal(rows["uid"], uid)))
        assert counts[uid] == row["orig_pkts"] + row["resp_pkts"]


def test_the_report_has_every_model(site: Site) -> None:
    site.configure(models=SHADOWED)
    done = site.run(
        "detect", "--group", "report", "--state", site.folder / "state-report", "--stop-at-end", "--json"
    )
    report = printed(done.stdout)
    assert sorted(report["models"]) == ["kitsune", "twin", "watcher"]
    assert report["alarms"] == report["models"]["kitsune"]["alarms"]
    assert report["connections"] >= report["models"]["twin"]["scored"] > 0
