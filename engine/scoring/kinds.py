"""All kinds of model."""

from __future__ import annotations

from engine.scoring import baseline, kitsune, sequence
from engine.scoring.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        kitsune.KIND,
        baseline.KIND,
        sequence.KIND,
    )
}  # fmt: skip
