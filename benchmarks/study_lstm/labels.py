"""Which label goes with misclassification: correlations, pooled and within activity, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.study_lstm.data import unit_of
from engine.types import Floats
from probing.analysis.roc import Bootstrap
from probing.corpus.columns import dictionary
from probing.training.sequences import Sequences

MOST_VALUES = 12  # most values of a label that are looked at one by one
LEFT_OUT = {
    "run", "pair", "twin", "sample", "user", "src", "sport", "dst", "start", "end", "sample_start", "phases", "problem",
    "corpus", "part", "attack", "attack_kind", "scenario",
}  # fmt: skip


def columns(labels: pa.Table) -> Iterator[tuple[str, Floats]]:
    """Every label that varies, as numbers; a label of words once for each of its values."""
    for name in labels.column_names:
        column = labels.column(name)
        if name in LEFT_OUT or name.endswith(("_up", "_down")):
            continue
        if (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_boolean(column.type)
        ):
            yield name, np.nan_to_num(np.array(column.cast(pa.float64()).to_pylist(), float))
        elif pa.types.is_string(column.type):
            code, names = dictionary(column)
            if len(names) <= MOST_VALUES:
                for k, value in enumerate(names):
                    yield f"{name}={value}", (code == k).astype(float)
    for name in ("lost", "lost_data"):
        yield (
            name,
            sum(
                np.nan_to_num(labels.column(f"{name}_{way}").to_numpy().astype(float))
                for way in ("up", "down")
            ),
        )


def correlations(
    data: Sequences, scores: Floats, thresholds: Floats, attack: NDArray[np.bool_], how: Bootstrap
) -> dict[str, list[dict[str, Any]]]:
    """Pearson's r of every label with misclassification: of all, of benign connections, and of each kind of attack.

    scores: (m, n) of m nets; an error is a connection on the wrong side of its net's threshold.
    """
    wrong = (scores > thresholds[:, None]) != attack
    kind = np.array(data.labels.column("activity").to_pylist())
    groups = {"all": np.ones(len(data), bool), "benign": ~attack, "attacks": attack}
    groups |= {name: attack & (kind == name) for name in sorted(set(kind[attack]))}
    out = {}
    for group, mask in groups.items():
        rows: list[dict[str, Any]] = []
        for name, column in dict(columns(data.labels)).items():
            if np.ptp(column[mask]) > 0:
                rows.append(
                    {"label": name, **_one(column[mask], wrong[:, mask], unit_of(data.labels)[mask], how)}
                )
        out[group] = sorted(rows, key=lambda row: -abs(row["r"]))
    return out


def _one(x: Floats, wrong: NDArray[np.bool_], unit: NDArray[np.int64], how: Bootstrap) -> dict[str, float]:
    """r, its interval, and the share of errors."""
    names, unit = np.unique(unit, return_inverse=True)
    rng = np.random.default_rng(how.seed)

    def sums(y: Floats) -> Floats:
        return np.stack(
            [np.bincount(unit, v, names.size) for v in (np.ones_like(x), x, x * x, y, y * y, x * y)]
        )

    each = np.stack([sums(y.astype(float)) for y in wrong])  # (m, 6, units)

    def r(s: Floats) -> float:
        n, sx, sxx, sy, syy, sxy = s
        spread = (n * sxx - sx * sx) * (n * syy - sy * sy)
        return float((n * sxy - sx * sy) / np.sqrt(spread)) if spread > 0 else 0.0

    value = float(np.mean([r(s.sum(axis=1)) for s in each]))
    rounds = np.empty(how.rounds)
    for k in range(how.rounds):
        weight = np.bincount(rng.integers(names.size, size=names.size), minlength=names.size)
        nets = rng.integers(len(each), size=len(each))
        rounds[k] = np.mean([r(each[net] @ weight) for net in nets])
    tail = (1 - how.level) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail])
    return {"r": value, "low": float(low), "high": float(high), "errors": float(wrong.mean())}
