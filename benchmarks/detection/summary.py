"""What the tables say, in a list of sentences whose figures come from the rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.detection.parts import short, shown

Row = Mapping[str, Any]
NAME = "Kitsune"  # detector that the summary is about


def summary(document: Row) -> str:
    """One item an evaluation."""
    rows = document["rows"]
    lines = [_within(rows["within"])] if "within" in rows else []
    merged = rows.get("merged", ())
    lines += [_merged(merged, base) for base in dict.fromkeys(r["base"] for r in merged)]
    lines += [
        _corpus(r)
        for r in rows.get("corpora", ())
        if r["detector"].startswith(NAME) and r["activity"] == "all" and r["level"] == "connections"
    ]
    lines += [
        _pauses(rows["pauses"], base) for base in dict.fromkeys(r["base"] for r in rows.get("pauses", ()))
    ]
    return "\n".join(f"- {line}" for line in lines)


def _within(rows: Sequence[Row]) -> str:
    packets = [r for r in rows if r["level"] == "packets"]
    phase, inside, rest = (
        next(r for r in packets if r["detector"] == NAME and r["against"].startswith(begins))
        for begins in ("phase", "infected", "ordinary")
    )
    said = (
        f"**Mirai.** Judged by the label of the phase, {NAME}'s packet scores have an AUC of {shown(phase['area'])}. "
        f"But the ordinary devices of that phase, against all traffic before it, have {shown(rest['area'])} without "
        f"any attack: the phase begins after a gap. The infected host against other devices in the same seconds "
        f"has {shown(inside['area'])}"
    )
    best = next((r for r in packets if "feature" in r and r["against"] == inside["against"]), None)
    return said + (f", the feature `{best['feature']}` alone {shown(best['area'])}." if best else ".")


def _merged(rows: Sequence[Row], base: str) -> str:
    own = [
        r for r in rows
        if (r["base"], r["detector"], r["level"]) == (base, NAME, "connections") and "area" in r
    ]  # fmt: skip
    found = {r["source"]: r["found"][0] for r in own if r["against"] == "base"}
    areas: dict[tuple[bool, str], list[float]] = {}
    for r in own:
        if not r["source"].startswith("all "):
            areas.setdefault((r["kind"] == "benign", r["against"]), []).append(r["area"][0])
    attacks, controls = areas[False, "base"], areas[True, "base"]
    return (
        f"**Merged into {base}.** {found['all attacks']:.0%} of the attacks' connections alarm, and "
        f"{found['all controls']:.0%} of the controls'. Against the base, the median AUC of {len(attacks)} attacks is "
        f"{_middle(attacks)} and that of {len(controls)} controls {_middle(controls)}; of the attacks against the "
        f"controls it is {_middle(areas[False, 'controls'])}."
    )


def _middle(values: Sequence[float]) -> str:
    return short(statistics.median(values), 2)


def _corpus(r: Row) -> str:
    return (
        f"**Corpus `{r['corpus']}`**, {r['detector']}: AUC {shown(r['area'])}. At the threshold it finds "
        f"{r['found'][0]:.1%} of {r['positives']:,} connections of attacks, and {r['false'][0]:.1%} of "
        f"{r['negatives']:,} benign ones alarm."
    )


def _pauses(rows: Sequence[Row], base: str) -> str:
    own = {r["pause"]: r for r in rows if (r["base"], r["detector"]) == (base, NAME)}
    means = {pause: statistics.mean(r["alarmed"]) for pause, r in own.items()}
    last = max(own)
    return (
        f"**A pause in {base}.** Of {own[0]['connections']:,} benign connections {means[0]:,.0f} alarm, and "
        f"{means[last]:,.0f} when traffic has paused for {'a day' if last == 86_400 else f'{last:,} s'}."
    )
