"""Probe labels: which packets belong to which controlled conversation.

A label file has a row for each conversation: ``src, sport, dst, dport, proto, start, end`` (the originator first; a
packet matches in both directions; an empty field matches anything). All other columns are labels, except those that a
Parquet file marks as measured. Rows with equal labels share one probe id, so there are as many ids as combinations of
labels, however many rows. An id follows from its labels alone, so that files labelled separately agree on it and
detectors elsewhere can look it up.
"""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from engine.errors import InputError
from engine.labels.rules import (
    HAS_DPORT,
    HAS_DST,
    HAS_PROTO,
    HAS_SPORT,
    HAS_SRC,
    RULE,
    WHOLE,
    Labels,
    new_probe_id,
)
from engine.notation import seconds

KEYS = ("src", "sport", "dst", "dport", "proto", "start", "end")
KIND = b"wiresonde.kind"  # in a Parquet field's metadata; columns of kind ``measured`` are not labels
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58, "ipv6-icmp": 58, "sctp": 132}
MAX_PATTERNS = 4096  # most rows with an empty field: each costs a comparison a packet


def read_labels(path: Path, max_probes: int = 65536) -> Labels:
    """Labels of a CSV or Parquet file. Raises InputError with the row and the wrong value."""
    table = _read(path)
    names = table.column_names
    if missing := [k for k in KEYS if k not in names]:
        raise InputError(f"{path}: no column {', '.join(missing)}; the key columns are {', '.join(KEYS)}")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"{path}: more than one column is named {', '.join(twice)}")
    if clash := sorted({n for n in names if "." in n and n.replace(".", "_") in names}):
        raise InputError(
            f"{path}: columns {clash[0]} and {clash[0].replace('.', '_')} would both be "
            f"{clash[0].replace('.', '_')} in alerts: rename one"
        )
    if "" in names:
        raise InputError(f"{path}: column {names.index('') + 1} has no name")
    columns = [n for n in names if n not in KEYS and not _measured(table.schema.field(n))]
    if not columns:
        raise InputError(f"{path}: no label column besides {', '.join(KEYS)}")
    rules = np.zeros(table.num_rows, RULE)
    for row, values in enumerate(zip(*(table.column(k).to_pylist() for k in KEYS))):
        try:
            _fill(rules[row], dict(zip(KEYS, values)))
        except ValueError as error:
            raise InputError(f"{path}: row {row + 1}: {error}") from None
    probes: dict[int, dict[str, str]] = {0: {}}
    known: dict[tuple[Any, ...], int] = {}
    for row, values in enumerate(zip(*(table.column(c).to_pylist() for c in columns))):
        texts = tuple(None if v is None or v == "" else _text(v) for v in values)
        if texts not in known:
            meaning = {c: t for c, t in zip(columns, texts) if t is not None}
            known[texts] = new_probe_id(meaning, probes)
            probes[known[texts]] = meaning
            if len(probes) > max_probes + 1:
                raise InputError(
                    f"{path}: row {row + 1}: more than {max_probes} distinct label combinations "
                    f"(labels.max_probes); leave out columns that differ on every row"
                )
        rules["probe"][row] = known[texts]
    whole = rules["has"] == WHOLE
    patterns = int((~whole).sum())
    if patterns > MAX_PATTERNS:
        raise InputError(
            f"{path}: {patterns} rows have an empty address, port or protocol; at most {MAX_PATTERNS} may"
        )
    order = np.lexsort((rules["start"], whole))
    return Labels(probes, rules[order], patterns, str(path))


_LINE = re.compile(r"Row #(\d+)")


