"""Label files for captures that were made with DetGen.

DetGen labels runs, not connections: a row of ``data/DIRECTORY-CAPTURETIME-labels.csv`` for each repetition of a
capture script, and a capture ``dump-NAME-CAPTURETIME-scSCENARIO-REPNUM.pcap`` for each container. Everything about its
scripts here was read in github.com/detlearsom/DetGen (v1.0.0 and a3e3944) and github.com/glo-fi/DetGen (a021a67); its
names and columns vary between them, and only some scripts write label files at all.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from engine.commands.reading import frames
from engine.errors import InputError
from probing.imports.connections import connection_rows
from probing.imports.detgen_attacks import BENIGN, AttackRun, labelled
from probing.imports.detgen_scenarios import Scenario, scenario_of
from probing.lab.labels import COLUMNS

Per = Literal["capture", "connection"]
MEASURED = {
    "capture": pa.string(),
    "description": pa.string(),
    "load_average": pa.float64(),
    "filename_bytes": pa.int64(),
    "username_bytes": pa.int64(),
    "password_bytes": pa.int64(),
}
HEADER = (
    "REPNUM;Directory;Filename-length;File-length;Username-length;Password-length;load;mean latency;latency variance;"
    "mean loss;mean corruption;Scenario;Activity Number;Activity description"
)
# column -> (our name, type, greatest value); "latency variance" is the jitter that netem was given, in ms
NUMBERS: dict[str, tuple[str, type[int] | type[float], float]] = {
    "filename-length": ("filename_bytes", int, math.inf),
    "file-length": ("content_bytes", int, math.inf),
    "username-length": ("username_bytes", int, math.inf),
    "password-length": ("password_bytes", int, math.inf),
    "load": ("load_average", float, math.inf),
    "mean latency": ("delay_ms", float, math.inf),
    "latency variance": ("jitter_ms", float, math.inf),
    "mean loss": ("loss_pct", float, 100),
    "mean corruption": ("corrupt_pct", float, 100),
    "activity number": ("activity_number", int, math.inf),
}
LABELS = tuple(c.name for c in COLUMNS if c.kind == "label")

_TIME = r"\d{4}-\d\d-\d\d[_T-]\d\d[-:]\d\d[-:]\d\d"
_CAPTURE = re.compile(
    rf"(?:dump-)*(?P<host>.+?)(?:-sc(?P<before>\d*))?-(?P<time>{_TIME})(?:-sc(?P<after>\d*))?(?:-(?P<repetition>\d*))?"
    r"\.(?:pcap|pcapng|cap)(?:\.(?:gz|xz|zst))?",
    re.ASCII | re.IGNORECASE,
)
_LABELS = re.compile(rf"(?P<directory>.*?)-?(?P<time>{_TIME})-labels\.csv", re.ASCII | re.IGNORECASE)
_ENDINGS = re.compile(r".+\.(?:pcap|pcapng|cap)(?:\.(?:gz|xz|zst))?", re.IGNORECASE)


class Name(NamedTuple):
    """The parts of a capture's name."""

    host: str  # 090-sshd-server
    time: str  # CAPTURETIME, shared by all repetitions of a script's run
    scenario: int | None
    repetition: int | None


class Problem(NamedTuple):
    """A file, or part of it, that cannot be used, and the reason."""

    file: Path
    reason: str


_PART = re.compile(r"'[^']*'|\S*\d\S*")  # a part of a reason that differs from file to file


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """A line for each kind of problem: the first file that has it, and the number of others."""
    files: dict[str, list[Path]] = {}
    first: dict[str, Problem] = {}
    for problem in problems:
        kind = _PART.sub("#", problem.reason)
        first.setdefault(kind, problem)
        if problem.file not in files.setdefault(kind, []):
            files[kind].append(problem.file)
    lines = []
    for kind, problem in first.items():
        others = len(files[kind]) - 1
        more = f" (and {others:,} more {'files' if others > 1 else 'file'} likewise)" if others else ""
        lines.append(f"{problem.file}: {problem.reason}{more}")
    return lines


@dataclass(frozen=True)
class Run:
    """A row of a label file. ``values``: by our names, without empty ones."""

    file: Path
    directory: str
    time: str
    repetition: int
    values: Mapping[str, Any]


