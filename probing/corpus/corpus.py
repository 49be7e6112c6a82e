"""Labelled corpora: what the lab wrote, read back and checked; which connection is which row; parts of a corpus.

Runs are what is drawn when a corpus is parted: connections of one run resemble each other, and the twins of a pair
are the same but for the link, so either would give away in one part what another is to find out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from engine.errors import ConfigError, InputError
from probing.lab.labels import COLUMNS, schema

FORMATS = (1,)  # of manifests that this reads
ENDINGS = (".manifest.json", ".labels.parquet", ".server.pcap.zst", ".client.pcap.zst", ".pcap.zst")
NEVER_EMPTY = ("src", "dst", "proto", "start", "end", "run", *(c.name for c in COLUMNS if c.kind == "label"))
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """A capture with its labels. ``captures``: by vantage, the main one first."""

    name: str
    captures: Mapping[str, Path]
    labels: pa.Table  # a row a connection, in the schema of probing/lab/labels.py
    labels_file: Path
    manifest: Mapping[str, Any]

    @property
    def capture(self) -> Path:
        """The main one."""
        return next(iter(self.captures.values()))


def read_corpus(path: Path) -> Corpus:
    """A corpus: of its folder, of any of its files, or FOLDER/NAME. Raises InputError with file and what is wrong."""
    stem = _stem(path)
    manifest = _manifest(stem.with_name(stem.name + ".manifest.json"))
    captures = {vantage: stem.with_name(given["file"]) for vantage, given in manifest["captures"].items()}
    labels_file = stem.with_name(stem.name + ".labels.parquet")
    for file in (*captures.values(), labels_file):
        if not file.is_file():
            raise InputError(f"{file}: no such file, though {stem.name}.manifest.json is there")
    labels = read_label_rows(labels_file)
    if labels.num_rows != manifest["connections"]:
        raise InputError(f"{labels_file}: {labels.num_rows} rows, but {manifest['connections']} connections in the "
                         "manifest")  # fmt: skip
    return Corpus(stem.name, captures, labels, labels_file, manifest)


def _stem(path: Path) -> Path:
    """A corpus's files without their endings."""
    if not path.is_dir():
        ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
        return path.with_name(path.name.removesuffix(ending))
    found = sorted(path.glob("*.manifest.json"))
    if len(found) != 1:
        names = ", ".join(f.name for f in found[:4]) or "none"
        raise InputError(
            f"{path}: a folder with one *.manifest.json is needed, or the file's name; there: {names}"
        )
    return found[0].with_name(found[0].name.removesuffix(".manifest.json"))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{path}: no manifest of a corpus")
    if manifest.get("format") not in FORMATS:
        raise InputError(
            f"{path}: format {manifest.get('format')!r} is none of {', '.join(map(str, FORMATS))}"
        )
    captures, connections = manifest.get("captures"), manifest.get("connections")
    if not isinstance(connections, int):
        raise InputError(f"{path}: connections: {connections!r} is no number")
    if not isinstance(captures, dict) or not captures:
        raise InputError(f"{path}: captures: there are none")
    for vantage, given in captures.items():
        file = given.get("file") if isinstance(given, dict) else None
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{path}: captures.{vantage}: {given!r} names no file beside the manifest")
    return manifest


# label rows


def read_label_rows(path: Path) -> pa.Table:
    """The rows of a label file of the lab, checked. Raises InputError with row and value of what is wrong."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            table = file.read()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise InputError(f"{path}: not Parquet: {error}") from None
    try:
        return _checked(table)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _checked(table: pa.Table) -> pa.Table:
    """A label table in the schema's order of columns."""
    wanted, names = schema(), table.column_names
    if missing := [n for n in wanted.names if n not in names]:
        raise ValueError(f"no column {', '.join(missing)}")
    if odd := sorted({n for n in names if n not in wanted.names or names.count(n) > 1}):
        raise ValueError(f"column {', '.join(odd)}: a label file of the lab has none, or has it once")
    for field in wanted:
        if table.schema.field(field.name).type != field.type:
            raise ValueError(f"column {field.name}: {table.schema.field(field.name).type}, not {field.type}")
    table = table.select(wanted.names).cast(wanted)
    for name in NEVER_EMPTY:
        _refuse(table, name, pc.is_null(table.column(name)), "is empty")
    for column in COLUMNS:
        if column.values:
            known = pc.is_in(table.column(column.name).cast(pa.string()), value_set=pa.array(column.values))
            _refuse(table, column.name, pc.invert(known), f"is none of {', '.join(column.values)}")
    _refuse(table, "end", pc.less(table.column("end"), table.column("start")), "lies before start")
    _refuse_overlap(table)
    return table


def _refuse(table: pa.Table, name: str, wrong: Any, says: str) -> None:
    """Name the first row in which something is wrong."""
    rows = np.flatnonzero(wrong.combine_chunks().to_numpy(zero_copy_only=False)).tolist()
    if rows:
        more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        value = table.column(name).slice(rows[0], 1).cast(pa.string())[0]  # Python's datetime has no ns
        raise ValueError(f"row {rows[0] + 1}: {name} {value} {says}{more}")


