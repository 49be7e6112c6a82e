"""Columns of a table as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def codes(columns: Sequence[pa.ChunkedArray]) -> list[Ints]:
    """The texts of columns as numbers, which are equal for equal texts."""
    chunks = [chunk for column in columns for chunk in column.cast(pa.string()).fill_null("").chunks]
    whole = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    numbers = whole.indices.to_numpy().astype(np.int64)
    return np.split(numbers, np.cumsum([len(column) for column in columns])[:-1])


def dictionary(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """The texts of a column as numbers, and the text of each number."""
    coded = column.cast(pa.string()).fill_null("").combine_chunks().dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def ports(column: pa.ChunkedArray) -> Ints:
    """The numbers of a column, 0 where it is empty."""
    values: Ints = column.fill_null(0).combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)
    return values


def ns(column: pa.ChunkedArray) -> Ints:
    """The times of a column as ns since the epoch."""
    values: Ints = column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64()).combine_chunks().to_numpy()
    return values
