"""Single columns of connections: header fields and counts, never addresses, ports or payload.

A column that alone tells attacks from benign connections gives them away. Columns are named in words, so that a report
can name one; ``up`` is from the originator, ``down`` to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.types import ACK, FIN, NS, RST, SYN, Floats
from probing.corpus.columns import Ints
from probing.corpus.traffic import NO_TOS, PacketColumns, Traffic

PSH, URG, ECE, CWR = 8, 32, 64, 128  # bits of the TCP flags
FLAGS = {"SYN": SYN, "FIN": FIN, "RST": RST, "PSH": PSH, "URG": URG, "ECE": ECE, "CWR": CWR}
TCP_ORDER = ("retransmitted", "reordered", "duplicate_ack", "zero_window", "keep_alive", "recovery_episodes")
NO_VALUE = -1.0  # stands for no value; no column is negative
MOST_VALUES = 8  # values of a column up to which each has a column of its own
LETTERS = "ShAaDdFfRrTtCcQqGgWwIi^"  # of Zeek's history


class Groups(NamedTuple):
    """Packets in groups: one of each connection, or of each direction of a connection."""

    order: Ints  # packets by group, in capture order within each
    begin: Ints  # first place of each group that has packets
    present: Ints  # number of each group that has packets
    total: int  # number of groups

    def spread(self, values: Floats) -> Floats:
        """A value of each group that has packets, as one of every group, NaN for the others."""
        out = np.full(self.total, np.nan)
        out[self.present] = values
        return out

    def first(self, column: NDArray[np.generic]) -> Floats:
        """The value of each group's first packet."""
        return self.spread(column[self.order][self.begin].astype(np.float64))

    def sum(self, column: NDArray[np.generic]) -> Floats:
        """The sum over each group, 0 for a group without packets."""
        return np.nan_to_num(self._reduced(np.add, column))

    def max(self, column: NDArray[np.generic]) -> Floats:
        """The greatest value of each group."""
        return self._reduced(np.maximum, column)

    def min(self, column: NDArray[np.generic]) -> Floats:
        """The least value of each group."""
        return self._reduced(np.minimum, column)

    def mean(self, column: NDArray[np.generic]) -> Floats:
        """The mean of each group."""
        with np.errstate(invalid="ignore"):
            return self._reduced(np.add, column) / self._reduced(np.add, np.ones(column.size))

    def _reduced(self, how: np.ufunc, column: NDArray[np.generic]) -> Floats:
        if not self.begin.size:
            return np.full(self.total, np.nan)
        return self.spread(how.reduceat(column[self.order].astype(np.float64), self.begin))


def groups(key: Ints, total: int) -> Groups:
    """Packets by group. key: (n,) number of each packet's group."""
    order = np.argsort(key, kind="stable")
    present, begin = np.unique(key[order], return_index=True)
    return Groups(order, begin.astype(np.int64), present.astype(np.int64), total)


def measure(traffic: Traffic, unit: Ints, n: int) -> dict[str, Floats]:
    """The columns of n units, (n,) each, by name; NaN where one has no value.

    unit: (records,) the unit of each connection record, -1 for none. A unit with several records is measured over the
    packets of all, with the record fields of the first.
    """
    p = traffic.packets
    own = unit[p.connection] if p.connection.size else p.connection
    kept = own >= 0
    p = PacketColumns._make(column[kept] for column in p)
    own = own[kept]
    result: dict[str, Floats] = {}
    for side, mine in (("up", p.up), ("down", ~p.up)):
        rows = PacketColumns._make(column[mine] for column in p)
        result |= {f"{name} {side}": values for name, values in _of_side(rows, own[mine], n).items()}
    result |= _of_both(p, own, n)
    result |= _of_records(traffic.connections, unit, n)
    return result


def _of_side(p: PacketColumns, own: Ints, n: int) -> dict[str, Floats]:
    """Columns of one direction; p and own: its packets, and the unit of each."""
    g = groups(own, n)
    header = p.size - p.payload
    loaded = p.payload > 0
    data = groups(own[loaded], n)
    size = p.payload[loaded]
    result = {
        "TTL of the first packet": g.first(p.ttl), "least TTL": g.min(p.ttl), "greatest TTL": g.max(p.ttl),
        "header bytes of the first packet": g.first(header), "greatest header bytes": g.max(header),
        "mean header bytes": g.mean(header),
        "window of the first packet": g.first(p.window), "least window": g.min(p.window),
        "greatest window": g.max(p.window), "mean window": g.mean(p.window),
        "share of IP ids 0": g.mean(p.ip_id == 0), "share of IP ids one after the other": _in_sequence(p, g),
        "packets": g.sum(np.ones(own.size)), "data packets": data.sum(np.ones(size.size)),
        "IP bytes": g.sum(p.size), "payload bytes": g.sum(p.payload),
        "first payload": data.first(size), "second payload": _second(data, size),
        "least payload": data.min(size), "mean payload": data.mean(size), "greatest payload": data.max(size),
        "packets without payload": g.sum((p.payload == 0) & (p.flags & (SYN | FIN | RST) == 0)),
    }  # fmt: skip
    if (p.tos != NO_TOS).any():
        known = np.where(p.tos == NO_TOS, np.nan, p.tos), np.where(p.df == NO_TOS, np.nan, p.df)
        result |= {"type of service": g.first(known[0]), "share of Don't Fragment": g.mean(known[1])}
    result |= {f"packets with {name}": g.sum(p.flags & bit != 0) for name, bit in FLAGS.items()}
    return result | _of_gaps(p.ts, g)