def _measured(field: pa.Field) -> bool:
    """Whether a Parquet file marks a column as measured, thus not a label: its values differ by connection."""
    return bool((field.metadata or {}).get(KIND) == b"measured")


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _read(path: Path) -> pa.Table:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PAR1":
            return _times_as_text(pa.parquet.read_table(path))
        with path.open("r", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(iter(lambda: file.readline(1 << 16), "")), [])
        options = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
        )
        in_order = pa.csv.ReadOptions(use_threads=False)  # so that an error names its row
        return pa.csv.read_csv(path, read_options=in_order, convert_options=options)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        said = _LINE.sub(lambda found: f"row {int(found[1]) - 1}", str(error))  # rows of data, as elsewhere
        raise InputError(
            f"{path}: not a readable {'Parquet' if magic == b'PAR1' else 'CSV'} file: {said}"
        ) from None


def _times_as_text(table: pa.Table) -> pa.Table:
    """The table with time stamps as epoch seconds with nine decimals: Python's datetime would round them."""
    for k, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            ns = table.column(k).cast(pa.timestamp("ns", tz=field.type.tz)).cast(pa.int64()).to_pylist()
            texts = [None if t is None else seconds(t) for t in ns]
            table = table.set_column(k, field.with_type(pa.string()), pa.array(texts, pa.string()))
    return table


def _fill(rule: Any, given: Mapping[str, Any]) -> None:
    """Write a rule. given: values by KEYS."""
    has = 0
    proto, start, end = given["proto"], given["start"], given["end"]
    for name, bit in (("src", HAS_SRC), ("dst", HAS_DST)):
        if (value := given[name]) not in (None, ""):
            rule[f"{name}_hi"], rule[f"{name}_lo"] = _address(str(value).strip())
            has |= bit
    for name, bit in (("sport", HAS_SPORT), ("dport", HAS_DPORT)):
        if (value := given[name]) not in (None, ""):
            rule[name] = _number(name, value, 65535)
            has |= bit
    if proto not in (None, ""):
        text = str(proto).strip().lower()
        rule["proto"] = PROTOCOLS[text] if text in PROTOCOLS else _number("proto", text, 255)
        has |= HAS_PROTO
    rule["has"] = has
    rule["start"] = np.iinfo(np.int64).min if start in (None, "") else time_ns(start)
    rule["end"] = np.iinfo(np.int64).max if end in (None, "") else time_ns(end)
    if rule["end"] < rule["start"]:
        raise ValueError(f"end {end} is before start {start}")


def _number(name: str, value: Any, top: int) -> int:
    text = str(value).strip().removesuffix(".0")
    if not text.isdecimal() or int(text) > top:
        raise ValueError(f"{name} {value!r} must be a number from 0 to {top}")
    return int(text)


def _address(text: str) -> tuple[int, int]:
    try:
        if ":" not in text:
            return 0, 0xFFFF << 32 | int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
        whole = int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
        return whole >> 64, whole & (1 << 64) - 1
    except OSError:
        raise ValueError(f"address {text!r} must be an IPv4 or IPv6 address") from None


_SECONDS = re.compile(r"(-?)(\d{1,10})(?:\.(\d{1,9})\d*)?", re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9})\d*)?)?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


def time_ns(value: Any) -> int:
    """ns since the epoch, from epoch seconds (text or number) or ISO 8601 (UTC unless it names a zone)."""
    text = f"{value:.9f}" if isinstance(value, float | Decimal) else str(value).strip()
    try:
        if isinstance(value, bool):
            raise ValueError
        if found := _SECONDS.fullmatch(text):
            sign, whole, part = found.groups()
            ns = int(whole) * 10**9 + int((part or "0").ljust(9, "0"))
            ns = -ns if sign else ns
        elif found := _ISO.fullmatch(text):
            day, minute, second, part, zone = found.groups()
            moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone or 'Z'}")
            since = moment - datetime(1970, 1, 1, tzinfo=UTC)
            ns = (since.days * 86400 + since.seconds) * 10**9 + int((part or "0").ljust(9, "0"))
        else:
            raise ValueError
    except ValueError:
        raise ValueError(f"time {value!r} must be epoch seconds or ISO 8601") from None
    if not -(1 << 63) <= ns < 1 << 63:
        raise ValueError(f"time {value!r} must be in the years 1678 to 2262")
    return ns
