"""Detectors with the model of a bundle, or with one that has yet to learn."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from engine.config import Config
from engine.detector import Detector, slots_needed
from engine.errors import InputError, OutputError
from engine.scorers import KitsuneScorer, new_kitsune
from models.bundle import BundleError, load, require
from models.kitnet import KitNET, KitNETConfig, Phase
from models.threshold import Threshold

KIND = "kitsune"


def build_detector(config: Config, partition: int, model: Path | None = None) -> Detector:
    """A detector that has seen nothing. ``model``: a bundle to score with, frozen; InputError when it is none."""
    slots = slots_needed(config.connections)
    k = config.kitsune
    if model is not None:
        scorer = load_kitsune(model, config, slots)
    else:
        scorer = new_kitsune(k.features, k.kitnet, k.threshold, k.scorer, slots)
    return Detector(partition, config.connections, [scorer])


def model_digest(model: Path | None) -> str | None:
    """What tells a bundle from others, None without one. InputError when it cannot be read."""
    if model is None:
        return None
    try:
        return digest_of_file(model)
    except OSError as error:
        raise InputError(f"{model}: {error.strerror or error}") from error


def load_kitsune(path: Path, config: Config, slots: int) -> KitsuneScorer:
    """A frozen Kitsune of a bundle. Raises InputError when the bundle is damaged or does not fit."""
    try:
        bundle = load(path, kind=KIND)
        kitnet_config = KitNETConfig(
            **{**bundle.config["kitnet"], "clip": tuple(bundle.config["kitnet"]["clip"])}
        )
        features = config.kitsune.features
        if list(features.lambdas) != bundle.config["features"]["lambdas"]:
            raise InputError(
                f"{path}: learned with lambdas {bundle.config['features']['lambdas']}, "
                f"the configuration has {list(features.lambdas)}"
            )
        kitnet = KitNET.from_state(kitnet_config, bundle.arrays)
        if kitnet.phase is not Phase.SCORE:
            raise InputError(
                f"{path}: its model has not learned to the end, it is in phase {kitnet.phase.value}"
            )
        require(bundle, {name: (a.shape, a.dtype.name) for name, a in kitnet.state().items()})
        threshold = Threshold(**bundle.config["threshold"])
        scorer_config = config.kitsune.scorer.__class__(**bundle.config["scorer"])
    except (BundleError, OSError) as error:
        raise InputError(f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a whole kitsune bundle: {error}") from error
    return KitsuneScorer(features, kitnet, config.kitsune.threshold, scorer_config, slots, threshold)


def check_bundle_place(path: Path) -> None:
    """Raise OutputError when no bundle can be written there, before hours are spent on learning one."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: not a directory")
    if path.is_dir():
        raise OutputError(f"{path}: Is a directory")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: Permission denied")


def digest_of_file(path: Path) -> str:
    """SHA-256 of what a file holds. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
