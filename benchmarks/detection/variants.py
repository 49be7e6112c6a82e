"""The detectors that are compared, and which of them this version lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal

from benchmarks.detection.known import ALL
from engine.errors import ConfigError
from engine.scoring.building import ModelSpec

TABLES = {"features.flows": 1 << 16}  # room for all flows of these captures; a smaller table starts sooner


@dataclass(frozen=True)
class Variant:
    """A detector of the comparison: a kind of model, what is set in its section, and how it starts to score."""

    name: str
    kind: str = "kitsune"
    options: Mapping[str, Any] = field(default_factory=dict)  # values of its section, by dotted key
    carries: bool = False  # whether its bundle carries the streams of the end of learning
    start: Literal["continued", "bundle"] = "continued"  # goes on after learning, or is loaded from a bundle
    implied: frozenset[str] = frozenset()  # keys that say what a version without them does anyway


def absent(variant: Variant) -> str | None:
    """Why this version does not have a variant; None if it does."""
    if variant.kind not in ALL:
        return f"no model of kind {variant.kind}"
    section = ALL[variant.kind].section()
    if lacks := [key for key in variant.options if key not in variant.implied and not has(section, key)]:
        return f"no {', '.join(lacks)}"
    try:
        section_of(variant, 0)
    except (ConfigError, ValueError, TypeError) as error:
        return str(error)
    return None


def section_of(variant: Variant, seed: int) -> Any:
    """The section of a variant, with a seed where its kind draws anything."""
    section = ALL[variant.kind].section()
    for key, value in {**TABLES, "kitnet.seed": seed, **variant.options}.items():
        if has(section, key):
            section = with_value(section, key.split("."), value)
    return section


def drawn(variant: Variant) -> bool:
    """Whether a variant's model depends on a seed."""
    return has(ALL[variant.kind].section(), "kitnet.seed")


def has(section: Any, key: str) -> bool:
    """Whether a section has a dotted key."""
    for name in key.split("."):
        if not is_dataclass(section) or not hasattr(section, name):
            return False
        section = getattr(section, name)
    return True


def with_value(section: Any, names: Sequence[str], value: Any) -> Any:
    """A copy of a section with one value changed."""
    if len(names) > 1:
        value = with_value(getattr(section, names[0]), names[1:], value)
    return replace(section, **{names[0]: value})


def spec_of(variant: Variant, seed: int, name: str, packets: int) -> ModelSpec:
    """The model of a variant that learns and calibrates with so many packets."""
    kind = ALL[variant.kind]
    return ModelSpec(name, kind, kind.learning(section_of(variant, seed), packets))
