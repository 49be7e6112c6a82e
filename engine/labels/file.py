"""Probe labels: which packets belong to which controlled conversation.

A label file has a row for each conversation: ``src, sport, dst, dport, proto, start, end`` (the originator first; a
packet matches in both directions; an empty field matches anything; with protocol arp the addresses are MACs). All
other columns are labels, except those that a
Parquet file marks as measured. Rows with equal labels share one probe id, so there are as many ids as combinations of
labels, however many rows. An id follows from its labels alone, so that files labelled separately agree on it and
detectors elsewhere can look it up.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.labels.rules import (
    HAS_DPORT,
    HAS_DST,
    HAS_PROTO,
    HAS_SPORT,
    HAS_SRC,
    OF_ARP,
    RULE,
    WHOLE,
    WHOLE_ARP,
    Labels,
    Probes,
    new_probe_id,
)
from engine.labels.table import KEYS, LabelTable, is_empty, label_text, missing_columns, read_table
from engine.types import Rows

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58, "ipv6-icmp": 58, "sctp": 132}
MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)
MAX_PATTERNS = 4096  # most rows with an empty field: each costs a comparison a packet


def read_labels(path: Path, max_probes: int = 65536) -> Labels:
    """Labels of a CSV or Parquet file, which is read once. Raises InputError with the row and the wrong value."""
    table = read_table(path)
    names = table.names
    columns = _label_columns(path, table)
    places = [names.index(key) for key in KEYS]
    cells = [names.index(name) for name in columns]
    rules = np.zeros(1024, RULE)
    probes: dict[int, dict[str, str]] = {0: {}}
    known: dict[tuple[Any, ...], int] = {}
    count = 0
    for row, values in enumerate(table.rows, 1):
        if row > rules.size:
            rules = np.concatenate((rules, np.zeros_like(rules)))
        count = row
        try:
            _fill(rules[row - 1], {key: values[k] for key, k in zip(KEYS, places)})
        except ValueError as error:
            raise InputError(f"{path}: row {row}: {error}") from None
        texts = tuple(label_text(values[k]) for k in cells)
        if texts not in known:
            meaning = {c: t for c, t in zip(columns, texts) if t is not None}
            known[texts] = new_probe_id(meaning, probes)
            probes[known[texts]] = meaning
            if len(probes) > max_probes + 1:
                raise InputError(
                    f"{path}: row {row}: more than {max_probes} distinct label combinations "
                    f"(labels.max_probes); leave out columns that differ on every row"
                )
        rules["probe"][row - 1] = known[texts]
    return _in_order(path, probes, rules[:count])


def _label_columns(path: Path, table: LabelTable) -> list[str]:
    """The names of the label columns. Raises InputError for a header that cannot be."""
    names = table.names
    if missing := [k for k in KEYS if k not in names]:
        raise InputError(f"{path}: {missing_columns(missing, names)}")
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"{path}: more than one column is named {', '.join(twice)}")
    if clash := sorted({n for n in names if "." in n and n.replace(".", "_") in names}):
        other = clash[0].replace(".", "_")
        raise InputError(
            f"{path}: columns {clash[0]} and {other} would both be {other} in alerts: rename one"
        )
    if "" in names:
        raise InputError(f"{path}: column {names.index('') + 1} has no name")
    columns = [n for n in names if n not in KEYS]
    if not columns:
        raise InputError(f"{path}: no label column besides {', '.join(KEYS)}")
    return columns


def _in_order(path: Path, probes: Probes, rules: Rows) -> Labels:
    """The labels of rules in the order of the file."""
    whole = (rules["has"] == WHOLE) | (rules["has"] == WHOLE_ARP)
    patterns = int((~whole).sum())
    if patterns > MAX_PATTERNS:
        raise InputError(
            f"{path}: {patterns} rows have an empty address, port or protocol; at most {MAX_PATTERNS} may"
        )
    return Labels(probes, rules[np.lexsort((rules["start"], whole))], patterns, str(path))


def _fill(rule: Any, given: Mapping[str, Any]) -> None:
    """Write a rule. given: values by KEYS."""
    values = {key: None if is_empty(value) else value for key, value in given.items()}
    arp = str(values["proto"]).strip().lower() == "arp"
    if arp:
        values = _of_arp(values)
    has = OF_ARP if arp else 0
    for name, bit in (("src", HAS_SRC), ("dst", HAS_DST)):
        if (value := values[name]) is not None:
            text = str(value).strip()
            if arp:
                rule[f"{name}_lo"] = _mac(text)
            else:
                rule[f"{name}_hi"], rule[f"{name}_lo"] = _address(text)
            has |= bit
    for name, bit in (("sport", HAS_SPORT), ("dport", HAS_DPORT)):
        if (value := values[name]) is not None:
            rule[name] = _number(name, value, 65535)
            has |= bit
    if (value := values["proto"]) is not None:
        text = str(value).strip().lower()
        rule["proto"] = PROTOCOLS[text] if text in PROTOCOLS else _number("proto", value, 255)
        has |= HAS_PROTO
    start, end = values["start"], values["end"]
    rule["has"] = has
    rule["start"] = np.iinfo(np.int64).min if start is None else time_ns(start)
    rule["end"] = np.iinfo(np.int64).max if end is None else time_ns(end)
    if rule["end"] < rule["start"]:
        raise ValueError(f"end {end} is before start {start}")


def _of_arp(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row of ARP, whose protocol is said by OF_ARP. It has no ports."""
    for name in ("sport", "dport"):
        if values[name] is not None:
            raise ValueError(f"{name} {values[name]!r} must be empty: ARP has no ports")
    return {**values, "proto": None}


def _mac(text: str) -> int:
    if not MAC.fullmatch(text):
        raise ValueError(f"address {text!r} must be a MAC: the addresses in ARP are claims")
    return int(text.replace("-", "").replace(":", ""), 16)


def _number(name: str, value: Any, top: int) -> int:
    text = f"{value:f}" if isinstance(value, float | Decimal) else str(value).strip()
    whole, _, part = text.partition(".")
    if not whole.isascii() or not whole.isdecimal() or part.strip("0") or len(whole) > 9 or int(whole) > top:
        raise ValueError(f"{name} {value!r} must be a number from 0 to {top}")
    return int(whole)


def _address(text: str) -> tuple[int, int]:
    if MAC.fullmatch(text):
        raise ValueError(f"address {text!r} is a MAC, which is possible only with proto arp")
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
