"""The packets of chosen connections with their scores, to see what moved a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.connections.columns import Column, schema_of
from engine.connections.layout import (
    PACKET_FROM_ORIGINATOR,
    PACKET_IN_RECOVERY,
    PACKET_OPENED,
    Segment,
)
from engine.connections.record import community_ids, uids
from engine.connections.tracker import Tracked
from engine.errors import ConfigError
from engine.labels.rules import NO_PROBES, Probes
from engine.scoring.batch import label_names
from engine.scoring.scorer import Ended, Events, State
from engine.types import Floats, Packets, Rows, as_bytes, from_bytes, join_rows

MOST_CONNECTIONS = 1000  # most connections traced in a run
MOST_ROWS = 1 << 20  # most packets kept of live connections; later ones are counted, not traced

TRACED = np.dtype(
    [
        ("number", "i8"), ("ts", "i8"), ("slot", "i4"), ("probe", "u4"), ("size", "u4"), ("payload", "u4"),
        ("tcp_flags", "u1"), ("from_orig", "?"), ("segment", "u1"), ("recovery", "?"),
    ],
    align=True,
)  # fmt: skip

TRACE_COLUMNS = (
    Column("uid", pa.string(), "", "connection of the packet"),
    Column(
        "number",
        pa.int64(),
        "",
        "index of the packet among those of its partition that are not copies, from 0",
    ),
    Column("ts", pa.timestamp("ns", tz="UTC"), "", "time of capture"),
    Column("direction", pa.string(), "", "side that sent the packet: orig or resp"),
    Column("size", pa.uint32(), "bytes", "length on the wire"),
    Column("payload", pa.uint32(), "bytes", "length after the transport header"),
    Column("tcp_flags", pa.uint8(), "bits", "FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128"),
    Column("segment", pa.string(), "", "class of the segment by what it adds to its side's sequence space"),
    Column("recovery", pa.bool_(), "", "whether a side of the connection is in a recovery episode"),
    Column("probe", pa.uint32(), "", "probe id of the packet; 0: none"),
    Column("partition", pa.int32(), "", "partition of the packets topic"),
)  # followed by score.MODEL (float64) for each model: null if the packet has no score

_UID = re.compile(r"C[0-9A-Za-z]{16}")
_COMMUNITY = re.compile(r"1:[0-9A-Za-z+/]{27}=")
_SEGMENTS = np.array([s.name.lower() for s in Segment], object)


@dataclass(frozen=True)
class Selection:
    """The connections to trace."""

    uids: frozenset[str] = frozenset()
    communities: frozenset[str] = frozenset()  # community ids
    probes: frozenset[int] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()  # name and value

    def wanted(self, probes: Probes) -> NDArray[np.uint32]:
        """Ids of the probes to trace."""
        matching = {
            k for k, own in probes.items() if any(own.get(name) == value for name, value in self.labels)
        }
        return np.array(sorted(self.probes | matching), np.uint32)


def parse_selectors(texts: Sequence[str]) -> Selection:
    """The selection of --trace options: a uid, ``probe=N`` or ``label.NAME=VALUE``. Raises ConfigError."""
    uids_: set[str] = set()
    communities: set[str] = set()
    probes: set[int] = set()
    labels: set[tuple[str, str]] = set()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and _UID.fullmatch(text):
            uids_.add(text)
        elif _COMMUNITY.fullmatch(text):
            communities.add(text)
        elif name == "probe" and re.fullmatch("[0-9]{1,10}", value) and 0 < int(value) < 1 << 32:
            probes.add(int(value))
        elif name.startswith("label.") and len(name) > len("label.") and value:
            labels.add((name.removeprefix("label."), value))
        else:
            raise ConfigError(
                f"--trace {text}: give a uid (C and 16 letters or digits), a community id (1:…=), probe=N or "
                "label.NAME=VALUE"
            )
    return Selection(frozenset(uids_), frozenset(communities), frozenset(probes), frozenset(labels))


def check_labels(selection: Selection, probes: Probes) -> None:
    """Raise ConfigError for a label that no probe has, or a value that no probe has of it."""
    for name, value in sorted(selection.labels):
        values = {own[name] for own in probes.values() if name in own}
        if not values:
            names = ", ".join(label_names(probes)) or "none: give --labels FILE"
            raise ConfigError(f"--trace label.{name}={value}: no such label; there are {names}")
        if value not in values:
            raise ConfigError(
                f"--trace label.{name}={value}: no such value; {name} has {', '.join(sorted(values)[:20])}"
            )


def trace_schema(models: Sequence[str]) -> pa.Schema:
    """The schema of a trace."""
    scores = [pa.field(f"score.{name}", pa.float64()) for name in models]
    return pa.schema([*schema_of(TRACE_COLUMNS), *scores])


@dataclass
class Tracer:
    """Keeps packets of chosen connections of one partition, with every model's scores, until the connections end."""

    selection: Selection
    models: Sequence[str]
    probes: Probes = field(default_factory=lambda: NO_PROBES)
    partition: int = 0
    most: int = MOST_CONNECTIONS  # most connections traced in the partition
    resolve: Callable[[set[int]], None] = lambda _: (
        None
    )  # looks up the labels of probe ids that ``probes`` lacks
    waits: bool = False  # whether nobody drains before the end: then MOST_ROWS bounds ended connections, too
    connections: int = 0  # connections chosen so far
    refused: int = 0  # connections not traced because of ``most``
    skipped: int = 0  # packets not traced because of MOST_ROWS

    def __post_init__(self) -> None:
        self.allocate(0)
        self._rows, self._scores = np.zeros(0, TRACED), np.zeros((0, len(self.models)))
        self._ready: list[pa.Table] = []
        self._known = -1  # number of probes when the wanted ids were last looked up
        self._wanted = np.zeros(0, np.uint32)

    def allocate(self, slots: int) -> None:
        """Make room for the slots of a connection table; before the first packet."""
        self._chosen, self._refused = np.zeros(slots, bool), np.zeros(slots, bool)

    def packets(self, p: Packets, t: Tracked, connections: Rows) -> None:
        """Take packets. connections: (slots,) CONNECTION rows of the complete table."""
        first = self._choose(p, t, connections)
        rows = np.flatnonzero((t.slot >= 0) & self._chosen[t.slot])
        if first:
            begins = np.array([first.get(s, 0) for s in t.slot[rows].tolist()], np.int64)
            rows = rows[rows >= begins]
        ended = sum(table.num_rows for table in self._ready) if self.waits else 0
        room = max(0, MOST_ROWS - self._rows.size - ended)
        self.skipped += max(0, rows.size - room)
        rows = rows[:room]
        if not rows.size:
            return
        new = np.zeros(rows.size, TRACED)
        new["number"], new["slot"] = t.number + rows, t.slot[rows]
        for name in ("ts", "probe", "size", "payload", "tcp_flags"):
            new[name] = getattr(p, name)[rows]
        new["from_orig"] = (t.flags[rows] & PACKET_FROM_ORIGINATOR) != 0
        new["segment"] = t.segment[rows]
        new["recovery"] = (t.flags[rows] & PACKET_IN_RECOVERY) != 0
        self._rows = join_rows([self._rows, new])
        self._scores = np.concatenate([self._scores, np.full((rows.size, len(self.models)), np.nan)])

    def _choose(self, p: Packets, t: Tracked, connections: Rows) -> dict[int, int]:
        """Newly chosen slots, each with the row of the packet that chose it."""
        if self.selection.labels and (unknown := set(np.unique(p.probe).tolist()) - self.probes.keys()):
            self.resolve(unknown)
        if len(self.probes) != self._known:
            self._known, self._wanted = len(self.probes), self.selection.wanted(self.probes)
        rows = np.flatnonzero(np.isin(p.probe, self._wanted) & (t.slot >= 0))
        for wanted, names in ((self.selection.uids, uids), (self.selection.communities, community_ids)):
            if wanted:
                opened = np.flatnonzero(t.flags & PACKET_OPENED)
                known = [name in wanted for name in names(connections[t.slot[opened]])]
                rows = np.union1d(rows, opened[np.array(known, bool)])
        rows = rows[~(self._chosen | self._refused)[t.slot[rows]]]
        slots, at = np.unique(t.slot[rows], return_index=True)
        order = np.argsort(at, kind="stable")
        room = max(0, self.most - self.connections)
        self.refused += max(0, slots.size - room)
        self._refused[slots[order][room:]] = True
        slots, at = slots[order][:room], rows[at[order]][:room]
        self._chosen[slots] = True
        self.connections += int(slots.size)
        return dict(zip(slots.tolist(), at.tolist()))

    def events(self, model: int) -> Callable[[Events], None]:
        """The function that takes the scores of a model; ``model`` is its index in ``models``."""

        def take(given: Events) -> None:
            mine = np.flatnonzero((given.slot >= 0) & self._chosen[given.slot])
            if mine.size and self._rows.size:
                number = given.number[mine]
                at = np.minimum(np.searchsorted(self._rows["number"], number), self._rows.size - 1)
                found = self._rows["number"][at] == number
                self._scores[at[found], model] = given.score[mine[found]]

        return take

    def end(self, ended: Ended) -> None:
        """Make the packets of connections that have ended ready for ``drain``."""
        mine = self._chosen[ended.slot]
        self._refused[ended.slot] = False
        if not mine.any():
            return
        slots, names = ended.slot[mine], uids(ended.rows[mine])
        self._chosen[slots] = False
        for slot, uid in zip(slots.tolist(), names):
            is_its = self._rows["slot"] == slot
            if is_its.any():
                self._ready.append(self._table(self._rows[is_its], self._scores[is_its], uid))
                self._rows, self._scores = self._rows[~is_its], self._scores[~is_its]

    def _table(self, rows: Rows, scores: Floats, uid: str) -> pa.Table:
        columns: dict[str, Any] = {
            "uid": pa.array([uid] * rows.size, pa.string()),
            "ts": pa.array(rows["ts"].copy()).cast(pa.timestamp("ns", tz="UTC")),
            "direction": pa.array(np.where(rows["from_orig"], "orig", "resp").tolist(), pa.string()),
            "segment": pa.array(_SEGMENTS[rows["segment"]].tolist(), pa.string()),
            "partition": np.full(rows.size, self.partition, np.int32),
        }
        for name in ("number", "size", "payload", "tcp_flags", "recovery", "probe"):
            columns[name] = rows[name].copy()
        for k, name in enumerate(self.models):
            columns[f"score.{name}"] = pa.array(scores[:, k].copy(), mask=np.isnan(scores[:, k]))
        schema = trace_schema(self.models)
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def drain(self) -> pa.Table:
        """Packets of the connections that have ended since the last call."""
        tables, self._ready = self._ready, []
        return pa.concat_tables(tables) if tables else trace_schema(self.models).empty_table()

    def state(self) -> State:
        """A copy of the packets of live connections; ready packets must have been drained."""
        arrays: dict[str, NDArray[Any]] = {
            "chosen": np.flatnonzero(self._chosen), "rows": as_bytes(self._rows), "scores": self._scores.copy(),
        }  # fmt: skip
        counts = [self.connections, self.refused, self.skipped]
        return arrays, {"selection": self._identity(), "counts": counts}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Continue from a result of ``state`` if selection and models are the same; otherwise begin here."""
        if values["selection"] != self._identity():
            return
        chosen = arrays["chosen"]
        self._chosen[chosen] = True
        self._rows, self._scores = from_bytes(arrays["rows"], TRACED).copy(), arrays["scores"].copy()
        self.connections, self.refused, self.skipped = (int(n) for n in values["counts"])

    def _identity(self) -> list[Any]:
        s = self.selection
        labels = [list(pair) for pair in sorted(s.labels)]
        return [sorted(s.uids), sorted(s.communities), sorted(s.probes), labels, list(self.models)]


def trace_notes(tracers: Sequence[Tracer]) -> list[str]:
    """Notes for the user about a trace, one line each."""
    if not tracers:
        return []
    notes = []
    if not sum(t.connections for t in tracers):
        notes.append("--trace: no connection matches the selectors")
    if refused := sum(t.refused for t in tracers):
        notes.append(
            f"--trace: more than {MOST_CONNECTIONS:,} connections match: {refused:,} later ones were not traced"
        )
    if skipped := sum(t.skipped for t in tracers):
        notes.append(f"--trace: {skipped:,} packets left out: live connections already had {MOST_ROWS:,}")
    return notes
