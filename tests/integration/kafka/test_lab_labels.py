"""Labels from the lab to the last place where a score is seen: the topics, the files, the metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from engine.consumer.segments import merge
from probing.lab import labels
from tests.integration.kafka.site import ROOT, Site, wait_for
from tests.integration.kafka.test_log import get, read_all
from tests.support.lab import needs

pytestmark = [pytest.mark.kafka, pytest.mark.lab, pytest.mark.compiled]

SETTINGS = {
    "kitsune": {
        "kitnet": {"map_samples": 100, "learn_samples": 400}, "scorer": {"calibrate_packets": 200},
        "features": {"flows": 4096},
    },
    "labels": {"slice": ["activity", "attack", "loss_pct"]},
}  # fmt: skip
SAME = (
    "score",
    "peak_score",
    "mean_score",
    "threshold",
    "alarm",
    "scored_pkts",
    "phase",
    "probe",
    "conn_state",
    "history",
)


def lab_corpus(folder: Path) -> tuple[Path, Path]:
    """A corpus of the lab: web with and without losses, and the look-alike of a botnet."""
    needs("nginx")
    web = {"scenario": "http", "server": "nginx", "client": "asyncio", "samples": 15, "copies": 4}
    runs = [
        {**web, "activity": ["get", "multi-get"], "link": {"delay_ms": 5, "loss_pct": [0, 3]}},
        {
            "scenario": "c2",
            "activity": ["command-1", "command-3"],
            "samples": 6,
            "parameters": {"pause_ms": 10},
        },
    ]
    given = folder / "e2e.yaml"
    given.write_text(yaml.safe_dump({"name": "e2e", "about": "A test.", "runs": runs}))
    command = [sys.executable, "-m", "engine.cli", "lab", "run", str(given), "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "e2e.pcap.zst", folder / "e2e.labels.parquet"


@pytest.fixture(scope="module")
def scored(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path, Path]]:
    """A site whose detector has seen the corpus, the detector's folder, and the label file."""
    folder = tmp_path_factory.mktemp("lab")
    capture, known = lab_corpus(folder)
    site = Site(kafka_address, folder / "site", settings=SETTINGS)
    site.make_topics()
    site.run("replay", capture, "--labels", known)
    yield site, site.finish("lab"), known
    site.close()


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["id.orig_h"], row["id.orig_p"], row["id.resp_h"], row["id.resp_p"], row["proto"]


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    return list(table.drop(times).to_pylist())


def test_every_score_of_a_labelled_connection_carries_its_probe_and_labels(
    scored: tuple[Site, Path, Path],
) -> None:
    site, out, known = scored
    wanted = {
        (row["src"], row["sport"], row["dst"], row["dport"], row["proto"]): row
        for row in rows_of(pa.parquet.read_table(known))
    }
    files = merge([out]).table
    topic = pa.concat_tables(
        [pa.ipc.open_stream(m.value).read_all() for m in read_all(site, "scores")],  # type: ignore[attr-defined]
        promote_options="default",
    )
    book = {int(m.key): json.loads(m.value) for m in read_all(site, "probes")}  # type: ignore[attr-defined]
    for table in (files, topic):
        rows = rows_of(table.filter(table["final"]))
        assert Counter(map(key, rows)) == Counter(wanted.keys())
        for row in rows:
            labelled = wanted[key(row)]
            assert row["probe"] != 0
            for name in labels.LABELS:
                text = labelled[name]
                expected = (
                    None if text in (None, "") else repr(text) if isinstance(text, float) else str(text)
                )
                assert row.get(f"label.{name}") == expected, name
                assert book[row["probe"]].get(name) == expected, name
            assert not any(f"label.{c.name}" in row for c in labels.COLUMNS if c.kind == "measured")
    assert sum(row["score"] is not None for row in rows_of(files)) > 100


def test_the_log_and_one_process_give_the_same_scores(scored: tuple[Site, Path, Path]) -> None:
    site, out, known = scored
    direct = site.folder / "direct"
    site.run(
        "score",
        known.with_name("e2e.pcap.zst"),
        "--labels",
        known,
        "--partitions",
        site.partitions,
        "--out",
        direct,
    )
    ours = {key(row): row for row in rows_of(pa.parquet.read_table(direct / "scores.parquet"))}
    table = merge([out]).table
    theirs = {key(row): row for row in rows_of(table.filter(table["final"]))}
    assert ours.keys() == theirs.keys()
    columns = [name for name in next(iter(theirs.values())) if name.startswith("label.") or name in SAME]
    assert len(columns) > len(SAME)
    for k, row in theirs.items():
        assert {name: row[name] for name in columns} == {name: ours[k][name] for name in columns}


def test_slices_are_series_of_the_metrics(scored: tuple[Site, Path, Path]) -> None:
    site, _, known = scored
    detector = site.detect(
        "metrics", "--metrics-port", 0, group="metrics", state=site.folder / "state-metrics"
    )
    address = wait_for(lambda: re.search(r"metrics at (\S+)/metrics", detector.said()), "an address")[1]
    rows = pa.parquet.read_table(known, columns=["activity", "attack", "loss_pct"]).to_pylist()
    wanted = Counter((row["activity"], str(row["attack"]), repr(row["loss_pct"])) for row in rows)
    form = r'^wiresonde_connections_total\{activity="(.*?)",attack="(.*?)",loss_pct="(.*?)".*\} (\S+)$'

    def counted() -> Counter[tuple[str, str, str]]:
        found: Counter[tuple[str, str, str]] = Counter()
        for activity, attack, loss, n in re.findall(form, get(f"{address}/metrics"), re.MULTILINE):
            found[activity, attack, loss] += int(float(n))
        return found

    # those that end while packets still come: the log is not over, so the last stay open
    wait_for(lambda: counted().total() > 0.6 * len(rows), "most connections")
    found = counted()
    assert found <= wanted
    assert found.keys() == wanted.keys()
    detector.stop()
