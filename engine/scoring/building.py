"""Detectors from what is configured: each model learning, or frozen as a bundle has it."""

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


@dataclass(frozen=True)
class ModelSpec:
    """A model to score with."""

    name: str
    kind: Kind
    section: Any  # of the kind
    shadow: bool = False
    bundle: Path | None = None  # what it has learned; None: it learns from what it is given
    key: str = ""  # of its section in the configuration

    @property
    def digest(self) -> str:
        """Equal for models whose state goes on in one another's place; a shadow's in that of the same in earnest.

        Raises InputError when the bundle cannot be read.
        """
        parts: dict[str, Any] = {"kind": self.kind.name, "bundle": bundle_digest(self.bundle)}
        given = self.kind.features(self.section)
        parts["features"] = None if given is None else given.digest
        if self.bundle is None:
            parts["section"] = asdict(self.section)
        return digest_of(parts, {**self.kind.layouts, "sum": SUM})


def build_detector(
    partition: int, tracker: TrackerConfig, specs: Sequence[ModelSpec], tracer: Tracer | None = None
) -> Detector:
    """A detector that has seen nothing. Raises InputError for a bundle that is damaged or does not fit."""
    slots = slots_needed(tracker)
    entries = [Entry(_scorer(spec, slots), spec.digest, spec.kind.features(spec.section)) for spec in specs]
    return Detector(partition, tracker, entries, tracer)


def _scorer(spec: ModelSpec, slots: int) -> Scorer:
    kind, section = spec.kind, spec.section
    if spec.bundle is None:
        rules = Rules(section.scorer, section.threshold)
        return Scorer(spec.name, kind.fresh(section, slots), rules, slots, shadow=spec.shadow)
    path = spec.bundle
    bundle = read_bundle(path)
    if bundle.kind != kind.name:
        raise InputError(f"{path}: a bundle of kind {bundle.kind}, but model {spec.name} is a {kind.name}")
    try:
        model = kind.load(bundle, section, slots)
        rules = Rules(
            ScorerConfig(**bundle.config["scorer"]),
            section.threshold,
            Threshold(**bundle.config["threshold"]),
        )
    except BundleError as error:
        raise InputError(str(error)) from error
    except KeyError as error:
        raise InputError(
            f"{path}: not an intact {kind.name} bundle: its config lacks {error.args[0]}"
        ) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not an intact {kind.name} bundle: {error}") from error
    return Scorer(spec.name, model, rules, slots, shadow=spec.shadow)


def read_bundle(path: Path) -> Bundle:
    """A bundle of a kind there is. Raises InputError when it is damaged, missing or of no kind of these."""
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
    """A model that runs the same kernels, soon through all its phases and with small tables."""
    return replace(spec, section=spec.kind.small(spec.section), bundle=None)


def bundle_digest(path: Path | None) -> str | None:
    """What tells a bundle from others, None without one. InputError when it cannot be read."""
    if path is None:
        return None
    try:
        return digest_of_file(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


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


def digest_of(sections: Mapping[str, Any], layouts: Mapping[str, np.dtype[Any]]) -> str:
    """Digest of the configuration and the rows that state is made of."""
    rows = {
        name: [(f, str(kind.fields[f][0])) for f in kind.names or ()]
        for name, kind in layouts.items()
        if kind.fields
    }
    text = json.dumps({"sections": sections, "rows": rows}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
