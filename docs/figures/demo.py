"""The README's picture: scores of the demo's connections over time.

wiresonde score demo/demo.pcap.zst --config demo/wiresonde.yaml --labels demo/labels.csv --learn 15000 --out out
python docs/figures/demo.py out/scores.parquet docs/figures/demo.svg     # needs matplotlib
"""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "wiresonde"  # the same picture for the same data
from matplotlib import pyplot as plt  # noqa: E402 -- after the backend


def main() -> None:
    """Draw."""
    table = pq.read_table(sys.argv[1])
    table = table.filter(pc.and_(table["final"], pc.is_finite(table["score"])))
    seconds = np.asarray(table["peak_at"].cast(pa.int64())) / 1e9
    seconds -= seconds.min()
    score = np.asarray(table["score"])
    activity = np.array([a or "none" for a in table["label.activity"].to_pylist()])
    threshold = np.nanmax(np.asarray(table["threshold"]))
    figure, axes = plt.subplots(figsize=(8.6, 3.4), layout="constrained")
    groups = (
        (~np.isin(activity, ("port-scan", "password-guessing")), "benign", "#8a94a6", 10),
        (activity == "port-scan", "port scan", "#d1362f", 10),
        (activity == "password-guessing", "password guessing", "#e8930c", 22),
    )
    for rows, name, colour, size in groups:
        axes.scatter(
            seconds[rows], score[rows], s=size, c=colour, label=f"{name} ({rows.sum():,})", linewidths=0
        )
    axes.axhline(threshold, color="#222", linewidth=0.8, linestyle="--")
    axes.text(0.0, threshold * 1.08, f"threshold {threshold:.3f}", fontsize=8, color="#222")
    axes.set_yscale("log")
    axes.set_xlabel("seconds since the first score")
    axes.set_ylabel("score of a connection")
    axes.set_title("One dot a connection, at its most anomalous packet", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 0.97))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
