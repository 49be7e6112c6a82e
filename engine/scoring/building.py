"""Detectors built from the configuration: each model learns, or is frozen as in its bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from connectors.files.whole import WholeFile
from engine.connections.bounds import TrackerConfig
from engine.errors import InputError, OutputError
from engine.scoring.detector import Detector, Entry, slots_needed
from engine.scoring.kind import Kind
from engine.scoring.kinds import KINDS
from engine.scoring.scorer import SUM, Rules, Scorer, ScorerConfig
from engine.scoring.trace import Tracer
from models.bundle import Bundle, BundleError, load, pack
from models.threshold import Threshold


class BundleFile:
    """A bundle on disk, read once: a file that is replaced meanwhile changes no running detector."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when it is damaged, missing or of a kind that there is not."""
        self.path = path
        self.bundle = read_bundle(path)
        self.digest = bundle_digest(self.bundle)


@dataclass(frozen=True)
class ModelSpec:
    """A model to score with."""

    name: str
    kind: Kind
    section: Any  # section of the kind
    shadow: bool = False
    bundle: BundleFile | None = None  # what the model learned; None: it learns from the stream
    key: str = ""  # key of its section in the configuration

    @property
    def digest(self) -> str:
        """Digest that is equal for models that can continue from each other's state, shadow or not.

        Raises InputError when the bundle cannot be read.
        """
        parts: dict[str, Any] = {
            "kind": self.kind.name,
            "bundle": None if self.bundle is None else self.bundle.digest,
        }
        given = self.kind.features(self.section)
        parts["features"] = None if given is None else given.digest
        if self.bundle is None:
            parts["section"] = asdict(self.section)
        return digest_of(parts, {**self.kind.layouts, "sum": SUM})


def build_detector(
    partition: int, tracker: TrackerConfig, specs: Sequence[ModelSpec], tracer: Tracer | None = None
) -> Detector:
    """A new detector. Raises InputError for a bundle that is damaged or does not fit."""
    slots = slots_needed(tracker)
    entries = [Entry(_scorer(spec, slots), spec.digest, spec.kind.features(spec.section)) for spec in specs]
    return Detector(partition, tracker, entries, tracer)


def _scorer(spec: ModelSpec, slots: int) -> Scorer:
    kind, section = spec.kind, spec.section
    if spec.bundle is None:
        rules = Rules(section.scorer, section.threshold, kind.learns(section))
        return Scorer(spec.name, kind.fresh(section, slots), rules, slots, shadow=spec.shadow)
    path, bundle = spec.bundle.path, spec.bundle.bundle
    if bundle.kind != kind.name:
        raise InputError(f"{path}: a bundle of kind {bundle.kind}, but model {spec.name} is a {kind.name}")
    try:
        model = kind.load(bundle, section, slots)
        rules = Rules(
            ScorerConfig(**bundle.config["scorer"]),
            section.threshold,
            fitted=Threshold(**bundle.config["threshold"]),
        )
    except BundleError as error:
        raise InputError(str(error)) from error
    except KeyError as error:
        raise InputError(
            f"{path}: not an intact {kind.name} bundle: its config lacks {error.args[0]}"
        ) from error
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: not an intact {kind.name} bundle: {error}") from error
    return Scorer(spec.name, model, rules, slots, shadow=spec.shadow)


def read_bundle(path: Path) -> Bundle:
    """A bundle of a known kind. Raises InputError when it is damaged, missing or of an unknown kind."""
    try:
        bundle = load(path)
    except BundleError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if bundle.kind not in KINDS:
        raise InputError(f"{path}: holds a {bundle.kind!r}; this version knows {', '.join(sorted(KINDS))}")
    return bundle


def pack_model(kind: Kind, scorer: Scorer, provenance: Mapping[str, Any]) -> bytes:
    """The bundle of a model that has learned and has a threshold. Raises BundleError."""
    assert scorer.threshold is not None
    arrays, config = kind.pack(scorer.model)
    sections = {**config, "scorer": asdict(scorer.config), "threshold": asdict(scorer.threshold)}
    return pack(arrays, sections, provenance, kind=kind.name)


def small_spec(spec: ModelSpec) -> ModelSpec:
    """A model that runs the same kernels, soon through all its phases and with small tables; its bundle stays.

    A bundle decides which kernels run, for instance with which precision.
    """
    return replace(spec, section=spec.kind.small(spec.section))


def bundle_digest(bundle: Bundle) -> str:
    """Digest of what a bundle has learned and its configuration, from memory: its file may be another by now."""
    digest = hashlib.sha256(json.dumps([bundle.kind, bundle.config], sort_keys=True).encode())
    for name, array in sorted(bundle.arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_bundle_place(path: Path) -> None:
    """Raise OutputError when no bundle can be written to path, before hours of learning."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe: even a test would use it
    try:
        WholeFile(path).abort()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's contents. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(sections: Mapping[str, Any], layouts: Mapping[str, np.dtype[Any]]) -> str:
    """Digest of configuration sections and the layouts of state rows."""
    rows = {
        name: [(f, str(kind.fields[f][0])) for f in kind.names or ()]
        for name, kind in layouts.items()
        if kind.fields
    }
    text = json.dumps({"sections": sections, "rows": rows}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