def _refuse_overlap(table: pa.Table) -> None:
    """One conversation at a time between two ends."""
    (key,) = _conversations([_label_ends(table)])
    start, end = _ns(table.column("start")), _ns(table.column("end"))
    order = np.lexsort((start, key))
    same = key[order][1:] == key[order][:-1]
    found = np.flatnonzero(same & (start[order][1:] <= end[order][:-1]))  # by start: neighbours suffice
    if found.size:
        one, other = sorted(order[found[0] : found[0] + 2].tolist())
        row = {name: table.column(name)[other].as_py() for name in ("src", "sport", "dst", "dport", "proto")}
        raise ValueError(f"row {other + 1}: {row['src']}:{row['sport']} {row['dst']}:{row['dport']} {row['proto']} "
                         f"is also row {one + 1}, at the same time")  # fmt: skip


# which connection is which row


class Ends(NamedTuple):
    """The ends of conversations, as columns."""

    src: pa.ChunkedArray
    sport: pa.ChunkedArray
    dst: pa.ChunkedArray
    dport: pa.ChunkedArray
    proto: pa.ChunkedArray


def _label_ends(table: pa.Table) -> Ends:
    return Ends(*(table.column(name) for name in Ends._fields))


def _connection_ends(table: pa.Table) -> Ends:
    c = table.column
    return Ends(c("id.orig_h"), c("id.orig_p"), c("id.resp_h"), c("id.resp_p"), c("proto"))


def join(labels: pa.Table, connections: pa.Table) -> Ints:
    """The label row of each connection record, -1 for none; (number of connections,).

    labels: as `read_corpus` gives them. connections: as `engine.commands.reading` does. A row is a connection's when
    its ends are the same, in either direction, and it lasts when the connection begins; else, when it begins while the
    connection lasts (a capture may show a connection's first packet a little before the label's start).
    """
    result = np.full(connections.num_rows, -1, np.int64)
    if not labels.num_rows or not connections.num_rows:
        return result
    row_key, key = _conversations([_label_ends(labels), _connection_ends(connections)])
    start, end = _ns(labels.column("start")), _ns(labels.column("end"))
    begin = _ns(connections.column("ts"))
    length = connections.column("duration").combine_chunks().fill_null(0.0).to_numpy(zero_copy_only=False)
    last = begin + np.round(length * 1e9).astype(np.int64)
    moments = np.unique(start)
    order = np.lexsort((start, row_key))
    place = _place(row_key, moments, start)[order]
    for moment in (last, begin):  # the better reason overwrites the other
        at = np.searchsorted(place, _place(key, moments, moment), side="right") - 1  # latest that has begun
        row = order[np.maximum(at, 0)]
        good = (at >= 0) & (row_key[row] == key) & (end[row] >= begin)
        result[good] = row[good]
    return result


def _place(key: Ints, moments: Ints, time: Ints) -> Ints:
    """A number that orders by conversation, then by time among the moments."""
    return key << np.int64(32) | np.searchsorted(moments, time, side="right").astype(np.int64)


def _conversations(tables: Sequence[Ends]) -> list[Ints]:
    """A number for each row, equal where both ends and the protocol are, in whichever direction."""
    n = [len(t.src) for t in tables]
    address = _codes([t.src for t in tables] + [t.dst for t in tables])
    src, dst = np.concatenate(address[: len(n)]), np.concatenate(address[len(n) :])
    proto = np.concatenate(_codes([t.proto for t in tables]))
    sport, dport = (np.concatenate([_ports(t[k]) for t in tables]) for k in (1, 3))
    icmp = np.concatenate(
        [_is_icmp(t.proto) for t in tables]
    )  # records have type and code where rows have nothing
    one = src << np.int64(16) | np.where(icmp, 0, sport)
    other = dst << np.int64(16) | np.where(icmp, 0, dport)
    columns = np.stack((proto, np.minimum(one, other), np.maximum(one, other)))
    order = np.lexsort(columns)
    new = np.any(columns[:, order][:, 1:] != columns[:, order][:, :-1], axis=0)
    number = np.empty(order.size, np.int64)
    number[order] = np.concatenate((np.zeros(min(1, order.size), np.int64), np.cumsum(new)))
    return np.split(number, np.cumsum(n)[:-1])


def _is_icmp(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = (
        pc.equal(column.fill_null(""), "icmp").combine_chunks().to_numpy(zero_copy_only=False)
    )
    return values


def _codes(columns: Sequence[pa.ChunkedArray]) -> list[Ints]:
    """Texts as numbers, the same in all columns."""
    chunks = [chunk for column in columns for chunk in column.cast(pa.string()).fill_null("").chunks]
    whole = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    codes = whole.indices.to_numpy().astype(np.int64)
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def _ports(column: pa.ChunkedArray) -> Ints:
    """Ports, 0 where there is none."""
    values: Ints = column.fill_null(0).combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def _ns(column: pa.ChunkedArray) -> Ints:
    """Times as ns since the epoch."""
    values: Ints = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64()).combine_chunks().to_numpy()
    return values


