"""Near-duplicates: connections whose packets have the same directions, sizes and TCP flags, in the same order.

A model that has learned one of them knows the other. Short exchanges repeat naturally, so only connections with enough
information count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.hashing import splitmix
from probing.corpus.columns import Ints
from probing.corpus.measures import groups
from probing.corpus.traffic import PacketColumns, Traffic

LEAST_DATA = 6  # packets with payload, and
LEAST_SIZES = (
    4  # different sizes of them, from which a connection has enough information to be a near-duplicate
)


def sequences(traffic: Traffic, unit: Ints, n: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """A number for the sequence of each of n units, and whether it has enough information; (n,) each.

    unit: (records,) unit of each connection record, -1 for none.
    """
    p = traffic.packets
    own = unit[p.connection] if p.connection.size else p.connection
    kept = own >= 0
    p = PacketColumns._make(column[kept] for column in p)
    own = own[kept]
    result, informed = np.zeros(n, np.uint64), np.zeros(n, bool)
    if not own.size:
        return result, informed
    g = groups(own, n)
    length = np.diff(np.append(g.begin, own.size))
    number = np.arange(own.size) - np.repeat(g.begin, length)  # of the packet in its unit
    what = (p.size << 9 | p.flags << 1 | p.up)[g.order].astype(np.uint64)
    with np.errstate(over="ignore"):
        mixed = splitmix(splitmix(what) ^ splitmix(number.astype(np.uint64) + np.uint64(1)))
        result[g.present] = np.add.reduceat(mixed, g.begin)
    loaded = p.payload > 0
    sizes = np.unique(np.stack((own[loaded], p.size[loaded])), axis=1)[0]
    informed = (np.bincount(own[loaded], minlength=n) >= LEAST_DATA) & (
        np.bincount(sizes, minlength=n) >= LEAST_SIZES
    )
    return result, informed


def across(sequence: NDArray[np.uint64], informed: NDArray[np.bool_], part: Ints) -> NDArray[np.bool_]:
    """Which connections have a near-duplicate in another part; (n,). part: (n,) part of each."""
    _, same = np.unique(sequence, return_inverse=True)
    same = same.ravel()
    low, high = np.full(same.size, part.max(initial=0)), np.full(same.size, -1)
    np.minimum.at(low, same, part)
    np.maximum.at(high, same, part)
    return informed & (low[same] < high[same])
