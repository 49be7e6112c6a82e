"""Training of one network: Adam along one cycle of learning rates, validated as it goes, the best kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.types import Floats
from probing.analysis.roc import area
from probing.training.batches import Batch, Draws, padded, weights
from probing.training.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from probing.training.network import Arrays, Network, last_logits, sigmoid
from probing.training.recipe import Recipe
from probing.training.sequences import ATTACK, Sequences, truth

SAVED = 500  # steps from one checkpoint to the next

Report = Callable[[int, int], None]  # steps done, steps of all


@dataclass
class Learned:
    """How far training got: the best network and its way there."""

    best: Arrays = field(default_factory=dict)  # parameters with the least validation loss
    best_step: int = 0
    best_loss: float = math.inf
    curve: list[dict[str, float]] = field(default_factory=list)  # a row a validation

    @property
    def best_row(self) -> dict[str, float]:
        """The validation of the network that is kept."""
        return next(row for row in self.curve if row["step"] == self.best_step)


class Training:
    """One network being trained. It stops when its steps are done, or validation has not improved for long."""

    def __init__(self, network: Network, fit: Sequences, held_out: Sequences, recipe: Recipe) -> None:
        """fit, held_out: connections to learn from and to validate with; each must have attacks and benign ones.

        Raises InputError otherwise.
        """
        self.recipe, self.network, self.learned, self.step = recipe, network, Learned(), 0
        self._fit, self._held_out = fit, held_out
        self._attack, self._validate = (truth(part.labels) == ATTACK for part in (fit, held_out))
        for name, attack in (("learn from", self._attack), ("validate with", self._validate)):
            if attack.all() or not attack.any():
                has = f"{attack.sum():,} attacks and {np.count_nonzero(~attack):,} benign connections"
                raise InputError(f"{has} to {name}: both kinds are needed")
        self._draws = Draws(self._attack, fit.lengths, recipe)
        self._adam = network.torch.optim.Adam(network.parameters(), lr=recipe.rate)
        self._loss, self._since = 0.0, 0  # sum of losses since the last validation, and their number

    def run(
        self, checkpoint: Path | None = None, report: Report | None = None, stop: Callable[[], bool] | None = None
    ) -> bool:  # fmt: skip
        """Train to the end; False when ``stop`` ended it before, with everything in the checkpoint.

        checkpoint: file to continue from if it is there, and to write to. Raises InputError if it is of another
        training.
        """
        if checkpoint is not None and checkpoint.exists():
            self._restore(load_checkpoint(checkpoint, self.identity))
        if self.network.device == "cpu":
            self.network.torch.set_num_threads(1)  # batches are small: more threads only wait for each other
        while not self._is_done():
            if stop is not None and stop():
                if checkpoint is not None:
                    write_checkpoint(checkpoint, self._saved())
                return False
            self._advance()
            if checkpoint is not None and self.step % SAVED == 0:
                write_checkpoint(checkpoint, self._saved())
            if report is not None:
                report(self.step, self.recipe.steps)
        if checkpoint is not None:
            write_checkpoint(checkpoint, self._saved())
        return True

    def _is_done(self) -> bool:
        waited = self.step - self.learned.best_step
        return self.step >= self.recipe.steps or (self.step > 0 and waited >= self.recipe.patience)

    def _advance(self) -> None:
        """One step, and validation when it is due."""
        which = self._draws.batch(self.step)
        for group in self._adam.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        batch = padded(self._fit, which, self.recipe.cut)
        loss = self._learn(batch, self._attack[which].astype(np.float32))
        if not math.isfinite(loss):
            raise InputError(
                f"step {self.step}: the loss is not finite: give a lower --rate than {self.recipe.rate}"
            )
        self._loss, self._since, self.step = self._loss + loss, self._since + 1, self.step + 1
        if self.step % self.recipe.check == 0 or self.step == self.recipe.steps:
            self._check()

    def _learn(self, batch: Batch, target: Any) -> float:
        """Take one batch in; returns its loss before that. target: (b,) 1 for an attack."""
        torch, network = self.network.torch, self.network
        self._adam.zero_grad(set_to_none=True)
        # Tensor cores of a GPU take 16 bits; a CPU would be slower with them
        with torch.autocast("cuda", torch.bfloat16, enabled=network.device == "cuda"):
            loss = loss_of(network, batch, target, self.recipe.path)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.recipe.clip)
        self._adam.step()
        return float(loss.detach())

    def _check(self) -> None:
        """Validate, and keep the network if it is the best so far."""
        logits = last_logits(self.network, self._held_out, self.recipe.cut)
        loss = balanced_loss(logits, self._validate)
        row = {
            "step": self.step, "rate": self.recipe.rate_at(self.step - 1), "loss": self._loss / self._since,
            "validation_loss": loss, "validation_auc": area(sigmoid(logits), self._validate),
        }  # fmt: skip
        self.learned.curve.append(row)
        self._loss, self._since = 0.0, 0
        if loss < self.learned.best_loss:
            self.learned.best, self.learned.best_loss = self.network.saved(), loss
            self.learned.best_step = self.step

    @property
    def identity(self) -> str:
        """Digest of everything that the result depends on."""
        parts = {"recipe": asdict(self.recipe), "shape": asdict(self.network.shape)}
        digest = hashlib.sha256(json.dumps([parts, self.network.device], sort_keys=True).encode())
        for data, attack in ((self._fit, self._attack), (self._held_out, self._validate)):
            for array in (data.rows, data.values, data.start, attack):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _saved(self) -> Checkpoint:
        arrays = {f"now.{name}": a for name, a in self.network.saved().items()}
        arrays |= {f"best.{name}": a for name, a in self.learned.best.items()}
        for k, p in enumerate(self.network.parameters()):
            for name in ("exp_avg", "exp_avg_sq"):
                if p in self._adam.state:
                    arrays[f"adam.{k}.{name}"] = self._adam.state[p][name].cpu().numpy().copy()
        values = {
            "step": self.step, "loss": self._loss, "since": self._since, "curve": self.learned.curve,
            "best_step": self.learned.best_step,
            "best_loss": self.learned.best_loss if self.learned.best else None,
        }  # fmt: skip
        return Checkpoint(self.identity, arrays, values)

    def _restore(self, saved: Checkpoint) -> None:
        values, torch = saved.values, self.network.torch
        self.network.restore(saved.under("now."))
        for k, p in enumerate(self.network.parameters()):
            own = saved.under(f"adam.{k}.")
            if own:
                moments = {name: torch.from_numpy(a.copy()).to(p.device) for name, a in own.items()}
                self._adam.state[p] = {"step": torch.tensor(float(values["step"])), **moments}
        best = saved.under("best.")
        loss = values["best_loss"] if best else math.inf
        self.learned = Learned(best, values["best_step"], loss, values["curve"])
        self.step, self._loss, self._since = values["step"], values["loss"], values["since"]


def loss_of(network: Network, batch: Batch, target: Any, path: float) -> Any:
    """Mean cross-entropy of a batch, a scalar of torch. target: (b,). path: share of it along the tokens."""
    torch, logits = network.torch, network.logits(batch)
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    weight = torch.from_numpy(weights(batch.length, batch.rows.shape[1], path)).to(logits)
    wanted = torch.from_numpy(np.asarray(target)).to(logits)[:, None].expand_as(logits)
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (each * weight).sum() / len(batch.length)


def balanced_loss(logits: Floats, attack: Any) -> float:
    """Cross-entropy, both classes with the same weight. logits, attack: (n,)."""
    each = np.logaddexp(0.0, np.where(attack, -logits, logits))
    return float((each[attack].mean() + each[~attack].mean()) / 2)
