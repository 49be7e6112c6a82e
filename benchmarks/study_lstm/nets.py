"""Nets of the study: trained by the recipe of ``wiresonde train sequence``, kept as arrays in files."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from probing.training.sequences import Sequences

from benchmarks.study_lstm.data import parts
from connectors.files.whole import write_whole
from models.bundle import load, pack


@dataclass(frozen=True)
class Net:
    """One net of the study."""

    policy: str
    vantage: str
    mix: str  # none or faults15
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.policy}-{self.vantage}-{self.mix}-{self.seed}.safetensors"


def train_all(nets: Sequence[Net], corpora: Path, folder: Path, recipe: dict[str, Any], jobs: int) -> None:
    """Train those that are not in the folder yet, ``jobs`` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [net for net in nets if not (folder / net.name).exists()]
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        waiting = [pool.submit(train, net, corpora, folder, recipe) for net in missing]
        for k, done in enumerate(as_completed(waiting), 1):
            left = (time.monotonic() - began) / k * (len(missing) - k)
            print(
                f"net {k} of {len(missing)}: {done.result()}; {left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )


_kept: dict[tuple[str, str], Any] = {}


def train(net: Net, corpora: Path, folder: Path, recipe: dict[str, Any]) -> str:
    """Train one net and write it; says how it went."""
    from probing.training.network import Network, shape_of
    from probing.training.recipe import Recipe
    from probing.training.train import Training

    from engine.features.tokens import TokenConfig

    key = net.policy, net.vantage
    if key not in _kept:
        _kept.clear()
        _kept[key] = parts(corpora, net.vantage, net.policy)
    data = _kept[key]
    fit, held = (data.train, data.held_out) if net.mix == "none" else (data.mixed, data.mixed_held_out)
    how = replace(Recipe(**recipe), seed=net.seed)
    network = Network(shape_of(TokenConfig(), how.hidden, how.layers, how.embedding), seed=how.seed)
    began = time.monotonic()
    training = Training(network, fit, held, how)
    training.run()
    network.restore(training.learned.best)
    curve = training.learned.curve
    about = {"recipe": recipe, "seed": net.seed, "best_step": training.learned.best_step, "curve": curve}
    write_whole(folder / net.name, pack(network.arrays(), {}, about, kind="net"))
    best = min(curve, key=lambda row: row["validation_loss"])
    return f"{net.name} {time.monotonic() - began:.0f} s, validation AUC {best['validation_auc']:.3f}"


def arrays_of(net: Net, folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a net."""
    return load(folder / net.name, kind="net").arrays


def scores(arrays: dict[str, NDArray[Any]], data: Sequences) -> NDArray[np.float64]:
    """(tokens,) the score of every packet, by the engine's own kernel."""
    from models.lstm import LSTM, LSTMConfig

    hidden = len(arrays["hidden.0"])
    layers = sum(name.startswith("hidden.") for name in arrays)
    lstm = LSTM(LSTMConfig(len(arrays["input.0"]), hidden, layers), arrays)
    slot = np.repeat(np.arange(len(data), dtype=np.int32), data.lengths)
    out = np.empty(slot.size)
    order = np.argsort(np.arange(slot.size) - np.repeat(data.start[:-1], data.lengths), kind="stable")
    rows, values = data.rows[order].astype(np.int32), np.ascontiguousarray(data.values[order])
    found = np.empty(slot.size)
    lstm.step(rows, values, np.ascontiguousarray(slot[order]), lstm.new_state(len(data)), found)
    out[order] = found
    return out


def last_of(data: Sequences, packets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) the score of each connection: that of its last packet."""
    return packets[data.start[1:] - 1]
