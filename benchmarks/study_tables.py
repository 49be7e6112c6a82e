"""The tables of the studies of Kitsune."""

from __future__ import annotations

from typing import Any

SHOWN = {
    "public": "`interarrival: public`",
    "cap 30 s": "taken in as 30 s at most",
    "> 5 s": "restart after 5 s",
    "> 60 s": "restart after 60 s",
    "> 60 s; > 30 x mean, 5 s": "after 60 s, or 30 times the mean",
    "> 60 s; > 30 x mean, 5 s; pairs too": "**the same, and pairs after 60 s**",
}
PAUSES = ("none", "25 s", "60 s", "300 s", "900 s", "1 h", "1 day")
BARRED = PAUSES[2:]  # pauses for which the bar was set
WAYS = {
    "continued": "one run, not interrupted",
    "empty": "empty streams, no warm-up",
    "warm-up": "empty streams, the default warm-up",
    "carried": "carried streams, no gap",
    "carried, 20 s later": "carried streams, 20 s later",
    "carried, 60 s later": "carried streams, 60 s later",
    "carried, 120 s later": "carried streams, 120 s later",
}


def pauses(document: dict[str, Any]) -> str:
    """The table of study_interarrival."""
    rows = {(r["run"], r["rule"], r["pause"]): r for r in document["alarmed"]}
    lines = [
        f"`python -m benchmarks.study_interarrival --part report`, commit {document['commit']}.", "",
        "| traffic | rule | " + " | ".join("no pause" if p == "none" else p for p in PAUSES) + " |",
        "|---|---|" + "---:|" * len(PAUSES),
    ]  # fmt: skip
    for run in dict.fromkeys(r["run"] for r in document["alarmed"]):
        name = f"{run} ({rows[run, 'public', 'none']['connections']:,})"
        for rule, said in SHOWN.items():
            cells = [_cell(rows[run, rule, pause]) for pause in PAUSES]
            lines.append(f"| {name} | {said} | {' | '.join(cells)} |")
            name = ""
    lines += ["", "| rule | infected host | within the attack | phase |", "|---|---:|---:|---:|"]
    for rule, said in SHOWN.items():
        own = [r for r in document["areas"] if r["rule"] == rule]
        means = " | ".join(f"{sum(r[k] for r in own) / len(own):.4f}" for k in ("host", "within", "phase"))
        lines.append(f"| {said} | {means} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    over = row["over_bar"] / row["runs"] if row["pause"] in BARRED else 0.0
    text = f"{row['alarmed']:.1f} ({low:.1f}–{high:.1f})"
    return f"{text}, {row['over_bar']}/{row['runs']}" if over else text


def starts(document: dict[str, Any]) -> str:
    """The table of study_start."""
    lines = [
        f"`python -m benchmarks.study_start`, commit {document['commit']}.", "",
        "| traffic | start | connections that alarm | worst run |", "|---|---|---:|---:|",
    ]  # fmt: skip
    for row in document["ways"]:
        way, _, why = row["way"].partition(": ")
        if why:
            continue
        low, high = row["interval"]
        share = f"{row['rate']:.3%} ({low:.3%}–{high:.3%})"
        lines.append(f"| {row['capture']}, {row['runs']} runs | {WAYS[way]} | {share} | {row['worst']:.2%} |")
    return "\n".join(lines)
