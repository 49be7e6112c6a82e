"""The figures: detection by link and policy, score by each fault (the paper's Fig. 2), and twins (its Fig. 3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study_lstm.data import LINKS, link_of, unit_of
from engine.types import Floats
from probing.training.sequences import ATTACK, Sequences, truth

FACTORS = {
    "delay_ms": "delay one way [ms]", "jitter_ms": "jitter [ms]", "loss_pct": "loss [%]",
    "retransmitted": "segments sent again",
}  # fmt: skip
BEFORE, AFTER = "keep", "stream"
COLOURS = {
    "visit": "#2b6cb0",
    "visit-blind": "#c53030",
    "visit-tautology": "#dd6b20",
    "visit-union": "#805ad5",
}
NAMES = {
    "visit": "benign visits",
    "visit-blind": "blind",
    "visit-tautology": "tautology",
    "visit-union": "union",
}


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "wiresonde", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    )
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG, the same bytes for the same figure."""
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot().close(figure)


def by_link(cells: Sequence[Mapping[str, Any]], policies: Sequence[str], path: Path) -> None:
    """AUC of each policy by link, a panel for each vantage, trained without faults."""
    plt = pyplot()
    vantages = sorted({c["vantage"] for c in cells})
    figure, axes = plt.subplots(
        1, len(vantages), figsize=(4.6 * len(vantages), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, vantage in zip(axes[0], vantages):
        for k, policy in enumerate(policies):
            own = {
                c["link"]: c
                for c in cells
                if (c["policy"], c["vantage"], c["mix"]) == (policy, vantage, "none")
            }
            mean = np.array([own[link]["auc"] for link in LINKS])
            low, high = (np.array([own[link][f"auc_{side}"] for link in LINKS]) for side in ("low", "high"))
            x = np.arange(len(LINKS)) + (k - len(policies) / 2) * 0.1
            ax.errorbar(x, mean, [mean - low, high - mean], fmt="o", ms=4, lw=1, capsize=2, label=policy)
        ax.set_xticks(range(len(LINKS)), LINKS)
        ax.set_title(f"captured at the {vantage}")
    axes[0][0].set_ylabel("AUC")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(policies), fontsize=8
    )
    save(figure, path)


def by_factor(data: Sequences, before: Floats, after: Floats, path: Path) -> None:
    """Mean score against each fault, a line an activity: before and after the correction. before, after: (m, n)."""
    plt = pyplot()
    figure, axes = plt.subplots(
        2, len(FACTORS), figsize=(3.1 * len(FACTORS), 5.8), sharey=True, layout="constrained"
    )
    kind, unit = np.array(data.labels.column("activity").to_pylist()), unit_of(data.labels)
    for row, (scores, title) in enumerate(((before, BEFORE), (after, AFTER))):
        for ax, (name, shown) in zip(axes[row], FACTORS.items()):
            x = np.nan_to_num(np.array(data.labels.column(name).to_pylist(), float))
            if name == "retransmitted":
                x = np.minimum(x, 8)
            for activity in sorted(set(kind)):
                mine = kind == activity
                levels = [v for v in np.unique(x[mine]) if np.count_nonzero(mine & (x == v)) >= 5]
                found = np.array([_mean(scores.mean(axis=0), mine & (x == v), unit) for v in levels])
                colour = COLOURS.get(activity, "#555555")
                ax.plot(
                    levels, found[:, 0], color=colour, marker="o", ms=3, label=NAMES.get(activity, activity)
                )
                ax.fill_between(levels, found[:, 1], found[:, 2], color=colour, alpha=0.15, lw=0)
            ax.set_xlabel(shown)
            ax.set_ylim(-0.02, 1.02)
        axes[row][0].set_ylabel(f"{title}: probability of an attack")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    save(figure, path)


def _mean(score: Floats, mask: Any, unit: Any, rounds: int = 500) -> tuple[float, float, float]:
    """Mean of the chosen scores, with an interval over runs."""
    names, at = np.unique(unit[mask], return_inverse=True)
    sums, sizes = np.bincount(at, score[mask]), np.bincount(at)
    rng = np.random.default_rng(0)
    drawn = rng.integers(names.size, size=(rounds, names.size))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return float(score[mask].mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def twins(
    data: Mapping[str, Sequences], packets: Mapping[str, Floats], thresholds: Mapping[str, float], path: Path
) -> dict[str, Any]:
    """The output after each packet of one visit with an injection, without faults and under both, for two policies.

    data, packets: by policy, the same connections; packets (tokens,): scores of one net. The visit is the first whose
    injection both find without faults and ``keep`` misses under both; if there is none, the first of all.
    """
    plt = pyplot()
    pair = _chosen(data, packets, thresholds)
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 5.2), sharey=True, layout="constrained")
    for row, policy in enumerate((BEFORE, AFTER)):
        labels = data[policy].labels
        for ax, link in zip(axes[row], ("none", "both")):
            at = next(
                k for k in range(len(data[policy]))
                if labels.column("pair")[k].as_py() == pair[0] and labels.column("sample")[k].as_py() == pair[1]
                and labels.column("user")[k].as_py() == pair[2] and link_of(labels.slice(k, 1))[0] == link
            )  # fmt: skip
            begin, end = data[policy].start[at], data[policy].start[at + 1]
            out = packets[policy][begin:end]
            share = (np.arange(end - begin) + 1) / (end - begin)
            ax.step(share, out, where="post", color="#2b6cb0")
            ax.axhline(thresholds[policy], color="#777777", lw=0.8, ls="--")
            ax.set_title(
                f"{policy}, {'no fault' if link == 'none' else 'loss and jitter'}: {end - begin} packets",
                fontsize=9,
            )
            ax.set_ylim(-0.02, 1.02)
            _mark(ax, labels, at)
    for ax in axes[1]:
        ax.set_xlabel("share of the connection's packets that the net was given")
    axes[0][0].set_ylabel("probability of an attack")
    axes[1][0].set_ylabel("probability of an attack")
    save(figure, path)
    return {"pair": pair[0], "sample": pair[1], "user": pair[2]}


def _mark(ax: Any, labels: Any, at: int) -> None:
    """Write into the panel how many phases are injections, from the lab's marks."""
    phases = json.loads(labels.column("phases")[at].as_py() or "[]")
    many = sum(name == "injection" for name, _ in phases)
    ax.text(
        0.02,
        0.92,
        f"injected requests: {many}",
        transform=ax.transAxes,
        fontsize=7,
        va="top",
    )


def _chosen(
    data: Mapping[str, Sequences], packets: Mapping[str, Floats], thresholds: Mapping[str, float]
) -> tuple[str, int, int]:
    """Pair, sample and user of the visit to show."""
    found = {}
    for policy, own in data.items():
        keys = list(zip(*(own.labels.column(n).to_pylist() for n in ("pair", "sample", "user"))))
        alarms = packets[policy][own.start[1:] - 1] > thresholds[policy]
        found[policy] = dict(zip(zip(keys, link_of(own.labels).tolist()), alarms.tolist()))
    attack = truth(data[BEFORE].labels) == ATTACK
    columns = (data[BEFORE].labels.column(n).to_pylist() for n in ("pair", "sample", "user"))
    visits = sorted({key for key, hit in zip(zip(*columns), attack.tolist()) if hit and key[0]})
    before, after = found[BEFORE], found[AFTER]
    visits = [v for v in visits if (v, "none") in before and (v, "both") in before]
    missed = [v for v in visits if before[v, "none"] and after[v, "none"] and not before[v, "both"]]
    return (missed or visits)[0]
