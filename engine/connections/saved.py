"""A connection table's state as plain arrays, and back.

Only live connections are kept: the size of a snapshot follows their number, not the capacity. The index is built
again; the order of its entries changes no result. Slots keep their numbers and the stack of free slots its order,
since scorers keep state by slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.connections.layout import CONNECTION, LINK, SIDE, Registers, Table
from engine.connections.table import insert, live_slots
from engine.kernels import kernel
from engine.types import as_bytes, from_bytes, rows_at

FREE, LIVE, CAPACITY = int(Registers.FREE), int(Registers.LIVE), int(Registers.CAPACITY)


def state(t: Table) -> dict[str, NDArray[Any]]:
    """A copy of all state that later records depend on."""
    slots = np.sort(live_slots(t))
    sides = (2 * slots[:, None] + np.arange(2)).reshape(-1).astype(np.int64)
    rows_of_sides = rows_at(t.sides, sides)
    holed = sides[rows_of_sides["holes"] > 0]
    free = t.free[: t.registers[FREE]]
    untouched = np.flatnonzero(free != np.arange(t.free.size - 1, t.free.size - 1 - free.size, -1))
    stack = free[untouched[0] :] if untouched.size else free[:0]
    noted = np.flatnonzero(t.fragments[:, 0])
    copied = np.flatnonzero(t.copies.any(axis=1))
    origins, openings = np.flatnonzero(t.origins), np.flatnonzero(t.openings)
    return {
        "slots": slots,
        "rows": as_bytes(rows_at(t.rows, slots)),
        "sides": as_bytes(rows_of_sides),
        "links": as_bytes(t.links[slots]),
        "reported": t.reported[slots],
        "holed": holed,
        "holes": t.holes[holed],
        "free": stack.copy(),
        "heads": t.heads.copy(),
        "tails": t.tails.copy(),
        "registers": t.registers.copy(),
        "noted": noted,
        "fragments": t.fragments[noted],
        "copied": copied,
        "copies": t.copies[copied],
        "origin_places": origins,
        "origins": t.origins[origins],
        "opening_places": openings,
        "openings": t.openings[openings],
    }


def restore(t: Table, saved: Mapping[str, NDArray[Any]]) -> None:
    """Fill an empty table. ValueError or KeyError when the state does not fit it."""
    slots, registers, stack = saved["slots"], saved["registers"], saved["free"]
    if registers.shape != t.registers.shape or registers[CAPACITY] != t.registers[CAPACITY]:
        raise ValueError(
            f"saved with a capacity of {registers[CAPACITY]} connections, this table has {t.registers[CAPACITY]}"
        )
    if (
        slots.size != registers[LIVE]
        or not 0 <= registers[FREE] <= t.free.size
        or stack.size > registers[FREE]
    ):
        raise ValueError("the counts of live and free slots contradict each other")
    for name, rows, size in (("slots", slots, t.rows.size), ("free", stack, t.rows.size)):
        if rows.size and not (rows.min() >= 0 and rows.max() < size):
            raise ValueError(f"{name} refers outside the table")
    t.rows[slots] = from_bytes(saved["rows"], CONNECTION)
    sides = (2 * slots[:, None] + np.arange(2)).reshape(-1)
    t.sides[sides] = from_bytes(saved["sides"], SIDE)
    t.links[slots] = from_bytes(saved["links"], LINK)
    t.reported[slots] = saved["reported"]
    t.holes[saved["holed"]] = saved["holes"]
    t.free[registers[FREE] - stack.size : registers[FREE]] = stack
    t.heads[:], t.tails[:], t.registers[:] = saved["heads"], saved["tails"], registers
    t.fragments[saved["noted"]] = saved["fragments"]
    t.copies[saved["copied"]] = saved["copies"]
    t.origins[saved["origin_places"]] = saved["origins"]
    t.openings[saved["opening_places"]] = saved["openings"]
    reindex(t.places, np.ascontiguousarray(t.rows["tag"][slots]), slots)


@kernel
def reindex(places: NDArray[np.int64], tags: NDArray[np.uint32], slots: NDArray[np.int32]) -> None:
    """Enter slots into an empty index."""
    for i in range(slots.size):
        insert(places, np.int64(tags[i]), np.int64(slots[i]))
