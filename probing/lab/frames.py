"""Labels for packets: what the link did to each frame of a capture, in the capture's order."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from connectors.files.parquet import ParquetFile
from probing.lab.link.link import Log
from probing.lab.link.tables import ARP, BURST, CODEL, COPY, CORRUPT, CUT, LOST, OUTAGE, OVERFLOW
from probing.lab.vantage import seen

VERDICTS = {"lost": LOST, "burst": BURST, "outage": OUTAGE, "overflow": OVERFLOW, "codel": CODEL, "cut": CUT}
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("frame", pa.int64()),  # number of the frame in the capture, from 1
        ("ts", pa.timestamp("ns", tz="UTC")),
        ("run", _WORD),
        ("verdict", _WORD),  # sent, or a word of VERDICTS
        ("delayed_by_ms", pa.float64()),  # time in the link; null: not delivered
        ("overtaken", pa.bool_()),  # whether a later frame of its direction was delivered before it
        ("duplicated", pa.bool_()),  # whether the link made it, as a copy of another
        (
            "corrupted",
            pa.bool_(),
        ),  # whether a bit was flipped on its way (seen at the receiver's vantage only)
        ("phase", _WORD),  # phase of its sample in force then; null: none
    ]
)


def overtaken(records: NDArray[Any]) -> NDArray[np.bool_]:
    """(r,) whether a later frame of the same flow and direction was delivered before a record's frame."""
    result = np.zeros(records.size, bool)
    plain = (records["verdict"] & (COPY | CORRUPT) == 0) & (records["out_ts"] > 0) & (records["flow"] >= 0)
    number = np.flatnonzero(plain)
    group = records["flow"][number].astype(np.int64) * 2 + records["direction"][number]
    order = np.lexsort((number, records["out_ts"][number], group))
    ahead = group[order] * records.size + number[order]  # the greatest of a group so far, for groups in a row
    result[number[order]] = np.maximum.accumulate(ahead) > ahead
    return result


def made_twice(log: Log) -> NDArray[np.bool_]:
    """(r,) whether the link made a record's frame as a copy for the same host. ARP has one for each host instead."""
    of_ip = np.append(log.flows["proto"] != ARP, False)  # the last: frames of no flow
    result: NDArray[np.bool_] = (log.records["verdict"] & COPY != 0) & of_ip[log.records["flow"]]
    return result


def _phases(
    flows: NDArray[Any], ts: NDArray[np.int64], rows: Sequence[Mapping[str, Any]]
) -> list[str | None]:
    """The phase in force at each time. flows: rows that the times belong to, -1: none."""
    marks = [json.loads(row["phases"] or "[]") for row in rows]
    starts = [[at for _, at in phases] for phases in marks]
    result: list[str | None] = []
    for flow, at in zip(flows.tolist(), ts.tolist()):
        k = bisect_right(starts[flow], at) if flow >= 0 else 0
        result.append(marks[flow][k - 1][0] if k else None)
    return result


def write(path: Path, log: Log, vantage: str, rows: Sequence[Mapping[str, Any]], run: str) -> None:
    """Write the frames of a run's capture. rows: label rows, one for each flow of the log."""
    number, ts, _ = seen(log, vantage)
    r = log.records[number]
    words = np.full(number.size, "sent", object)
    for word, bit in VERDICTS.items():
        words[r["verdict"] & bit != 0] = word
    delivered = r["out_ts"] > 0
    table = pa.table(
        [
            pa.array(np.arange(1, number.size + 1)), pa.array(ts, SCHEMA.field("ts").type),
            pa.array([run] * number.size, pa.string()).cast(_WORD), pa.array(words, pa.string()).cast(_WORD),
            pa.array((r["out_ts"] - r["in_ts"]) / 1e6, mask=~delivered), pa.array(overtaken(log.records)[number]),
            pa.array(made_twice(log)[number]), pa.array(r["verdict"] & CORRUPT != 0),
            pa.array(_phases(r["flow"], ts, rows), pa.string()).cast(_WORD),
        ],
        schema=SCHEMA,
    )  # fmt: skip
    pa.parquet.write_table(table, path)


def merge(path: Path, parts: Sequence[tuple[Path, int]]) -> None:
    """Write the frames of several captures in order of time. parts: file and ns to add, in the order of the captures.

    Equal times keep the order of the captures, as the packets do (assemble.merged).
    """
    tables = []
    for file, shift in parts:
        table = pa.parquet.read_table(file, schema=SCHEMA)
        ts = pa.array(table.column("ts").cast(pa.int64()).to_numpy() + shift, SCHEMA.field("ts").type)
        tables.append(table.set_column(1, SCHEMA.field("ts"), ts))
    whole = pa.concat_tables(tables).unify_dictionaries()
    order = np.argsort(whole.column("ts").cast(pa.int64()).to_numpy(), kind="stable")
    ordered = whole.take(pa.array(order)).set_column(
        0, SCHEMA.field("frame"), pa.array(np.arange(1, order.size + 1))
    )
    out = ParquetFile(path, SCHEMA)
    try:
        out.write(ordered)
        out.close()
    except BaseException:
        out.abort()
        raise
