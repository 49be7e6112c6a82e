"""Nets of the study: trained by the recipe of ``wiresonde train sequence``, kept as arrays in files."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.study_lstm.data import Parts, parts
from connectors.files.whole import write_whole
from engine.features.tokens import TokenConfig
from models.bundle import load, pack
from probing.training.network import Network, shape_of
from probing.training.recipe import Recipe
from probing.training.train import Training

TO_THE_END = "none, to the end"  # no faults, and the net of the last step, whatever the validation says of it
END_RECIPE = {"steps": 3000, "patience": 3000}


@dataclass(frozen=True)
class Net:
    """One net of the study."""

    policy: str
    vantage: str
    mix: str  # none, faults15, or TO_THE_END
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.policy}-{self.vantage}-{self.mix.replace(', ', '-').replace(' ', '-')}-{self.seed}.safetensors"


def train_all(nets: Sequence[Net], corpora: Path, folder: Path, recipe: dict[str, Any], jobs: int) -> None:
    """Train those that are not in the folder yet, ``jobs`` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [net for net in nets if not (folder / net.name).exists()]
    began, trained = time.monotonic(), 0
    for vantage, policy in dict.fromkeys((net.vantage, net.policy) for net in missing):
        own = [net for net in missing if (net.vantage, net.policy) == (vantage, policy)]
        data = parts(corpora, vantage, policy)
        # forked, so that the processes share the data; nothing here has started a thread yet
        with ProcessPoolExecutor(jobs, get_context("fork"), _keep, (data,)) as pool:
            for done in as_completed([pool.submit(train, net, folder, recipe) for net in own]):
                trained += 1
                left = (time.monotonic() - began) / trained * (len(missing) - trained) / 60
                said = f"net {trained} of {len(missing)}: {done.result()}; {left:.0f} min left"
                print(said, file=sys.stderr, flush=True)


_data: list[Parts] = []  # in a process of the pool: the data of its nets


def _keep(data: Parts) -> None:
    _data[:] = [data]


def train(net: Net, folder: Path, recipe: dict[str, Any]) -> str:
    """Train one net on the data of this process and write it; says how it went."""
    data = _data[0]
    fit, held = (data.mixed, data.mixed_held_out) if net.mix == "faults15" else (data.train, data.held_out)
    if fit is None or held is None:
        raise ValueError(f"{net.name}: there is no corpus sqli-faults to mix in")
    last = net.mix == TO_THE_END
    how = replace(Recipe(**(END_RECIPE if last else recipe)), seed=net.seed)
    network = Network(shape_of(TokenConfig(), how.hidden, how.layers, how.embedding), seed=how.seed)
    began = time.monotonic()
    training = Training(network, fit, held, how)
    training.run()
    if not last:
        network.restore(training.learned.best)
    curve = training.learned.curve
    about = {"recipe": recipe, "seed": net.seed, "best_step": training.learned.best_step, "curve": curve}
    write_whole(folder / net.name, pack(network.arrays(), {}, about, kind="net"))
    best = min(curve, key=lambda row: row["validation_loss"])
    return f"{net.name} {time.monotonic() - began:.0f} s, validation AUC {best['validation_auc']:.3f}"


def arrays_of(net: Net, folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a net."""
    return load(folder / net.name, kind="net").arrays
