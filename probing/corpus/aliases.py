"""Labels that always go together: what one tells, the other tells, and nobody can hold them apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from probing.corpus.columns import Ints, dictionary

# labels that are circumstances of an attack, not what it is: they must vary by themselves
CIRCUMSTANCES = (
    "content_kind", "cache", "load", "delay_ms", "jitter_ms", "distribution", "loss_pct", "reorder_pct",
    "duplicate_pct", "corrupt_pct", "keep_order", "rate_kbit", "queue_packets", "impaired", "termination", "users",
)  # fmt: skip


def alias_sets(labels: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Sets of labels, each of at least two, whose values go together over all runs; constant labels are in none."""
    run, _ = dictionary(labels.column("run"))
    codes = {name: dictionary(labels.column(name))[0] for name in names}
    seen = {name: np.unique(np.stack((run, code)), axis=1) for name, code in codes.items()}
    varied = [name for name in names if np.unique(seen[name][1]).size > 1]
    found: list[list[str]] = []
    for name in varied:
        for known in found:
            if _go_together(codes[known[0]], codes[name]):
                known.append(name)
                break
        else:
            found.append([name])
    return [tuple(group) for group in found if len(group) > 1]


def _go_together(one: Ints, other: Ints) -> bool:
    pairs = np.unique(np.stack((one, other)), axis=1).shape[1]
    return bool(pairs == np.unique(one).size == np.unique(other).size)


def telling(labels: pa.Table, attack: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """The circumstances each of whose values has attacks alone or benign connections alone; both must be there."""
    if attack.all() or not attack.any():
        return []
    found = []
    for name in (name for name in CIRCUMSTANCES if name in names):
        code, _ = dictionary(labels.column(name))
        if not np.intersect1d(code[attack], code[~attack]).size:
            found.append(name)
    return found
