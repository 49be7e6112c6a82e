"""Tables of the evaluations, for a terminal and for docs/detection.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.detection.parts import DASH, short, shown
from benchmarks.detection.summary import summary

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def rate(estimate: Sequence[float] | None) -> str:
    """A number an hour with its interval."""
    if estimate is None:
        return DASH
    return "{} [{}, {}]".format(*(f"{x:,.1f}" if x < 10 else f"{x:,.0f}" for x in estimate))


def numbers(row: Row) -> str:
    """Positives and negatives, and how many units each were resampled as."""
    said = f"{row['positives']:,} / {row['negatives']:,}"
    if "units" not in row:
        return said
    (a, what), (b, other) = row["units"]
    short = {"host pairs": "p", "runs": "r", "connections": "c"}
    return f"{said} ({a:,}{short[what]} / {b:,}{short[other]})"


def measure(name: str, form: Callable[[Any], str] = shown) -> Callable[[Row], str]:
    """A column of a measure; a dash where a row lacks it."""
    return lambda row: form(row.get(name))


MEASURES: tuple[Column, ...] = (
    ("AUC", measure("area")),
    ("TPR at 1e-2", measure("at_0.01")),
    ("at 1e-3", measure("at_0.001")),
    ("at 1e-4", measure("at_0.0001")),
    ("found", measure("found")),
    ("false", measure("false")),
    ("false alarms an hour", measure("hourly", rate)),
    ("positives / negatives (units)", numbers),
)


def detector(row: Row) -> str:
    """The detector, and the feature if it is one."""
    return f"{row['detector']}: `{row['feature']}`" if "feature" in row else str(row["detector"])


def table(rows: Iterable[Row], columns: Sequence[Column]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(name for name, _ in columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(make(row) for _, make in columns) + " |" for row in rows)])


def within(rows: Sequence[Row]) -> str:
    """The table of the attack capture."""
    compared = list(dict.fromkeys(r["against"] for r in rows))
    return table(
        sorted(rows, key=lambda r: (compared.index(r["against"]), r["level"] != "packets")),
        (
            ("compared", lambda r: r["against"]),
            ("of", lambda r: r["level"]),
            ("detector", detector),
            *MEASURES,
        ),
    )


def merged(rows: Sequence[Row]) -> str:
    """All attacks and all controls of each base: the measures of attacks, and the areas of all comparisons."""
    by = grouped([r for r in rows if r["source"].startswith("all ")], ("base", "level", "detector"))

    def of(source: str, against: str, name: str) -> Callable[[Row], str]:
        return lambda r: shown(r["own"].get((source, against), {}).get(name))

    def count(source: str) -> Callable[[Row], str]:
        return lambda r: numbers(r["own"][source, "base"]) if (source, "base") in r["own"] else DASH

    columns: list[Column] = [
        ("base", lambda r: r["key"][0]),
        ("of", lambda r: r["key"][1]),
        ("detector", lambda r: detector(next(iter(r["own"].values())))),
        ("AUC of attacks", of("all attacks", "base", "area")),
        ("AUC of controls", of("all controls", "base", "area")),
        ("**AUC of attacks against controls**", of("all attacks", "controls", "area")),
        ("attacks found", of("all attacks", "base", "found")),
        ("controls alarmed", of("all controls", "base", "found")),
        ("TPR at 1e-2", of("all attacks", "base", "at_0.01")),
        ("at 1e-3", of("all attacks", "base", "at_0.001")),
        ("at 1e-4", of("all attacks", "base", "at_0.0001")),
        ("attacks / base (units)", count("all attacks")),
        ("controls / base (units)", count("all controls")),
    ]
    return table(by, columns)


def grouped(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Rows with equal keys together, in order of appearance; ``own`` has them by source and comparison."""
    places = {name: list(dict.fromkeys(r[name] for r in rows)) for name in keys}
    found: dict[tuple[str, ...], dict[tuple[str, str], Row]] = {}
    for r in rows:
        found.setdefault(tuple(r[k] for k in keys), {})[r["source"], r["against"]] = r
    order = sorted(found, key=lambda key: [places[name].index(value) for name, value in zip(keys, key)])
    return [{"key": key, "own": found[key]} for key in order]


def sources(rows: Sequence[Row]) -> str:
    """Area against the base, area against the controls, and share found of each source, by base and detector."""
    chosen = [r for r in rows if not r["source"].startswith("all ")]
    detectors = list(dict.fromkeys(r["detector"] for r in chosen))
    by: dict[tuple[str, str, str], dict[tuple[str, str], Row]] = {}
    for r in chosen:
        by.setdefault((r["base"], r["kind"], r["source"]), {})[r["detector"], r["against"]] = r

    def cell(name: str) -> Callable[[Row], str]:
        def text_of(row: Row) -> str:
            one, other = (row["own"].get((name, against), {}) for against in ("base", "controls"))
            return ", ".join(
                short(given[key][0], 2) if given.get(key) else DASH
                for given, key in ((one, "area"), (other, "area"), (one, "found"))
            )

        return text_of

    columns: list[Column] = [
        ("base", lambda r: r["key"][0]),
        ("traffic", lambda r: f"{'control' if r['key'][1] == 'benign' else r['key'][1]}: {r['key'][2]}"),
        ("connections", lambda r: f"{next(iter(r['own'].values()))['positives']:,}"),
        *((name, cell(name)) for name in detectors),
    ]
    return table([{"key": key, "own": own} for key, own in by.items()], columns)


