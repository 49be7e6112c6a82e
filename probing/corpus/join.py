"""Which connection record belongs to which label row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from probing.corpus.columns import Ints, ns
from probing.corpus.conversations import connection_ends, conversations, label_ends


def join(labels: pa.Table, connections: pa.Table) -> Ints:
    """The label row of each connection record, -1 for none; (number of connections,).

    labels: from `read_corpus`. connections: from `engine.commands.reading`. A row is a connection's when
    its ends are the same, in either direction, and it lasts when the connection begins; else, when it begins while the
    connection lasts (a capture may show a connection's first packet a little before the label's start).
    """
    result = np.full(connections.num_rows, -1, np.int64)
    if not labels.num_rows or not connections.num_rows:
        return result
    row_key, key = conversations([label_ends(labels), connection_ends(connections)])
    start, end = ns(labels.column("start")), ns(labels.column("end"))
    begin = ns(connections.column("ts"))
    length = connections.column("duration").combine_chunks().fill_null(0.0).to_numpy(zero_copy_only=False)
    last = begin + np.round(length * 1e9).astype(np.int64)
    moments = np.unique(start)
    order = np.lexsort((start, row_key))
    place = _place(row_key, moments, start)[order]
    for moment in (last, begin):  # the better match overwrites the other
        at = np.searchsorted(place, _place(key, moments, moment), side="right") - 1  # latest that has begun
        row = order[np.maximum(at, 0)]
        good = (at >= 0) & (row_key[row] == key) & (end[row] >= begin)
        result[good] = row[good]
    return result


def _place(key: Ints, moments: Ints, time: Ints) -> Ints:
    """A number that sorts by conversation, then by time among the moments."""
    return key << np.int64(32) | np.searchsorted(moments, time, side="right").astype(np.int64)