@dataclass
class Imported:
    """The label rows of captures. ``captures``: number of captures that have any."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    captures: int = 0
    problems: list[Problem] = field(default_factory=list)


def import_folder(folder: Path, per: Per = "capture") -> Imported:
    """The label rows of all captures below a folder, in order of their first packets.

    per: one row for each capture, which labels all packets of its time, and for captures of an attack one for each of
    its connections; or one row for each connection. Raises InputError when there is no capture; anything else that is
    wrong becomes a Problem.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    captures = [path for path in files if _ENDINGS.fullmatch(path.name)]
    if not captures:
        raise InputError(f"{folder}: no captures (.pcap, .pcapng, .cap, also .gz, .xz or .zst)")
    result = Imported()
    runs: list[Run] = []
    for path in files:
        if path.name.lower().endswith("-labels.csv"):
            runs.extend(read_label_file(path, result.problems))
    attacks: dict[str, AttackRun] = {}
    made: list[
        tuple[dict[str, Any], list[dict[str, Any]]]
    ] = []  # labels of a capture, rows of its connections
    for path in captures:
        labelling = _labels(path, runs, result.problems)
        if labelling is None:
            continue
        known, labels = labelling
        connections = _connections(path, result.problems) if per == "connection" or known.targets else []
        if known.targets:
            run = attacks.setdefault(labels["run"], AttackRun(known))
            run.captures.append((_host(path), connections))
        times = _times(path, result.problems) if per == "capture" else []
        result.rows.extend(row | labels | (BENIGN if known.targets else {}) for row in times)
        result.captures += bool(times or connections)
        made.append((labels, connections))
    wide = sorted(result.rows, key=_time_of)
    result.problems.extend(_clashes(wide, folder))
    found = [row for labels, rows in made for row in _labelled(attacks.get(labels["run"]), rows, labels)]
    kept = (row for row in found if per == "connection" or row["attack"])
    result.rows = sorted([*wide, *_seen_once(sorted(kept, key=_time_of))], key=_time_of)
    return result


def _host(path: Path) -> str:
    name = parse_name(path.name)
    return name.host.lower() if name else ""