def _cell(name: str) -> Callable[[Row], str]:
    """Area, and share found, of a detector."""

    def cell(row: Row) -> str:
        one = row["own"].get(name)
        if one is None or "area" not in one:
            return DASH
        return f"{short(one['area'][0], 2)}, {short(one['found'][0], 2)}"

    return cell


def corpora(rows: Sequence[Row]) -> str:
    """All attacks of each corpus."""
    chosen = [r for r in rows if r["activity"] == "all"]
    order = sorted(chosen, key=lambda r: (r["corpus"] != "small", r["level"] != "packets"))
    return table(
        order, (("corpus", lambda r: r["corpus"]), ("of", lambda r: r["level"]), ("detector", detector), *MEASURES)
    )  # fmt: skip


def activities(rows: Sequence[Row]) -> str:
    """Area and share found of each attack activity."""
    chosen = [r for r in rows if r["activity"] != "all"]
    detectors = list(dict.fromkeys(r["detector"] for r in chosen))
    by: dict[tuple[str, str, str], dict[str, Row]] = {}
    for r in chosen:
        by.setdefault((r["corpus"], r["kind"], r["activity"]), {})[r["detector"]] = r
    columns: list[Column] = [
        ("corpus", lambda r: r["key"][0]),
        ("attack", lambda r: f"{r['key'][1]}: {r['key'][2]}"),
        ("connections", lambda r: f"{next(iter(r['own'].values()))['positives']:,}"),
        *((name, _cell(name)) for name in detectors),
    ]
    return table([{"key": key, "own": own} for key, own in by.items()], columns)


def alone(rows: Sequence[Row]) -> str:
    """False alarms on benign traffic alone."""
    chosen = [r for r in rows if r["pause"] == 0]
    return table(
        chosen,
        (
            ("base", lambda r: r["base"]),
            ("detector", detector),
            ("asked", lambda r: f"{r['asked']:.1%}"),
            ("alarmed", lambda r: "{:.2%} [{:.2%}, {:.2%}]".format(*r["share"])),
            ("an hour", measure("hourly", rate)),
            ("by seed", lambda r: ", ".join(map(str, r["alarmed"]))),
            ("connections", lambda r: f"{r['connections']:,}"),
            ("threshold", lambda r: "sound" if r["enough"] else "from too few connections"),
        ),
    )


def pauses(rows: Sequence[Row]) -> str:
    """Connections alarmed with each pause, mean over seeds."""
    by: dict[tuple[str, str], dict[int, Row]] = {}
    for r in rows:
        by.setdefault((r["base"], r["detector"]), {})[r["pause"]] = r
    lengths = sorted({r["pause"] for r in rows})
    columns: list[Column] = [
        ("base", lambda r: r["key"][0]),
        ("detector", lambda r: r["key"][1]),
        *((_length(k), _alarmed(k)) for k in lengths),
        ("connections", lambda r: f"{r['own'][0]['connections']:,}"),
    ]
    return table([{"key": key, "own": own} for key, own in by.items()], columns)


def _length(seconds: int) -> str:
    for unit, name in ((86_400, "day"), (3600, "h"), (1, "s")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return "no pause"


def _alarmed(pause: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        one = row["own"][pause]
        low, high = (x * one["connections"] for x in one["share"][1:])
        return f"{sum(one['alarmed']) / len(one['alarmed']):,.0f} [{low:,.0f}, {high:,.0f}]"

    return cell


def made(document: Row) -> str:
    """What the tables were made with."""
    cpu = document["machine"]["cpu"]
    said = (
        f"{cpu}, commit {document['commit']}: {len(document['seeds'])} seeds of each Kitsune, {document['rounds']:,} "
        f"resamples, {document['seconds']:,.0f} s."
    )
    absent = "".join(f" Absent in this version: {name} ({why})." for name, why in document["absent"].items())
    skipped = "".join(f" Skipped: {name} ({why})." for name, why in document["skipped"].items())
    return said + absent + skipped


SECTIONS: tuple[tuple[str, str, Callable[[Sequence[Row]], str]], ...] = (  # name, evaluation, table
    ("within", "within", within),
    ("merged", "merged", merged),
    ("sources", "merged", sources),
    ("corpora", "corpora", corpora),
    ("activities", "corpora", activities),
    ("alone", "pauses", alone),
    ("pauses", "pauses", pauses),
)


def text(document: Row) -> str:
    """All tables."""
    rows = document["rows"]
    parts = [made(document), summary(document)]
    parts += [f"{name}\n{make(rows[source])}" for name, source, make in SECTIONS if rows.get(source)]
    return "\n\n".join(parts)


def _of(source: str, make: Callable[[Sequence[Row]], str]) -> Callable[[Row], str]:
    return lambda document: make(document["rows"].get(source, ()))


TABLES: dict[str, Callable[[Row], str]] = {  # by their places in docs/detection.md
    "made": made,
    "summary": summary,
    **{name: _of(source, make) for name, source, make in SECTIONS},
}
