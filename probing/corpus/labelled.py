"""Labelled connections, of the lab or of anybody: a row of labels for each, its run and its server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.errors import InputError
from engine.labels.file import read_labels
from probing.corpus.columns import Ints, ns
from probing.corpus.corpus import Corpus
from probing.corpus.join import join
from probing.corpus.traffic import Traffic, read_traffic

BLOCK_S = 600  # seconds of a block of time that stands for a run where labels have none
MAX_PROBES = 1 << 20  # most different combinations of labels in a file of others
YES, NO = frozenset({"1", "true", "yes"}), frozenset({"0", "false", "no"})
TEXTS = (
    "scenario",
    "activity",
    "attack_kind",
    "termination",
    "group",
    "pair",
    "part",
)  # empty when a file lacks them
DATA, EPHEMERAL = "data", "any"


@dataclass(frozen=True)
class Labelled:
    """Connections with their labels."""

    name: str
    labels: (
        pa.Table
    )  # a row a connection: run, attack, background, succeeded, TEXTS, and the file's other labels
    known: tuple[str, ...]  # label columns that the file has
    traffic: Traffic
    row: Ints  # (records,) the label row of each connection record, -1 for none
    server: list[str]  # server of each row
    port: list[str]  # port of each row, whichever server it is of
    runs_are: str  # what a run is
    silent: int  # label rows without a packet, left out
    unlabelled: int  # connections without a label row, left out


def of_corpus(corpus: Corpus) -> Labelled:
    """The connections of a corpus of the lab. Raises InputError for a damaged capture."""
    traffic = read_traffic([corpus.capture])
    row = join(corpus.labels, traffic.connections)
    there = np.zeros(corpus.labels.num_rows, bool)
    there[row[row >= 0]] = True
    number = np.where(there, np.cumsum(there) - 1, -1)
    labels = corpus.labels.filter(pa.array(there))
    row = np.where(row >= 0, number[row], -1)
    ends = zip(*(labels.column(name).to_pylist() for name in ("server_impl", "role", "dport", "proto")))
    places = [(impl, EPHEMERAL if role == DATA else str(port), proto) for impl, role, port, proto in ends]
    known = tuple(f.name for f in corpus.labels.schema if f.metadata[b"wiresonde.kind"] == b"label")
    return Labelled(
        corpus.name, labels, known, traffic, row,
        [f"{impl}, port {port}/{proto}" for impl, port, proto in places],
        [f"port {port}/{proto}" for _, port, proto in places],
        "runs of the corpus", int((~there).sum()), int((row < 0).sum()),
    )  # fmt: skip


def of_capture(capture: Path, labels_file: Path, block_s: float = BLOCK_S) -> Labelled:
    """The connections of a capture with a label file in the format of ``--labels``.

    A column ``run`` of the file names the runs; else a run is a source host in a block of time. Raises InputError.
    """
    known = read_labels(labels_file, MAX_PROBES)
    traffic = read_traffic([capture], known.tag)
    records = traffic.connections
    probe = np.array(records.column("probe").to_pylist(), np.int64)
    chosen = np.flatnonzero(probe != 0)
    row = np.full(probe.size, -1, np.int64)
    row[chosen] = np.arange(chosen.size)
    given = [known.probes[k] for k in probe[chosen].tolist()]
    names = tuple(dict.fromkeys(name for probe_labels in known.probes.values() for name in probe_labels))
    ends = records.take(pa.array(chosen))
    block = ns(ends.column("ts")) // round(block_s * 1e9)
    sources = ends.column("id.orig_h").to_pylist()
    runs = [
        labels.get("run") or f"{src} in block {k}" for labels, src, k in zip(given, sources, block.tolist())
    ]
    places = [
        (host, f"port {EPHEMERAL if port is None else port}/{proto}")
        for host, port, proto in zip(
            *(ends.column(n).to_pylist() for n in ("id.resp_h", "id.resp_p", "proto"))
        )
    ]
    return Labelled(
        capture.name, _table(labels_file, given, names, runs), names, traffic, row,
        [f"{host}, {port}" for host, port in places], [port for _, port in places],
        "column run" if "run" in names else f"a source host in {block_s:g} s", 0, int((row < 0).sum()),
    )  # fmt: skip


def _table(
    path: Path, given: Sequence[Mapping[str, str]], names: Sequence[str], runs: Sequence[str]
) -> pa.Table:
    """Labels of others as a table with the columns that the check needs."""
    if not {"attack", "attack_kind"} & set(names):
        raise InputError(f"{path}: no column attack or attack_kind: which connections are attacks?")
    columns: dict[str, pa.Array] = {
        name: pa.array([row.get(name, "") for row in given], pa.string()) for name in dict.fromkeys((*names, *TEXTS))
    }  # fmt: skip
    if "scenario" not in names and "task" in names:
        columns["scenario"] = columns["task"]
    attack = [_is_attack(path, row) for row in given]
    columns["attack"] = pa.array([int(hit) for hit in attack], pa.int8())
    columns["attack_kind"] = pa.array(
        [row.get("attack_kind") or "attack" if hit else "none" for hit, row in zip(attack, given)],
        pa.string(),
    )
    columns["succeeded"] = pa.array(
        [_truth(path, "succeeded", row.get("succeeded")) for row in given], pa.bool_()
    )
    columns["background"] = pa.array([0] * len(given), pa.int8())
    columns["run"] = pa.array(runs, pa.string())
    return pa.table(columns)


def _is_attack(path: Path, row: Mapping[str, str]) -> bool:
    given = _truth(path, "attack", row.get("attack"))
    return row.get("attack_kind", "none").lower() not in ("", "none", "benign") if given is None else given


def _truth(path: Path, name: str, value: str | None) -> bool | None:
    """A label as a truth; None when it is empty."""
    if not value:
        return None
    if value.lower() in YES or value.lower() in NO:
        return value.lower() in YES
    raise InputError(f"{path}: {name} {value!r} must be 0 or 1")
