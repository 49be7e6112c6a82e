"""The table of a trace, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from probing.trace.connection import TracedConnection

FLAGS = "FSRPAUEC"  # from the lowest bit
NONE = "–"


def flags_text(flags: int) -> str:
    """Letters of TCP flags; a dot if there are none."""
    return "".join(letter for k, letter in enumerate(FLAGS) if flags >> k & 1) or "."


def lines(connections: Sequence[TracedConnection], note: str) -> Iterator[str]:
    """The table, one connection after the other."""
    for k, one in enumerate(connections):
        if k:
            yield ""
        yield from _one(one)
    yield ""
    yield note


def _one(one: TracedConnection) -> Iterator[str]:
    labels = " ".join(f"{name}={value}" for name, value in one.labels.items())
    yield f"{one.uid}  {one.ends}  {one.state}  {one.capture}{'  ' + labels if labels else ''}"
    known = [f"{m} {v:.4g}" for m, v in one.thresholds.items() if math.isfinite(v)]
    if known:
        yield f"thresholds  {', '.join(known)} (* above)"
    if one.left_out:
        yield f"{one.left_out:,} later packets of the chosen connections were left out"
    rows = list(_rows(one))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    right = {0, 2, 3} | set(range(len(rows[0]) - len(one.scores), len(rows[0])))
    for row in rows:
        cells = (t.rjust(w) if k in right else t.ljust(w) for k, (t, w) in enumerate(zip(row, widths)))
        yield " " + "  ".join(cells).rstrip()


def _rows(one: TracedConnection) -> Iterator[list[str]]:
    """The heading, then a row a packet."""
    phases = one.phase if one.marks else None
    known = [name for name, there in (("link", one.verdict), ("phase", phases)) if there]
    models = [f"{name} " for name in one.scores]  # a space below the mark of a score above the threshold
    yield ["seconds", "from", "size", "payload", "flags", "segment", "recovery", *known, *models]
    since = one.since.tolist()
    scores = {name: values.tolist() for name, values in one.scores.items()}
    for k in range(one.ts.size):
        row = [
            f"{since[k]:.6f}", "orig" if one.up[k] else "resp", str(one.size[k]), str(one.payload[k]),
            flags_text(int(one.flags[k])), one.segment[k].replace("_", " "), "yes" if one.recovery[k] else "",
        ]  # fmt: skip
        row += [one.verdict[k]] if one.verdict else []
        row += [phases[k] or NONE] if phases else []
        yield row + [_score(values[k], one.thresholds.get(name)) for name, values in scores.items()]


def _score(score: float, threshold: float | None) -> str:
    if math.isnan(score):
        return f"{NONE} "
    above = threshold is not None and score > threshold
    return f"{score:.4f}{'*' if above else ' '}"


def as_json(connections: Sequence[TracedConnection], kind: str, note: str) -> dict[str, Any]:
    """The same for programs. Values that are not known are null."""
    return {"alignment": kind, "note": note, "connections": [_as_json(one) for one in connections]}


def _as_json(one: TracedConnection) -> dict[str, Any]:
    phases, since = one.phase, one.since.tolist()
    scores = {
        name: [None if math.isnan(v) else v for v in values.tolist()] for name, values in one.scores.items()
    }
    packets = [
        {
            "frame": int(one.frame[k]), "ts": int(one.ts[k]), "seconds": since[k],
            "from": "orig" if one.up[k] else "resp",
            "size": int(one.size[k]), "payload": int(one.payload[k]), "tcp_flags": int(one.flags[k]),
            "segment": one.segment[k], "recovery": bool(one.recovery[k]),
            "link": one.verdict[k] if one.verdict else None, "phase": phases[k],
            "scores": {name: values[k] for name, values in scores.items()},
        }
        for k in range(one.ts.size)
    ]  # fmt: skip
    return {
        "uid": one.uid, "capture": one.capture, "ends": one.ends, "conn_state": one.state, "labels": dict(one.labels),
        "thresholds": {name: v if math.isfinite(v) else None for name, v in one.thresholds.items()},
        "phases": [[mark.phase, mark.ts] for mark in one.marks], "left_out": one.left_out, "packets": packets,
    }  # fmt: skip
