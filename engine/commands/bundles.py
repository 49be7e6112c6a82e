"""Detectors with the model of a bundle, or with one that has yet to learn."""

from __future__ import annotations

import hashlib
from pathlib import Path

from connectors.files.whole import WholeFile
from engine.config import Config
from engine.errors import InputError, OutputError
from engine.scoring.detector import Detector, slots_needed
from engine.scoring.kitsune import KitsuneScorer, new_kitsune
from models.bundle import BundleError, kitnet_of, load
from models.kitnet.kitnet import Phase
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
        features = config.kitsune.features
        if list(features.lambdas) != bundle.config["features"]["lambdas"]:
            raise InputError(
                f"{path}: learned with lambdas {bundle.config['features']['lambdas']}, "
                f"the configuration has {list(features.lambdas)}"
            )
        kitnet = kitnet_of(bundle)
        if kitnet.phase is not Phase.SCORE:
            raise InputError(
                f"{path}: its model has not learned to the end, it is in phase {kitnet.phase.value}"
            )
        threshold = Threshold(**bundle.config["threshold"])
        scorer_config = config.kitsune.scorer.__class__(**bundle.config["scorer"])
    except (BundleError, OSError) as error:
        raise InputError(f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)) from error
    except KeyError as error:
        raise InputError(f"{path}: not a whole kitsune bundle: its config lacks {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not a whole kitsune bundle: {error}") from error
    return KitsuneScorer(features, kitnet, config.kitsune.threshold, scorer_config, slots, threshold)


def check_bundle_place(path: Path) -> None:
    """Raise OutputError when no bundle can be written there, before hours are spent on learning one."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe: opening it to try would be the first use of it
    try:
        WholeFile(path).abort()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def digest_of_file(path: Path) -> str:
    """SHA-256 of what a file holds. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
