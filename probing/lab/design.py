"""Designs: runs in which factors are crossed, so that their effects can be told apart.

A full factorial has a cell for each combination of levels. A fraction 1/r keeps the cells whose level numbers add up to
a multiple of r: the defining contrast of a regular fraction, for factors of several levels (Surowiec et al. 2017). As
long as two factors have a multiple of r levels, every level of every factor is in equally many cells; with more such
factors, so is every combination of levels of all but one of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from probing.lab.errors import LabError
from probing.lab.settings import Entry, Link, Load, Parameters

SECTIONS: dict[str, type[BaseModel]] = {"link": Link, "load": Load, "parameters": Parameters}
NAMES = ("activity", "server", "client", "users", "pause_s")  # factors that are keys of the entry itself


def cells(entry: Entry, where: str) -> Iterator[Entry]:
    """The entry once for each cell of its design; the entry itself without one. LabError for an impossible design."""
    design = entry.design
    if design is None:
        yield entry
        return
    factors = list(design.factors)
    for name in factors:
        _check(entry, name, f"{where}: design.factors")
    r = design.parts
    divisible = [name for name in factors if len(design.factors[name]) % r == 0]
    if r > 1 and len(divisible) < 2:
        raise LabError(
            f"{where}: design.fraction {design.fraction}: two factors must have a multiple of {r} levels, else some "
            f"levels are in more cells than others ({', '.join(divisible) or 'none'} has)"
        )
    numbered = [list(enumerate(design.factors[name])) for name in factors]
    for chosen in itertools.product(*numbered):
        if sum(number for number, _ in chosen) % r == 0:
            yield _filled(entry, {name: level for name, (_, level) in zip(factors, chosen)})


def _check(entry: Entry, name: str, where: str) -> None:
    """Raise LabError for a factor that is not a setting, or that the entry sets otherwise too."""
    section, _, key = name.partition(".")
    if key:
        if section not in SECTIONS or key not in SECTIONS[section].model_fields:
            raise LabError(f"{where}: {name} is not a setting: give link.KEY, load.KEY, parameters.KEY or one of "
                           f"{', '.join(NAMES)}")  # fmt: skip
        given = key in getattr(entry, section)
    else:
        if name not in NAMES:
            raise LabError(
                f"{where}: {name} is not one of {', '.join(NAMES)}, link.KEY, load.KEY, parameters.KEY"
            )
        given = name in entry.model_fields_set
    if given:
        raise LabError(f"{where}: {name} has levels here and a value in the entry: give one of them")


def _filled(entry: Entry, levels: dict[str, Any]) -> Entry:
    update: dict[str, Any] = {"design": None}
    for name, level in levels.items():
        section, _, key = name.partition(".")
        if key:
            update[section] = {**update.get(section, getattr(entry, section)), key: level}
        else:
            update[name] = level
    return entry.model_copy(update=update)