def _time_of(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["start"], row["end"]


def _labelled(
    run: AttackRun | None, rows: Sequence[dict[str, Any]], labels: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return [{**row, **labels} for row in rows] if run is None else labelled(run, rows, labels)


# names


def parse_name(name: str) -> Name | None:
    """The parts of a capture's name; None when it has no capture time and so is not DetGen's.

    The scenario follows the time, precedes it, or is missing; ``dump-`` may occur twice, when both the container image
    and its caller add it. With SCENARIO unset the image's arguments move up: then the repetition follows ``sc`` and
    its own place is empty.
    """
    found = _CAPTURE.fullmatch(name)
    if found is None:
        return None
    scenario = _number(found["after"] or found["before"])
    repetition = _number(found["repetition"])
    if found["repetition"] == "" and found["after"]:
        scenario, repetition = None, scenario
    return Name(found["host"], _same_time(found["time"]), scenario, repetition)


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _same_time(text: str) -> str:
    return f"{text[:10]}_{text[11:].replace(':', '-')}"


# label files


def read_label_file(path: Path, problems: list[Problem]) -> list[Run]:
    """The rows of a label file; anything wrong with it is added to problems."""
    name = _LABELS.fullmatch(path.name)
    if name is None:
        problems.append(Problem(path, "no capture time in its name"))
        return []
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = [line for line in csv.reader(file, delimiter=";", quoting=csv.QUOTE_NONE) if any(line)]
    except (OSError, csv.Error) as error:
        problems.append(Problem(path, str(getattr(error, "strerror", None) or error)))
        return []
    columns = _columns(HEADER.split(";"))
    runs: list[Run] = []
    odd: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        if line[0].strip().lower() == "repnum":  # also between rows, when two runs began in the same second
            columns = _columns(line)
            continue
        if len(line) < len(columns):
            odd[f"row {number} has {len(line)} of {len(columns)} columns: skipped"] += 1
            continue
        last = len(columns) - 1  # a description may contain the separator of columns
        row = dict(zip(columns, [*(text.strip() for text in line[:last]), ";".join(line[last:]).strip()]))
        repetition = row.get("repnum", "")
        if not repetition.isdecimal():
            odd[f"row {number}: REPNUM {repetition!r} is not a number: skipped"] += 1
            continue
        directory = row.get("directory") or name["directory"]
        runs.append(Run(path, directory, _same_time(name["time"]), int(repetition), _values(row, odd)))
    problems.extend(Problem(path, f"{reason}{f' ({n} rows)' * (n > 1)}") for reason, n in odd.items())
    return runs


def _columns(header: Sequence[str]) -> list[str]:
    return [" ".join(name.lower().split()) for name in header]


def _values(row: Mapping[str, str], odd: Counter[str]) -> dict[str, Any]:
    """The values of a row, by our names."""
    values: dict[str, Any] = {}
    for column, (name, kind, top) in NUMBERS.items():
        text = row.get(column, "").replace(",", ".")  # bc and uptime may follow a locale
        if not text:
            continue
        try:
            value = kind(text)
        except ValueError:
            # uptime's ninth word depends on the uptime: an average over 1 or 5 minutes, or not a number
            odd[f"{column} {text!r} is not a number: left empty"] += 1
            continue
        if not 0 <= value <= top or math.isinf(value):
            odd[f"{column} {text} is not between 0 and {top:g}: left empty"] += 1
            continue
        values[name] = value
    if description := row.get("activity description"):
        values["description"] = description
    if "delay_ms" in values:
        values["distribution"] = "pareto"  # according to container_tc.sh, unlike papers
    return values


# which label row is which capture's


def _labels(
    path: Path, runs: Sequence[Run], problems: list[Problem]
) -> tuple[Scenario, dict[str, Any]] | None:
    """The scenario and labels of a capture, from its name and a label file; None when it is not DetGen's."""
    name = parse_name(path.name)
    if name is None:
        problems.append(Problem(path, "no capture time in its name: not made by DetGen"))
        return None
    run = _run_of(path, name, runs, problems)
    inside = next((part for part in reversed(path.parts[:-1]) if part.lower().startswith("capture-")), "")
    known = scenario_of((run.directory if run else "") or inside, name.host)
    if known is None:
        problems.append(Problem(path, f"scenario {name.host!r} is unknown: labelled by its name only"))
        known = Scenario(name.host.lower(), None, attack_kind=None)
    values = dict(run.values) if run else {}
    activity = values.pop("activity_number", name.scenario)
    repetition = run.repetition if run else name.repetition
    return known, {
        "scenario": known.name, "task": known.task, "client_impl": known.client, "server_impl": known.server,
        "attack": None if known.attack_kind is None else int(known.attack_kind != "none"),
        "attack_kind": known.attack_kind,
        "activity": known.activity(activity),
        "run": "-".join(str(part) for part in (known.name, name.time, repetition) if part is not None),
        "capture": path.name,
        **values,
    }  # fmt: skip


def _run_of(path: Path, name: Name, runs: Sequence[Run], problems: list[Problem]) -> Run | None:
    """The row of a label file that belongs to a capture; None when there is none."""
    same = [run for run in runs if run.time == name.time]
    if not same:
        problems.append(Problem(path, "no label file has its capture time: labelled by its name only"))
        return None
    beside = [run for run in same if run.file.parent == path.parent] or same
    known = scenario_of("", name.host)
    alike = [run for run in beside if known is not None and scenario_of(run.directory, "") == known]
    rows = alike or [run for run in beside if not run.directory] or beside
    if name.repetition is None:  # each repetition overwrites the same file, so the last one is left
        rows = [run for run in rows if run.repetition == max(r.repetition for r in rows)]
    else:
        rows = [run for run in rows if run.repetition == name.repetition]
    if not rows:
        problems.append(Problem(path, f"no row for repetition {name.repetition} in {beside[0].file.name}: labelled by "
                                      "its name only"))  # fmt: skip
        return None
    if len({(run.directory, str(sorted(run.values.items()))) for run in rows}) > 1:
        problems.append(Problem(path, f"{len(rows)} rows of label files fit, and they differ: the first is "
                                      "used"))  # fmt: skip
    return rows[0]


# what is in a capture


def _times(path: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    """One row for all packets between a capture's first and last; none without packets."""
    first, last = None, None
    try:
        for block in frames([path], 4096):
            if block.ts.size:
                least, most = int(np.min(block.ts)), int(np.max(block.ts))
                first = least if first is None else min(first, least)
                last = most if last is None else max(last, most)
    except InputError as error:
        problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
    if first is None:
        problems.append(Problem(path, "no packets, so no row"))
        return []
    return [{"start": first, "end": last}]


def _connections(path: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    """One row for each connection of a capture."""
    rows: list[dict[str, Any]] = []
    try:
        rows.extend(connection_rows(path))
    except InputError as error:
        problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
    if not rows:
        problems.append(Problem(path, "no connections, so no row"))
    return rows


def _seen_once(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in order of their start; a connection captured at both containers of a run becomes one row."""
    result: list[dict[str, Any]] = []
    open_rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        ends = frozenset(((row["src"], row["sport"]), (row["dst"], row["dport"])))
        key = (row["run"], row["proto"], ends)
        other = open_rows.get(key)
        if other is not None and row["start"] <= other["end"]:
            other["end"] = max(other["end"], row["end"])
        else:
            open_rows[key] = row
            result.append(row)
    return result


def _clashes(rows: Sequence[dict[str, Any]], folder: Path) -> Iterator[Problem]:
    """Captures of the same time with different labels, which rows for all packets cannot tell apart."""
    longest: dict[str, Any] | None = None
    for row in rows:
        if longest is not None and row["start"] <= longest["end"]:
            if any(row.get(name) != longest.get(name) for name in LABELS):
                yield Problem(folder / row["capture"], f"its time overlaps that of {longest['capture']}, which has "
                                                       "other labels: use --per connection")  # fmt: skip
            if row["end"] <= longest["end"]:
                continue
        longest = row
