"""Scores of the nets, thresholds, the cells of the table, and the differences that are claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.study_lstm.data import COUNTS, FAULTS, LINKS, Parts, link_of, unit_of
from benchmarks.study_lstm.nets import Net, arrays_of
from engine.types import Floats
from probing.analysis.paired import AREA, FALSE, FOUND, Paired, balanced_threshold, paired
from probing.analysis.roc import Bootstrap, Estimate, Sample
from probing.training.scoring import connection_scores, packet_scores
from probing.training.sequences import ATTACK, UNSURE, Sequences, truth

HOW = Bootstrap(rounds=2000, seed=0)
SETTINGS = (*LINKS, "faults")
FAMILIES = {
    "keep": ("keep", "drop-duplicates", "drop-late", "drop-episodes"),
    "no-acks": ("no-acks", "bytes", "stream"),
}  # the same nets, trained with the first, given the tokens of each
CLAIMS = (
    ("stream", "keep"), ("stream", "no-acks"), ("stream", "bytes"), ("no-acks", "keep"), ("drop-duplicates", "keep"),
    ("drop-late", "keep"), ("drop-episodes", "keep"),
)  # fmt: skip


class Judged(NamedTuple):
    """Scores of m nets on the test part of one vantage."""

    scores: Floats  # (m, n)
    plain: Floats  # (m,) no-fault thresholds
    seen: Floats | None  # (m,) thresholds chosen with faults in the calibration


@dataclass(frozen=True)
class Test:
    """What is known of the test part's connections, the same for all policies."""

    attack: NDArray[np.bool_]
    failed: NDArray[np.bool_]  # attacks that failed
    link: NDArray[np.str_]
    unit: NDArray[np.int64]
    mirrored: NDArray[np.bool_]  # benign ones that send harmless requests as long as an injection's

    def chosen(self, setting: str, *, mirrored: bool = True) -> NDArray[np.bool_]:
        """The connections of a setting of the link, attacks that failed left out, and mirrored ones if so asked."""
        right = np.isin(self.link, FAULTS) if setting == "faults" else self.link == setting
        return right & ~self.failed & (mirrored | ~self.mirrored)


def test_of(data: Sequences) -> Test:
    """The test part."""
    known = truth(data.labels)
    mirrored = np.array([value is True for value in data.labels.column("mirrored").to_pylist()])
    return Test(
        known == ATTACK,
        known == UNSURE,
        link_of(data.labels),
        unit_of(data.labels),
        mirrored & (known != ATTACK),
    )


def judged(nets: Sequence[Net], folder: Path, data: Parts) -> Judged:
    """Scores and thresholds of nets."""
    found, plain, seen = [], [], []
    for net in nets:
        arrays = arrays_of(net, folder)
        found.append(connection_scores(data.test, packet_scores(arrays, data.test)))
        plain.append(_threshold(arrays, data.calibrate))
        if data.calibrate_faults is not None:
            seen.append(_threshold(arrays, data.calibrate_faults))
    return Judged(np.array(found), np.array(plain), np.array(seen) if seen else None)


def _threshold(arrays: dict[str, NDArray[Any]], data: Sequences) -> float:
    known = truth(data.labels)
    own = connection_scores(data, packet_scores(arrays, data))
    return balanced_threshold(own[known != UNSURE], known[known != UNSURE] == ATTACK)


def baseline(data: Parts, test: Test) -> Iterator[tuple[str, Estimate]]:
    """AUC of boosted trees over counts of the connection, which learn from the same connections, by setting."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def table(of: Sequences) -> Floats:
        return np.column_stack([of.labels.column(n).to_numpy() for n in (*COUNTS, "duration_s")])

    model = HistGradientBoostingClassifier(class_weight="balanced", random_state=0)
    model.fit(table(data.train), truth(data.train.labels) == ATTACK)
    said = model.predict_proba(table(data.test))[:, 1]
    for setting in SETTINGS:
        at = test.chosen(setting)
        yield (
            setting,
            paired({"trees": Sample(said[None, at], test.attack[at], test.unit[at])}).estimate("trees", AREA),
        )


def resampled(
    by_policy: Mapping[str, Judged], test: Test, at: NDArray[np.bool_], how: Bootstrap, *, same: bool
) -> Paired:
    """All policies on chosen connections, resampled together. same: whether their nets are the same."""
    samples = {
        policy: Sample(j.scores[:, at], test.attack[at], test.unit[at], j.plain)
        for policy, j in by_policy.items()
    }
    return paired(samples, how, same_nets=same)


def cell(found: Paired, policy: str) -> dict[str, Any]:
    """Figures of a policy."""
    area, tpr, fpr = (found.estimate(policy, k) for k in (AREA, FOUND, FALSE))
    return {
        "auc": area.value, "auc_low": area.low, "auc_high": area.high, "tpr": tpr.value, "tpr_low": tpr.low,
        "tpr_high": tpr.high, "fpr": fpr.value, "fpr_low": fpr.low, "fpr_high": fpr.high,
    }  # fmt: skip


def differences(found: Paired) -> dict[str, Any]:
    """The claims that these policies can answer."""
    measures = {"auc": AREA, "tpr": FOUND, "fpr": FALSE}
    return {
        f"{one} - {other}": {name: found.difference(one, other, k)._asdict() for name, k in measures.items()}
        for one, other in CLAIMS
        if one in found.names and other in found.names
    }


def failed(by_policy: Mapping[str, Judged], test: Test) -> dict[str, dict[str, float | None]]:
    """Share of attacks that failed above the no-fault threshold, by policy and link; a description."""
    out: dict[str, dict[str, float | None]] = {}
    for policy, j in by_policy.items():
        over = j.scores > j.plain[:, None]
        own = {link: over[:, test.failed & (test.link == link)] for link in LINKS}
        out[policy] = {link: float(of.mean()) if of.size else None for link, of in own.items()}
    return out
