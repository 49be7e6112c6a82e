"""Rows of structured arrays, chosen and joined, against numpy's own way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.connections.layout import CONNECTION, SIDE
from engine.types import Rows, join_rows, raw, rows_at


def some(kind: np.dtype[np.void], *shape: int) -> Rows:
    """Rows of random bytes."""
    data = np.random.default_rng(1).integers(0, 256, (*shape, kind.itemsize), np.uint8)
    rows: Rows = data.view(kind)[..., 0]
    return rows


def same(a: Rows, b: Rows) -> bool:
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and all(np.array_equal(a[n], b[n]) for n in a.dtype.names or ())
    )


@given(at=st.lists(st.integers(-50, 49), max_size=80))
def test_chosen_rows_are_those_of_plain_indexing(at: list[int]) -> None:
    chosen = np.array(at, np.int64)
    for rows in (some(CONNECTION, 50), some(SIDE, 50, 2), some(CONNECTION, 100)[::2]):
        assert same(rows_at(rows, chosen), rows[chosen])
        mask = np.isin(np.arange(50), chosen)
        assert same(rows_at(rows, mask), rows[mask])


def test_chosen_rows_are_a_copy_and_raw_rows_are_none() -> None:
    rows = some(SIDE, 5)
    chosen = rows_at(rows, np.array([1, 3]))
    chosen["packets"] = 7
    assert not (rows["packets"] == 7).any()
    raw(rows)[2] = raw(chosen)[0]
    assert rows["packets"][2] == 7


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_joined_rows_are_those_of_concatenation(sizes: list[int]) -> None:
    parts = [some(SIDE, n, 2) for n in sizes]
    assert same(join_rows(parts), np.concatenate(parts))
