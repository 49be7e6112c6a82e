"""The packets of chosen connections of a capture, with the scores of models beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.commands.reading import Progress, read_packets
from engine.commands.score import Job, Scoring
from engine.config import Config
from engine.connections.bounds import SPARE
from engine.connections.tracker import Tracker
from engine.errors import InputError
from engine.scoring.building import ModelSpec
from engine.scoring.columns import as_dicts
from engine.scoring.scorer import Ended
from engine.scoring.trace import Selection, Tracer
from engine.types import Packets, take

MOST_CHOSEN = 32  # most connections of a capture in one trace
SHOWN = 5  # connections named where one is not found
COPY = "capture_duplicate"

Tag = Callable[[Packets], Packets]  # gives packets their probe ids


def chosen_records(capture: Path, tables: Iterable[pa.Table], wanted: Sequence[str]) -> pa.Table:
    """The records of connections by uid or community id, in the order of these, then of their beginnings.

    tables: records of the capture. Raises InputError for a name that no record has, and names some that there are.
    """
    names = pa.array(sorted(wanted), pa.string())
    found: list[pa.Table] = []
    some: list[dict[str, Any]] = []
    count = 0
    for each in tables:
        table = each.filter(pc.not_equal(each["ending"], "live"))  # no interim rows
        count += table.num_rows
        if len(some) < SHOWN:
            some += as_dicts(table.slice(0, SHOWN - len(some)))
        known = pc.or_(pc.is_in(table["uid"], names), pc.is_in(table["community_id"], names))
        found.append(table.filter(known))
    records = pa.concat_tables(found).sort_by([("ts", "ascending"), ("uid", "ascending")])
    places = [list(wanted).index(u if u in wanted else c) for u, c in zip(*_names(records))]
    if missing := [
        name for k, name in enumerate(wanted) if k not in places and name not in _names(records)[1]
    ]:
        listed = ", ".join(f"{row['uid']} ({ends_text(row)})" for row in some) or "none"
        more = f" and {count - len(some):,} more" if count > len(some) else ""
        raise InputError(f"{capture}: no connection {missing[0]}; there are {listed}{more}")
    if records.num_rows > MOST_CHOSEN:
        raise InputError(
            f"{capture}: {records.num_rows} connections have these ids: give the uids of at most {MOST_CHOSEN}"
        )
    return records.take(pa.array(np.argsort(np.array(places, np.int64), kind="stable")))


def _names(records: pa.Table) -> tuple[list[str], list[str]]:
    """Uids and community ids."""
    return records["uid"].to_pylist(), records["community_id"].to_pylist()


def ends_text(record: Mapping[str, Any]) -> str:
    """The ends of a connection: ORIGINATOR > RESPONDER PROTOCOL."""
    ends = []
    for side in ("orig", "resp"):
        address, port = str(record[f"id.{side}_h"]), record[f"id.{side}_p"]
        host = f"[{address}]" if ":" in address and port is not None else address
        ends.append(host if port is None else f"{host}:{port}")
    return f"{' > '.join(ends)} {record['proto']}"


class Traced(NamedTuple):
    """The packets of chosen connections."""

    packets: pa.Table  # TRACE_COLUMNS, then score.MODEL; number: index of the frame in the capture, from 0
    thresholds: dict[str, float]  # of each model; NaN: it has none
    left_out: int  # packets of the connections beyond MOST_ROWS


def trace(
    capture: Path, config: Config, specs: list[ModelSpec], uids: frozenset[str], tag: Tag | None = None,
    progress: Progress | None = None,
) -> Traced:  # fmt: skip
    """The packets of connections, copies that the capture made included, with every model's scores of them.

    The capture is read twice: models see it as in `score`, without copies where these are dropped. Raises InputError.
    """
    selection = Selection(uids)
    packets, left_out = _located(capture, config, selection, tag)
    job = Job([capture], config, models=specs, progress=progress, trace=selection, keep_trace=True)
    scoring = Scoring(job)
    summary = scoring.run()
    if summary.problem is not None:
        raise InputError(summary.problem)
    thresholds = {s.name: s.threshold_value for s in scoring.detectors[0].scorers}
    models = [spec.name for spec in specs]
    drops = config.connections.copies == "drop"
    return Traced(_beside(packets, scoring.traced(), models, drops), thresholds, left_out)


def _located(capture: Path, config: Config, selection: Selection, tag: Tag | None) -> tuple[pa.Table, int]:
    """Every packet of connections with the index of its frame in the capture, and how many were left out."""
    tracker, tracer = Tracker(config.connections, SPARE), Tracer(selection, (), waits=True)
    tracer.allocate(tracker.table.rows.size)
    number = 0
    for block in read_packets([capture], config):
        p = block if tag is None else tag(block)
        for step in tracker.track(p, number):
            tracer.packets(take(p, slice(step.begin, step.end)), step, tracker.table.rows)
            tracer.end(Ended(step.closed, *tracker.rows(step.closed)))
        number += p.ts.size
    for closed in tracker.flush():
        tracer.end(Ended(closed, *tracker.rows(closed)))
    return tracer.drain(), tracer.skipped


def _beside(packets: pa.Table, scored: pa.Table, models: list[str], drops: bool) -> pa.Table:
    """Packets with the scores of the same packets, connection by connection in their order.

    drops: whether copies, which are among the packets, are not among the scored ones.
    """
    columns = {name: np.full(packets.num_rows, np.nan) for name in models}
    uid, scored_uid = (np.array(t["uid"].to_pylist(), object) for t in (packets, scored))
    is_copy = np.array(packets["segment"].to_pylist(), object) == COPY
    for name in dict.fromkeys(uid.tolist()):
        at = np.flatnonzero((uid == name) & ~(is_copy & drops))
        its = np.flatnonzero(scored_uid == name)[: at.size]
        for model, out in columns.items():
            out[at[: its.size]] = scored[f"score.{model}"].to_numpy()[its]
    for model, out in columns.items():
        packets = packets.append_column(f"score.{model}", pa.array(out, mask=np.isnan(out)))
    return packets
