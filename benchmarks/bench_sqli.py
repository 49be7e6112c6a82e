"""How well do counts of a connection tell an injection's visit from a customer's?

    python -m benchmarks.bench_sqli FOLDER/NAME --json OUT

Reads a corpus with visits of the scenarios sql and sql-injection. Every kind of injection is held against the
customers' connections at the same server: each of ten counts alone, and together by logistic regression and by boosted
trees, which learn from four fifths of the runs and score the rest, five times. Injections that failed stand apart.
Intervals are bootstrapped over runs. An area near 0.5 means that counts say nothing, near 1 that they give an injection
away.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.measure import report
from engine.commands.reading import read_packets
from engine.config import Config
from engine.notation import address_text
from probing.analysis.roc import Estimate, Sample, area, measures
from probing.corpus.columns import dictionary
from probing.corpus.corpus import Corpus, read_corpus
from probing.corpus.join import join

COUNTS = (
    "packets up", "packets down", "bytes up", "bytes down", "data packets up", "data packets down", "duration",
    "mean payload up", "mean payload down", "largest payload up",
)  # fmt: skip
FOLDS, SEED = 5, 0
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def counts(corpus: Corpus) -> Floats:
    """The counts of each connection; (rows, 10) in the order of COUNTS, sizes in bytes of payload, duration in s."""
    rows = corpus.labels.num_rows
    sources, ports = (corpus.labels.column(name).to_pylist() for name in ("src", "sport"))
    found = np.zeros((rows, 2, 4))  # by direction: packets, bytes, data packets, largest payload
    first, last = np.full(rows, np.iinfo(np.int64).max), np.zeros(rows, np.int64)
    for packets, table in _packets(corpus.capture):
        row = join(corpus.labels, table)
        ours = row >= 0
        row, payload, ts = row[ours], packets.payload[ours].astype(float), packets.ts[ours]
        source, port = (table.column(name).to_pylist() for name in ("id.orig_h", "id.orig_p"))
        ends = zip(row.tolist(), np.flatnonzero(ours).tolist())
        down = np.array([(source[k], port[k]) != (sources[r], ports[r]) for r, k in ends], np.int64)
        for column, values in enumerate((np.ones(row.size), payload, payload > 0)):
            np.add.at(found[:, :, column], (row, down), values)
        np.maximum.at(found[:, :, 3], (row, down), payload)
        np.minimum.at(first, row, ts)
        np.maximum.at(last, row, ts)
    means = found[:, :, 1] / np.maximum(1, found[:, :, 2])
    duration = np.maximum(0, last - first) / 1e9
    return np.column_stack((*found[:, :, 0].T, *found[:, :, 1].T, *found[:, :, 2].T, duration, *means.T,
                            found[:, 0, 3]))  # fmt: skip


def _packets(capture: Path) -> Iterator[tuple[Any, pa.Table]]:
    """Packets, and the same as connection records of no duration, which `join` finds the rows of."""
    names = {6: "tcp", 17: "udp"}
    for p in read_packets([capture], Config()):
        src, dst = (pa.array(address_text(np.zeros_like(lo), lo)) for lo in (p.src_lo, p.dst_lo))
        yield p, pa.table({
            "id.orig_h": src, "id.resp_h": dst, "id.orig_p": pa.array(p.sport), "id.resp_p": pa.array(p.dport),
            "proto": [names.get(proto, "icmp") for proto in p.proto.tolist()],
            "ts": pa.array(p.ts, pa.timestamp("ns", tz="UTC")), "duration": pa.array(np.zeros(p.ts.size)),
        })  # fmt: skip


def learned(x: Floats, positive: Bools, run: Ints) -> dict[str, Floats]:
    """Scores of each model for every row, by a model that has not seen its run."""
    logs = FunctionTransformer(np.log1p)
    models = {
        "logistic regression": make_pipeline(
            logs, StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")
        ),
        "boosted trees": HistGradientBoostingClassifier(class_weight="balanced", random_state=SEED),
    }
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    scores = {name: np.zeros(positive.size) for name in models}
    for train, test in folds.split(x, positive, run):
        for name, model in models.items():
            model.fit(x[train], positive[train])
            scores[name][test] = model.predict_proba(x[test])[:, 1]
    return scores


def compared(x: Floats, positive: Bools, run: Ints) -> dict[str, Any]:
    """The areas of the models with their intervals, and of each count alone."""
    alone = {name: area(x[:, k], positive) for k, name in enumerate(COUNTS)}
    return {
        "attacks": int(positive.sum()), "benign": int((~positive).sum()), "runs": int(np.unique(run).size),
        "models": {
            name: measures(Sample(scores[None], positive, run)).area._asdict()
            for name, scores in learned(x, positive, run).items()
        },
        "alone": {name: max(value, 1 - value) for name, value in alone.items()},
    }  # fmt: skip


def kinds(labels: pa.Table) -> Iterator[tuple[str, str, bool, Bools, Bools]]:
    """Activity, server, success, and the rows of each kind of injection and of the customers held against it."""
    column = {
        name: np.array(labels.column(name).to_pylist(), object)
        for name in ("scenario", "activity", "server_impl", "carries_attack", "succeeded")
    }
    attack = (column["scenario"] == "sql-injection") & (column["carries_attack"] == True)  # noqa: E712
    for activity in sorted(set(column["activity"][attack])):
        for server in sorted(set(column["server_impl"])):
            benign = (column["scenario"] == "sql") & (column["server_impl"] == server)
            for succeeded in (True, False):
                chosen = attack & (column["activity"] == activity) & (column["server_impl"] == server)
                chosen &= column["succeeded"] == succeeded
                if chosen.any() and benign.any():
                    yield activity, server, succeeded, chosen, benign


def _units(labels: pa.Table) -> Ints:
    """(rows,) run of each connection; twins, which have the same contents, are one."""
    columns = zip(labels.column("run").to_pylist(), labels.column("pair").to_pylist())
    return dictionary(pa.chunked_array([[pair.rpartition("-")[0] or run for run, pair in columns]]))[0]


def line(kind: dict[str, Any]) -> str:
    """A line of the text table."""
    areas = "  ".join(
        f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in (Estimate(**m) for m in kind["models"].values())
    )
    best, value = max(kind["alone"].items(), key=lambda pair: pair[1])
    what = f"{kind['activity']} {'succeeded' if kind['succeeded'] else 'failed'}"
    return f"{what:<26} {kind['attacks']:>5} {kind['benign']:>6}  {areas}  {value:.3f} {best}"


def main() -> None:
    """Read, learn, compare and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    corpus = read_corpus(given.corpus)
    x, run = counts(corpus), _units(corpus.labels)
    found = []
    print(
        "kind                     attacks benign  logistic regression   boosted trees         best count alone",
        file=sys.stderr,
    )
    with threadpool_limits(1):  # small tasks: threads would wait for each other
        for activity, server, succeeded, attack, benign in kinds(corpus.labels):
            both = attack | benign
            kind = {"activity": activity, "server": server, "succeeded": succeeded,
                    **compared(x[both], attack[both], run[both])}  # fmt: skip
            print(line(kind), file=sys.stderr)
            found.append(kind)
    mirrored = corpus.labels.filter(pc.equal(corpus.labels.column("scenario"), "sql")).column("mirrored")
    report({}, "", given.json, kinds=found, mirrored_share=float(pc.mean(mirrored.cast(pa.int8())).as_py()))


if __name__ == "__main__":
    main()
