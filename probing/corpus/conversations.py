"""Conversations: two ends and a protocol, whichever end speaks first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from probing.corpus.columns import Ints, codes, ports


class Ends(NamedTuple):
    """The ends of conversations, as columns."""

    src: pa.ChunkedArray
    sport: pa.ChunkedArray
    dst: pa.ChunkedArray
    dport: pa.ChunkedArray
    proto: pa.ChunkedArray


def label_ends(table: pa.Table) -> Ends:
    """The ends of a label table's rows."""
    return Ends(*(table.column(name) for name in Ends._fields))


def connection_ends(table: pa.Table) -> Ends:
    """The ends of connection records."""
    c = table.column
    return Ends(c("id.orig_h"), c("id.orig_p"), c("id.resp_h"), c("id.resp_p"), c("proto"))


def conversations(tables: Sequence[Ends]) -> list[Ints]:
    """A number for each row, equal where both ends and the protocol are equal, in either direction."""
    n = [len(t.src) for t in tables]
    address = codes([t.src for t in tables] + [t.dst for t in tables])
    src, dst = np.concatenate(address[: len(n)]), np.concatenate(address[len(n) :])
    proto = np.concatenate(codes([t.proto for t in tables]))
    sport, dport = (np.concatenate([ports(t[k]) for t in tables]) for k in (1, 3))
    # records of ICMP have type and code where rows have nothing
    icmp = np.concatenate([_is_icmp(t.proto) for t in tables])
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
