"""Whether a split of a corpus keeps apart what must be apart, and each part has what it needs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.errors import InputError
from probing.corpus.columns import Ints, dictionary
from probing.corpus.copies import LEAST_DATA, LEAST_SIZES, across, sequences
from probing.corpus.findings import Finding
from probing.corpus.labelled import Labelled
from probing.corpus.split import split

SHARES = {"train": 0.6, "calibrate": 0.2, "test": 0.2}
SEED = 1
MOST_COPIES = 0.25  # share of an activity's connections that may have a near-duplicate in another part
LEAST_INFORMED = 20  # connections of an activity with enough information, below which the share tells nothing
RARE = 5  # runs a part with another value than the most common, below which a label may be constant by chance


def parts_of(known: Labelled, file: Path | None) -> tuple[Ints, list[str], str]:
    """The part of each connection, the parts' names, and where they come from.

    file: a CSV file with columns run and part. Else the label column ``part``; else the split of split.py. Raises
    InputError for a run without a part.
    """
    if file is not None:
        of = _read_parts(file)
        runs = known.labels.column("run").to_pylist()
        if missing := sorted(set(runs) - set(of)):
            raise InputError(f"{file}: no part for run {missing[0]!r} (and {len(missing) - 1} more)")
        code, names = dictionary(pa.chunked_array([pa.array([of[run] for run in runs], pa.string())]))
        return code, names, f"parts of {file.name}"
    if "part" in known.known:
        code, names = dictionary(known.labels.column("part"))
        return code, names, "label column part"
    masks = split(known.labels, SHARES, SEED)
    part = np.zeros(known.labels.num_rows, np.int64)
    for k, mask in enumerate(masks.values()):
        part[mask] = k
    shares = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
    return part, list(masks), f"{shares} of the runs of each activity, seed {SEED} (probing.corpus.split)"


def _read_parts(file: Path) -> dict[str, str]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: {error}") from error
    if not rows or not {"run", "part"} <= set(rows[0]):
        raise InputError(f"{file}: must be a CSV file with the columns run and part")
    return {row["run"]: row["part"] or "" for row in rows}


def torn(labels: pa.Table, part: Ints, parts: Sequence[str]) -> list[Finding]:
    """Runs, and twins, that are in more than one part."""
    found = []
    for column, what in (("run", "run"), ("pair", "twins")):
        code, names = dictionary(labels.column(column))
        seen = np.unique(np.stack((code, part)), axis=1)
        several = [k for k in np.flatnonzero(np.bincount(seen[0]) > 1).tolist() if names[k]]
        if several:
            first = several[0]
            where = " and ".join(parts[k] for k in seen[1][seen[0] == first].tolist())
            says = f"{what} {names[first]!r} {'is' if what == 'run' else 'are'} in {where}"
            more = f" (and {len(several) - 1} more)" if len(several) > 1 else ""
            found.append(
                Finding("torn", "corpus", "fault", says + more, {"column": column, "torn": len(several)})
            )
    return found or [Finding("torn", "corpus", "passed", "each run, and each pair of twins, is in one part")]


def constant(known: Labelled, part: Ints, parts: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Labels that vary in the corpus but not in a part; and a note on those that few runs vary."""
    labels, found, rare = known.labels, [], []
    run, _ = dictionary(labels.column("run"))
    for name in dict.fromkeys((*known.known, "attack", "attack_kind")):
        code, _ = dictionary(labels.column(name))
        common = np.bincount(code).argmax() if code.size else 0
        other = np.unique(run[code != common]).size
        stuck = [parts[k] for k in np.unique(part).tolist() if np.unique(code[part == k]).size == 1]
        if not other or not stuck:
            continue
        if other >= RARE * len(parts):
            values = {"label": name, "parts": stuck, "runs": other}
            says = f"{name} does not vary in {', '.join(stuck)}, though {other} runs have another value"
            found.append(Finding("constant label", "corpus", "fault", says, values))
        else:
            rare.append(f"{name} ({', '.join(stuck)})")
    note = [f"labels that few runs vary do not vary in a part: {'; '.join(rare)}"] if rare else []
    return found or [
        Finding("constant label", "corpus", "passed", "no label is constant within a part")
    ], note


def copied(known: Labelled, part: Ints, family: NDArray[np.str_], most: float) -> list[Finding]:
    """Near-duplicates across parts, a finding an activity. most: largest share of its connections that is no fault."""
    sequence, informed = sequences(known.traffic, known.row, known.labels.num_rows)
    copy = across(sequence, informed, part)
    found = []
    for name in np.unique(family).tolist():
        mine = family == name
        n, copies = int((mine & informed).sum()), int((mine & copy).sum())
        values = {"connections": int(mine.sum()), "informed": n, "copies": copies}
        if n < LEAST_INFORMED:
            if copies > n / 2 and copies > 1:
                found.append(Finding("near-duplicates", name, "too few to tell",
                                     f"{copies} of only {n} connections with enough information", values))  # fmt: skip
            continue
        outcome = "fault" if copies > most * n else "passed"
        says = f"{copies} of {n} connections ({copies / n:.0%}) with {LEAST_DATA} data packets of {LEAST_SIZES} sizes"
        found.append(Finding("near-duplicates", name, outcome, says, values))  # type: ignore[arg-type]
    return found
