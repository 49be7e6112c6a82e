"""Training interrupted: everything that it goes on from, in a file of arrays and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from connectors.files.whole import write_whole
from engine.errors import InputError, OutputError
from engine.types import under
from models.bundle import BundleError, load, pack

KIND = "sequence-checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """How far a training got. There is no state of a random generator: draws depend on seed and step alone."""

    identity: str  # digest of recipe and data
    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]  # JSON

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays whose names begin with a prefix, without it."""
        return under(self.arrays, prefix)


def checkpoint_of(bundle: Path) -> Path:
    """The checkpoint's file of a bundle to be."""
    return bundle.with_name(bundle.name + ".checkpoint")


def write_checkpoint(path: Path, saved: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all. Raises OutputError."""
    try:
        write_whole(path, pack(saved.arrays, saved.values, {"identity": saved.identity}, kind=KIND))
    except (OSError, BundleError, ValueError) as error:
        raise OutputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def load_checkpoint(path: Path, identity: str) -> Checkpoint:
    """Read a checkpoint. Raises InputError when it is damaged, or of a training with other data or settings."""
    try:
        found = load(path, kind=KIND)
    except BundleError as error:
        raise InputError(f"{error}: delete it to train from scratch") from error
    if found.provenance.get("identity") != identity:
        raise InputError(f"{path}: from a training with other data or settings: delete it, or repeat these")
    missing = {"step", "loss", "since", "curve", "best_step", "best_loss"} - found.config.keys()
    if missing or type(found.config["step"]) is not int:
        raise InputError(f"{path}: not an intact checkpoint: delete it to train from scratch")
    return Checkpoint(identity, found.arrays, found.config)