def _second(data: Groups, size: NDArray[np.int64]) -> Floats:
    """The payload of each group's second data packet."""
    ends = np.append(data.begin[1:], data.order.size)
    there = ends - data.begin > 1
    values = np.full(data.begin.size, np.nan)
    values[there] = size[data.order][data.begin[there] + 1]
    return data.spread(values)


def _in_sequence(p: PacketColumns, g: Groups) -> Floats:
    """The share of a group's packets whose IP id is one more than that of the packet before."""
    step = np.zeros(p.ip_id.size)
    ids = p.ip_id[g.order]
    step[1:] = np.diff(ids) & 0xFFFF == 1
    step[g.begin] = 0
    back = np.empty_like(step)
    back[g.order] = step
    return g.sum(back) / np.maximum(g.sum(np.ones(back.size)) - 1, 1)


def _of_gaps(ts: Ints, g: Groups) -> dict[str, Floats]:
    """Columns of the times between a group's packets, in seconds."""
    gap = np.zeros(ts.size)
    gap[1:] = np.maximum(np.diff(ts[g.order]), 0) * NS
    inner = np.ones(ts.size, bool)
    inner[g.begin] = False
    number = np.repeat(g.present, np.diff(np.append(g.begin, g.order.size)))
    inside = groups(number[inner], g.total)
    gap = gap[inner]
    mean = inside.mean(gap)
    spread = np.sqrt(np.maximum(inside.mean(gap**2) - mean**2, 0))
    return {
        "first inter-arrival": inside.first(gap), "mean inter-arrival": mean, "least inter-arrival": inside.min(gap),
        "greatest inter-arrival": inside.max(gap), "spread of inter-arrivals": spread,
    }  # fmt: skip


def _of_both(p: PacketColumns, own: Ints, n: int) -> dict[str, Floats]:
    """Columns of both directions together."""
    g = groups(own, n)
    before = np.zeros(n)
    before[g.present] = p.ts[g.order][g.begin]
    since = (p.ts - before[own].astype(np.int64)) * NS if own.size else np.zeros(0)
    loaded = p.payload > 0
    return {
        "duration": g.max(since),
        "time to the first payload up": groups(own[loaded & p.up], n).min(since[loaded & p.up]),
        "time to the first payload down": groups(own[loaded & ~p.up], n).min(since[loaded & ~p.up]),
        "time to the last payload": groups(own[loaded], n).max(since[loaded]),
        "packets of both": g.sum(np.ones(own.size)), "data packets of both": g.sum(loaded),
        "payload bytes of both": g.sum(p.payload),
        "packets that acknowledge": g.sum(p.flags & ACK != 0),
        **{f"{name} of both": values for name, values in _of_gaps(p.ts, g).items()},
    }  # fmt: skip


def _of_records(records: pa.Table, unit: Ints, n: int) -> dict[str, Floats]:
    """Columns of the connection records: TCP's order, the round trip, letters of the history, states."""
    rows = np.flatnonzero(unit >= 0)[::-1]  # the first record of a unit is written last
    place = unit[rows]

    def of(values: NDArray[np.generic]) -> Floats:
        out = np.full(n, np.nan)
        out[place] = values[rows].astype(np.float64)
        return out

    result = {"round trip of the handshake": of(records.column("round_trip").to_numpy())}
    for name in TCP_ORDER:
        for side, word in (("orig", "up"), ("resp", "down")):
            values = records.column(f"{side}_{name}").to_numpy()
            result[f"{name.replace('_', ' ')} {word}"] = of(values)
    history, state = (records.column(name).to_pylist() for name in ("history", "conn_state"))
    for letter in LETTERS:
        result[f"history has {letter}"] = of(np.array([letter in (text or "") for text in history], bool))
    for known in sorted({text for text in state if text}):
        result[f"conn_state is {known}"] = of(np.array([text == known for text in state], bool))
    return result


def table(columns: Mapping[str, Floats]) -> tuple[list[str], Floats]:
    """Names and values, (columns, units), of the columns that have more than one value; NaN becomes NO_VALUE.

    No value is a value here: it is as good as any other at telling attacks. A column of few values is followed by one
    for each of them, 1 where it is had: a TTL between two others tells attacks, too.
    """
    names: list[str] = []
    values: list[Floats] = []
    for name, given in columns.items():
        column = np.nan_to_num(given, nan=NO_VALUE)
        distinct = np.unique(column)
        if distinct.size < 2:
            continue
        names.append(name)
        values.append(column)
        if 2 < distinct.size <= MOST_VALUES:
            for value in distinct.tolist():
                names.append(f"{name} is {'missing' if value == NO_VALUE else f'{value:g}'}")
                values.append((column == value).astype(np.float64))
    return names, np.stack(values) if values else np.zeros((0, 0))