# parts of a corpus


class Units(NamedTuple):
    """What stays together: runs, and runs that share a pair as one."""

    of_row: Ints  # (rows,) which unit each row is part of
    names: tuple[str, ...]  # the least of a unit's pairs, or its run
    runs: tuple[tuple[str, ...], ...]  # of each unit


def units(labels: pa.Table) -> Units:
    """Runs of a label table, twins together."""
    run, runs = _dictionary(labels.column("run"))
    pair, pairs = _dictionary(labels.column("pair"))
    paired = np.array([bool(name) for name in pairs], bool)[pair]
    links = np.unique(np.stack((pair, run), axis=1)[paired], axis=0).tolist()
    root = list(range(len(runs)))

    def find(k: int) -> int:
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    first: dict[int, int] = {}  # run of each pair
    for p, r in links:
        root[find(r)] = find(first.setdefault(p, r))
    members: dict[int, list[str]] = {}
    for k, name in enumerate(runs):
        members.setdefault(find(k), []).append(name)
    names = {k: min(of) for k, of in members.items()}
    by_pair: dict[int, str] = {}
    for p, r in links:
        by_pair[find(r)] = min(by_pair.get(find(r), pairs[p]), pairs[p])
    names |= by_pair
    order = sorted(members, key=lambda k: names[k])
    number = {k: i for i, k in enumerate(order)}
    of_run = np.array([number[find(k)] for k in range(len(runs))], np.int64)
    return Units(of_run[run], tuple(names[k] for k in order), tuple(tuple(sorted(members[k])) for k in order))


def split(labels: pa.Table, shares: Mapping[str, float], seed: int) -> dict[str, NDArray[np.bool_]]:
    """Which rows are in which part: {name: (rows,)}. Every row is in one; runs and twins are never torn apart.

    Units of the same group, scenario and activity are shared out as evenly as whole ones allow. Raises ConfigError
    when shares are not positive or do not add up to 1.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ConfigError(f"shares {dict(shares)}: must be positive and add up to 1")
    found = units(labels)
    bounds = np.cumsum(list(shares.values()))[:-1]
    part = np.searchsorted(bounds, _places(labels, found, seed)[0], side="right")[found.of_row]
    return {name: part == k for k, name in enumerate(shares)}


def thin(
    labels: pa.Table, share: float, seed: int, by: Literal["packets", "connections"] = "packets"
) -> list[str]:
    """Runs that together have at least a share of the packets (or connections): whole runs, with their twins.

    Every combination of group, scenario and activity stays, even when that makes the share larger. Raises
    ConfigError when the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share {share}: must be more than 0 and at most 1")
    found = units(labels)
    place, stratum = _places(labels, found, seed)
    weight = np.bincount(found.of_row, _weights(labels, by), minlength=len(found.names))
    order = np.argsort(place, kind="stable").tolist()
    kept = list({int(stratum[k]): k for k in reversed(order)}.values())  # the first of each stratum
    first, total, goal = set(kept), weight[kept].sum(), share * weight.sum()
    for k in order:
        if total >= goal:
            break
        if k in first:
            continue
        kept.append(k)
        total += weight[k]
    return sorted(run for k in kept for run in found.runs[k])


def _weights(labels: pa.Table, by: str) -> NDArray[np.float64]:
    if by == "connections":
        return np.ones(labels.num_rows)
    up, down = (_ports(labels.column(name)) for name in ("packets_up", "packets_down"))
    return (up + down).astype(np.float64)


def _places(labels: pa.Table, found: Units, seed: int) -> tuple[NDArray[np.float64], Ints]:
    """A place in [0, 1) for each unit, evenly spread among those of a stratum; and the stratum of each.

    A stratum is the units with the same combinations of group, scenario and activity, background included.
    """
    named = [_dictionary(labels.column(name)) for name in ("group", "scenario", "activity")]
    rows = np.unique(np.stack((found.of_row, *(codes for codes, _ in named)), axis=1), axis=0)
    does: list[list[str]] = [[] for _ in found.names]
    for unit, *codes in rows.tolist():
        does[unit].append("/".join(texts[code] for code, (_, texts) in zip(codes, named)))
    strata: dict[str, list[int]] = {}
    for unit, what in enumerate(does):
        strata.setdefault("\n".join(sorted(what)), []).append(unit)
    place, stratum = np.zeros(len(found.names)), np.zeros(len(found.names), np.int64)
    for k, (name, members) in enumerate(sorted(strata.items())):
        offset = _drawn(seed, f"stratum {name}")
        for i, unit in enumerate(sorted(members, key=lambda u: _drawn(seed, found.names[u]))):
            place[unit], stratum[unit] = (i + offset) / len(members), k
    return place, stratum


def _drawn(seed: int, name: str) -> float:
    """A number in [0, 1) that follows from seed and name alone."""
    return (int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 11) / (1 << 53)


def _dictionary(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Texts as numbers, and what they mean."""
    coded = column.cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
