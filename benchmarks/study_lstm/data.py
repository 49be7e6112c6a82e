"""Corpora as sequences of tokens, in the parts of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.features.tokens import TokenConfig
from engine.types import Floats
from probing.corpus.columns import Ints
from probing.corpus.corpus import read_corpus
from probing.corpus.labelled import Labelled, of_corpus
from probing.corpus.split import split, units
from probing.training.sequences import ATTACK, UNSURE, Sequences, join_sequences, read_sequences, truth

LINKS = ("none", "loss", "jitter", "both")
FAULTS = ("loss", "jitter", "both")
HELD_OUT = 0.15  # share of the runs that learning does not see: early stopping, and thresholds
MIX = 0.15  # share of connections with faults in the training with a mix
SEED = 1  # of the splits
COUNTS = (
    "orig_pkts",
    "resp_pkts",
    "orig_bytes",
    "resp_bytes",
)  # of a connection, given to the trivial baseline


@dataclass(frozen=True)
class Parts:
    """The connections of one vantage with the tokens of one policy."""

    train: Sequences
    held_out: Sequences
    mixed: Sequences | None  # as train, but with MIX of connections with faults
    mixed_held_out: Sequences | None
    calibrate: Sequences  # no faults: benign ones of their own runs, and the attacks held out
    calibrate_faults: Sequences | None  # the same, and connections with faults
    test: Sequences
    sweep: Sequences | None


def parts(folder: Path, vantage: str, policy: str) -> Parts:
    """The parts of a folder with ``sqli``, and where they are, ``sqli-train``, ``sqli-faults`` and ``sqli-sweep``."""
    tokens = TokenConfig(policy=policy)  # type: ignore[arg-type]
    whole = sequences(folder / "sqli", vantage, tokens)
    part = np.array(whole.labels.column("part").to_pylist())
    if (
        folder / "sqli-train.manifest.json"
    ).exists():  # with the seed of sqli it repeats the visits of its part
        train = sure(sequences(folder / "sqli-train", vantage, tokens))
    else:
        train = sure(whole.chosen(part == "train"))
    learn, held = divided(train, {"learn": 1 - HELD_OUT, "held": HELD_OUT})
    benign = whole.chosen(part == "calibrate")
    calibrate = join_sequences([benign, held.chosen(truth(held.labels) == ATTACK)])
    mixed = mixed_held = seen = swept = None
    if (folder / "sqli-faults.manifest.json").exists():
        faults = sure(sequences(folder / "sqli-faults", vantage, tokens))
        own, other = divided(faults, {"learn": 0.5, "calibrate": 0.5})
        own_learn, own_held = divided(own, {"learn": 1 - HELD_OUT, "held": HELD_OUT})
        mixed, mixed_held = mix(learn, own_learn), mix(held, own_held)
        seen = join_sequences([calibrate, other])
    if (folder / "sqli-sweep.manifest.json").exists():
        swept = sequences(folder / "sqli-sweep", vantage, tokens)
    return Parts(learn, held, mixed, mixed_held, calibrate, seen, whole.chosen(part == "test"), swept)


def sequences(corpus: Path, vantage: str, tokens: TokenConfig) -> Sequences:
    """A corpus's connections, with columns of the tracker's in their labels."""
    found = read_corpus(corpus)
    chosen = (
        found
        if vantage not in found.captures
        else replace(found, captures={vantage: found.captures[vantage]})
    )
    known = of_corpus(chosen)
    return read_sequences(replace(known, labels=measured(known)), [chosen.capture], tokens)


def measured(known: Labelled) -> pa.Table:
    """Labels with what the tracker saw: segments sent again and out of order, and the share of time in recovery."""
    table = known.traffic.connections
    place = np.full(known.labels.num_rows, -1, np.int64)
    place[known.row[known.row >= 0]] = np.flatnonzero(known.row >= 0)
    rows = table.take(pa.array(place))
    columns = {
        "retransmitted": _both(rows, "retransmitted"), "reordered": _both(rows, "reordered"),
        "recovery_share": _floats(rows, "recovery_seconds") / np.maximum(_floats(rows, "duration"), 1e-9),
        "duration_s": _floats(rows, "duration"),
    }  # fmt: skip
    columns |= {name: _floats(rows, name) for name in COUNTS}
    labels = known.labels
    for name, column in columns.items():
        labels = labels.append_column(name, pa.array(column))
    return labels


def _floats(table: pa.Table, name: str) -> Floats:
    column: Floats = (
        table.column(name).combine_chunks().fill_null(0).cast(pa.float64()).to_numpy(zero_copy_only=False)
    )
    return column


def _both(table: pa.Table, name: str) -> Floats:
    return _floats(table, f"orig_{name}") + _floats(table, f"resp_{name}")


def sure(data: Sequences) -> Sequences:
    """The connections of which it is known what they are: attacks that failed left out."""
    return data.chosen(truth(data.labels) != UNSURE)


def divided(data: Sequences, shares: dict[str, float]) -> list[Sequences]:
    """Connections divided by run and pair."""
    return [data.chosen(mask) for mask in split(data.labels, shares, SEED).values()]


def mix(plain: Sequences, faulty: Sequences) -> Sequences:
    """As many connections as in plain, of which MIX are faulty, for attacks and benign ones alike."""
    rng, chosen = np.random.default_rng(SEED), []
    for attack in (False, True):
        pools = [np.flatnonzero((truth(data.labels) == ATTACK) == attack) for data in (plain, faulty)]
        many = min(round(MIX * pools[0].size), pools[1].size)
        chosen.append([rng.permutation(pools[0])[: pools[0].size - many], rng.permutation(pools[1])[:many]])
    drawn = []
    for k, data in enumerate((plain, faulty)):
        mask = np.zeros(len(data), bool)
        mask[np.concatenate([of[k] for of in chosen])] = True
        drawn.append(data.chosen(mask))
    return join_sequences(drawn)


def link_of(labels: pa.Table) -> NDArray[np.str_]:
    """(n,) the setting of the link of each connection: one of LINKS."""
    jitter, loss = (pc.fill_null(labels.column(n), 0).to_numpy() > 0 for n in ("jitter_ms", "loss_pct"))
    names: NDArray[np.str_] = np.array(LINKS)[loss + 2 * jitter]
    return names


def unit_of(labels: pa.Table) -> Ints:
    """(n,) number of the run of each connection, or of the runs that are twins of each other."""
    return units(labels).of_row
