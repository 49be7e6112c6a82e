"""Sequence models score the same in one process, cut anywhere, over Kafka with consumers that crash, and by torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine.consumer.segments import Merged, merge
from engine.features.tokens import TokenConfig
from engine.scoring.columns import read_scores
from models.bundle import load
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import of_corpus
from tests.integration.kafka.site import ROOT, Site, assert_equal

pytestmark = [pytest.mark.kafka, pytest.mark.compiled]

CORPUS = ROOT / "corpora" / "sqli.pcap.zst"
BUNDLES = {
    "sequence": ROOT / "bundles" / "sqli-stream.safetensors",
    "before": ROOT / "bundles" / "sqli-keep.safetensors",
}
MODELS = [word for name, path in BUNDLES.items() for word in ("--model", f"{name}={path}")]
SECTIONS = {
    "kitsune": {"kind": "kitsune"}, "sequence": {"kind": "sequence"}, "before": {"kind": "sequence", "shadow": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Topics with the corpus, in messages of 500 packets."""
    with Site(kafka_address, tmp_path_factory.mktemp("sequence"), block_packets=500) as site:
        site.configure(models=SECTIONS, connections={"capacity": 16384})
        site.make_topics()
        site.run("replay", CORPUS)
        yield site


@pytest.fixture(scope="module")
def alone(filled: Site) -> Merged:
    return merge([filled.finish("alone", *MODELS, group="alone", state=filled.folder / "state-alone")])


def finals(table: pa.Table, name: str) -> dict[str, float]:
    """Score of each connection that ended, by uid."""
    rows = table.filter(pc.and_(table["final"], pc.equal(table["model"], name)))
    return dict(zip(rows["uid"].to_pylist(), rows["score"].to_pylist()))


def test_three_consumers_of_which_one_is_killed_give_the_rows_of_one(filled: Site, alone: Merged) -> None:
    killed = filled.detect("killed", *MODELS, group="three", crash="after-rename:2")
    others = [filled.detect(f"other-{k}", *MODELS, "--stop-at-end", group="three") for k in range(2)]
    assert killed.process.wait(timeout=180) == -signal.SIGKILL, killed.said()[-3000:]
    for other in others:
        other.ended()
    last = filled.finish("last", *MODELS, group="three")
    assert_equal(merge([killed.out, *(d.out for d in others), last]), alone)


@pytest.mark.parametrize("block", [4096, 777])
def test_one_process_cut_otherwise_gives_the_same_scores(
    block: int, filled: Site, alone: Merged, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    models = "".join(f"  {name}: {{kind: sequence}}\n" for name in BUNDLES)
    config.write_text(f"models:\n{models}bus: {{block_packets: {block}}}\n")
    out = tmp_path / "out"
    filled.config, before = config, filled.config
    try:
        filled.run("score", CORPUS, *MODELS, "--out", out)
    finally:
        filled.config = before
    whole = read_scores([out / "scores.parquet"])
    for name in BUNDLES:
        mine, theirs = finals(whole, name), finals(alone.table, name)
        assert len(theirs) > 4000
        assert mine == theirs


def test_torch_gives_the_same_scores(alone: Merged) -> None:
    pytest.importorskip("torch")
    from probing.training.network import Network, Shape, last_scores
    from probing.training.sequences import read_sequences

    known = of_corpus(read_corpus(CORPUS))
    ours = np.flatnonzero(known.row >= 0)
    place = np.zeros(known.labels.num_rows, np.int64)
    place[known.row[ours]] = ours
    uids = known.traffic.connections["uid"].take(pa.array(place))
    named = replace(known, labels=known.labels.append_column("uid", uids))
    for name, path in BUNDLES.items():
        made = load(path)
        network = Network(Shape(**made.config["lstm"]))
        network.take(made.arrays)
        data = read_sequences(named, [CORPUS], TokenConfig(policy=made.config["tokens"]["policy"]))
        said = finals(alone.table, name)
        mine = np.array([said[uid] for uid in data.labels["uid"].to_pylist()])
        assert mine.size > 4000
        assert np.abs(mine - last_scores(network, data)).max() < 1e-5
