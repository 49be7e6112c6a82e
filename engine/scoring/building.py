"""Detectors built from the configuration: each model learns, or is frozen as in its bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.files.whole import WholeFile
from engine.connections.bounds import TrackerConfig
from engine.errors import InputError, OutputError, StateError
from engine.features.afterimage import AfterImageConfig
from engine.features.carried import adopted, check
from engine.scoring.detector import Detector, Entry, slots_needed
from engine.scoring.hosts import Hosts
from engine.scoring.kind import Kind
from engine.scoring.kinds import KINDS
from engine.scoring.passes import Carried, Features
from engine.scoring.scorer import SUM, Rules, Scorer, ScorerConfig
from engine.scoring.trace import Tracer
from engine.types import under
from models.bundle import Bundle, BundleError, load, pack
from models.threshold import Threshold

STREAMS = "streams."  # prefix of the arrays of a bundle that hold the streams it carries
HOSTS = "hosts"  # array of a bundle with the hosts that learning saw


class BundleFile:
    """A bundle on disk, read once: a file that is replaced meanwhile changes no running detector."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when it is damaged, missing or of a kind that there is not."""
        self.path = path
        self.bundle = read_bundle(path)
        self.digest = bundle_digest(self.bundle)
        arrays = self.bundle.arrays
        learned = {name: a for name, a in arrays.items() if not name.startswith(STREAMS) and name != HOSTS}
        self.hosts = self._hosts()
        self.learned = replace(self.bundle, arrays=learned)  # the bundle without streams
        self.streams = (
            under(arrays, STREAMS) if any(name.startswith(STREAMS) for name in arrays) else None
        )  # streams that it carries
        if self.streams is not None:
            try:
                check(self.streams)
                adopted(
                    AfterImageConfig(flows=4 * len(self.streams["flows"])), self.streams
                )  # with room for all
            except StateError as error:
                raise InputError(f"{path}: not an intact bundle: {error}") from error

    def _hosts(self) -> Hosts | None:
        """The hosts that learning saw, None for a bundle of an earlier version."""
        if HOSTS not in self.bundle.arrays:
            return None
        try:
            return Hosts.from_state(self.bundle.arrays[HOSTS], self.bundle.config.get(HOSTS) or {})
        except StateError as error:
            raise InputError(f"{self.path}: not an intact bundle: {error}") from error


@dataclass(frozen=True)
class ModelSpec:
    """A model to score with."""

    name: str
    kind: Kind
    section: Any  # section of the kind
    shadow: bool = False
    bundle: BundleFile | None = None  # what the model learned; None: it learns from the stream
    key: str = ""  # key of its section in the configuration

    @cached_property
    def fitted(self) -> Any:
        """The section, with the values of its features that the bundle's model learned with. Raises InputError."""
        if self.bundle is None or self.bundle.bundle.kind != self.kind.name:
            return self.section
        with _intact(self.bundle.path, self.kind):
            return self.kind.adapt(self.bundle.learned, self.section)

    @cached_property
    def features(self) -> Features | None:
        """The features of the model, with the streams that its bundle carries. Raises InputError."""
        given, start = self.kind.features(self.fitted), self.kind.start(self.section)
        if given is None or start is None or self.bundle is None or self.bundle.streams is None:
            return given
        return replace(given, carried=Carried(self.bundle.streams, start.max_gap))

    @property
    def digest(self) -> str:
        """Digest that is equal for models that can continue from each other's state, shadow or not.

        Raises InputError when the bundle cannot be read.
        """
        parts: dict[str, Any] = {
            "kind": self.kind.name,
            "bundle": None if self.bundle is None else self.bundle.digest,
        }
        given = self.features
        parts["features"] = None if given is None else given.digest
        if self.bundle is None:
            parts["section"] = asdict(self.section)
        return digest_of(parts, {**self.kind.layouts, "sum": SUM})


def build_detector(
    partition: int, tracker: TrackerConfig, specs: Sequence[ModelSpec], tracer: Tracer | None = None
) -> Detector:
    """A new detector. Raises InputError for a bundle that is damaged or does not fit."""
    slots = slots_needed(tracker)
    entries = [Entry(_scorer(spec, slots), spec.digest, spec.features) for spec in specs]
    return Detector(partition, tracker, entries, tracer)


def _scorer(spec: ModelSpec, slots: int) -> Scorer:
    kind, section = spec.kind, spec.section
    if spec.bundle is None:
        rules = Rules(section.scorer, section.threshold, kind.learns(section))
        return Scorer(spec.name, kind.fresh(section, slots), rules, slots, shadow=spec.shadow)
    path, bundle, start = spec.bundle.path, spec.bundle.learned, kind.start(section)
    if bundle.kind != kind.name:
        raise InputError(f"{path}: a bundle of kind {bundle.kind}, but model {spec.name} is a {kind.name}")
    with _intact(path, kind):
        model = kind.load(bundle, spec.fitted, slots)
        rules = Rules(
            replace(ScorerConfig(**bundle.config["scorer"]), alerts=section.scorer.alerts),
            section.threshold,
            fitted=Threshold(**bundle.config["threshold"]),
            hosts=spec.bundle.hosts,
            start=start if start is not None and start.waits else None,
        )
    return Scorer(spec.name, model, rules, slots, shadow=spec.shadow)


@contextmanager
def _intact(path: Path, kind: Kind) -> Iterator[None]:
    """Turn the errors of a bundle that does not fit its kind into InputError."""
    try:
        yield
    except BundleError as error:
        raise InputError(str(error)) from error
    except KeyError as error:
        raise InputError(
            f"{path}: not an intact {kind.name} bundle: its config lacks {error.args[0]}"
        ) from error
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: not an intact {kind.name} bundle: {error}") from error


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


def pack_model(
    kind: Kind,
    scorer: Scorer,
    provenance: Mapping[str, Any],
    streams: Mapping[str, NDArray[Any]] | None = None,
) -> bytes:
    """The bundle of a model that has learned and has a threshold. Raises BundleError.

    streams: those that the model's features carry on with, a result of ``FeaturePass.carry``.
    """
    assert scorer.threshold is not None
    learned, config = kind.pack(scorer.model)
    hashes, hosts = scorer.hosts.state()
    arrays = {
        **learned,
        **{f"{STREAMS}{name}": array for name, array in (streams or {}).items()},
        HOSTS: hashes,
    }
    sections = {
        **config,
        "scorer": asdict(scorer.config),
        "threshold": asdict(scorer.threshold),
        HOSTS: hosts,
    }
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
