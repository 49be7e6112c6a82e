"""The models that a command scores with: those of the configuration, with the bundles of --model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.config import Config
from engine.errors import ConfigError
from engine.scoring.building import BundleFile, ModelSpec
from engine.scoring.kinds import KINDS

NAME = re.compile(r"[a-z0-9-]{1,32}")


def chosen_models(config: Config, given: Sequence[str] = ()) -> list[ModelSpec]:
    """The models to score with, in order; ``given``: the texts of --model, FILE or NAME=FILE.

    Without a ``models`` section and without --model, that is a learning Kitsune. Raises ConfigError for a NAME that is
    invalid or given twice, for a bundle of another kind than configured, for a model without the bundle that it needs,
    and if all models are shadows; InputError for a bundle that cannot be read.
    """
    bundles = _bundles(given)
    specs = []
    for name, entry in config.models.items():
        bundle, kind = bundles.pop(name, (None, entry.kind))
        if kind != entry.kind:
            raise ConfigError(
                f"--model {name}: the bundle is of kind {kind}, but models.{name}.kind is {entry.kind}"
            )
        specs.append(ModelSpec(name, KINDS[kind], entry.section(), entry.shadow, bundle, f"models.{name}"))
    for name, (bundle, kind) in bundles.items():
        section = config.kitsune if kind == "kitsune" else KINDS[kind].section()
        specs.append(ModelSpec(name, KINDS[kind], section, bundle=bundle))
    if not specs:
        specs.append(ModelSpec("kitsune", KINDS["kitsune"], config.kitsune, key="kitsune"))
    for spec in specs:
        if spec.bundle is None and not spec.kind.online:
            raise ConfigError(
                f"model {spec.name}: a {spec.kind.name} does not learn from the stream: give a trained one, "
                f"--model {spec.name}=FILE (made by `wiresonde train {spec.kind.name}`)"
            )
    if all(spec.shadow for spec in specs):
        raise ConfigError(
            f"models: {', '.join(s.name for s in specs)}: only shadows; give at least one model that is not a shadow"
        )
    return specs


def _bundles(given: Sequence[str]) -> dict[str, tuple[BundleFile | None, str]]:
    """Path and kind of each bundle, by name."""
    found: dict[str, tuple[BundleFile | None, str]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if equals and not NAME.fullmatch(name):
            raise ConfigError(
                f"--model {text}: {name!r} is not a valid name (1 to 32 of a-z, 0-9 and -); "
                "for a path that contains =, give NAME=PATH"
            )
        path = Path(rest if equals else text)
        if not (rest if equals else text):
            raise ConfigError(f"--model {text}: the path is empty")
        bundle = BundleFile(path)
        kind = bundle.bundle.kind
        name = name if equals else kind
        if name in KINDS and name != kind:
            raise ConfigError(
                f"--model {text}: a bundle of kind {kind} cannot be named {name}, which is another kind"
            )
        if name in found:
            raise ConfigError(
                f"--model {text}: model {name} is given twice; name one of them: --model NAME=FILE"
            )
        found[name] = bundle, kind
    return found


def first_of(specs: Sequence[ModelSpec]) -> ModelSpec:
    """The model that summaries describe: the first that is not a shadow."""
    return next(spec for spec in specs if not spec.shadow)


def spec_to_train(config: Config, kind: str, learn: int | None = None) -> ModelSpec:
    """A learning model of a kind, with its configured values. Raises ConfigError for an unknown kind.

    learn: number of packets to learn and calibrate with; None: as configured.
    """
    if kind not in KINDS:
        raise ConfigError(f"train {kind}: no such kind of model; choose from {', '.join(sorted(KINDS))}")
    sections = [entry.section() for entry in config.models.values() if entry.kind == kind]
    default = config.kitsune if kind == "kitsune" else KINDS[kind].section()
    section = sections[0] if sections else default
    key = "kitsune" if kind == "kitsune" and not sections else "models.NAME"
    return ModelSpec(
        kind, KINDS[kind], section if learn is None else KINDS[kind].learning(section, learn), key=key
    )
