"""What files beside a capture say of packets: verdicts of the link, and phases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from engine.errors import InputError
from probing.corpus.columns import Ints, ns
from probing.lab.frames import SCHEMA
from probing.trace.connection import Mark

ENDINGS = (".pcap", ".pcapng", ".pcap.zst", ".pcapng.zst", ".pcap.gz", ".pcapng.gz", ".pcap.xz", ".pcapng.xz")
VANTAGES = (".server", ".client")  # a second capture of a corpus; its labels are the corpus's


def beside(capture: Path, ending: str) -> Path | None:
    """The file that the lab would have written beside a capture, None if it is not there."""
    stem = next(
        (capture.name.removesuffix(e) for e in ENDINGS[::-1] if capture.name.endswith(e)), capture.name
    )
    stems = [stem, *(stem.removesuffix(v) for v in VANTAGES if ending == "labels.parquet")]
    places = [capture.with_name(f"{name}.{ending}") for name in stems]
    return next((place for place in places if place.is_file()), None)


class Frames:
    """Rows of a frames file, for chosen frames."""

    def __init__(self, path: Path, wanted: Ints) -> None:
        """wanted: numbers of frames, from 1. InputError for a file that is not of the lab, or lacks a frame."""
        self.path = path
        try:
            with pa.parquet.ParquetFile(path) as file:
                self._rows = _chosen(file, np.unique(wanted))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        except (pa.ArrowException, ValueError) as error:
            raise InputError(
                f"{path}: not a frames file of the lab: {' '.join(str(error).split())}"
            ) from None
        self._number = self._rows["frame"].to_numpy()

    def of(self, frame: Ints, ts: Ints) -> tuple[list[str], list[Mark]]:
        """Verdicts of packets, and the phases that begin among them. InputError where file and capture differ."""
        at = np.searchsorted(self._number, frame)
        missing = np.flatnonzero(at >= self._number.size)
        if not missing.size:
            missing = np.flatnonzero(self._number[at] != frame)
        if missing.size:
            raise InputError(f"{self.path}: no frame {frame[missing[0]]}: is the file of this capture?")
        rows = self._rows.take(pa.array(at))
        if (other := np.flatnonzero(ns(rows["ts"]) != ts)).size:
            raise InputError(
                f"{self.path}: frame {frame[other[0]]} is not of the capture's time: is the file of this capture?"
            )
        phases = rows["phase"].to_pylist()
        changes = [k for k, phase in enumerate(phases) if phase and (k == 0 or phase != phases[k - 1])]
        return _verdicts(rows), [Mark(int(ts[k]), phases[k]) for k in changes]


def _chosen(file: Any, wanted: Ints) -> pa.Table:
    """The rows of frames, by number; row group by row group, so that a large file takes little memory."""
    if missing := [name for name in SCHEMA.names if name not in file.schema_arrow.names]:
        raise ValueError(f"no column {', '.join(missing)}")
    plain = pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in SCHEMA])
    parts = [plain.empty_table()]
    for batch in file.iter_batches(columns=SCHEMA.names):
        table = pa.table(batch).select(SCHEMA.names).cast(plain)
        parts.append(table.filter(pc.is_in(table["frame"], pa.array(wanted))))
    return pa.concat_tables(parts).sort_by("frame")


def _verdicts(rows: pa.Table) -> list[str]:
    more = [(word, rows[word].to_pylist()) for word in ("overtaken", "duplicated", "corrupted")]
    return [
        " ".join([str(verdict or "sent"), *(word for word, there in more if there[k])])
        for k, verdict in enumerate(rows["verdict"].to_pylist())
    ]


def marks_of(row: Mapping[str, Any]) -> list[Mark]:
    """The phases of a label row of the lab. ValueError for text that is no list of phases."""
    found = json.loads(row["phases"] or "[]")
    if not isinstance(found, list):
        raise ValueError("not a list")
    marks = [Mark(at, phase) for phase, at in found if isinstance(at, int) and isinstance(phase, str)]
    if len(marks) != len(found):
        raise ValueError("not a list of [phase, ns]")
    return sorted(marks, key=lambda mark: mark.ts)


def in_force(marks: Sequence[Mark], ts: Ints) -> list[Mark]:
    """The phases in force during a connection. ts: (n,) times of its packets."""
    first, last = int(ts.min()), int(ts.max())
    begun = [mark for mark in marks if mark.ts <= first][-1:]
    return begun + [mark for mark in marks if first < mark.ts <= last]
