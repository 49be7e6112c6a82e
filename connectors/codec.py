"""Named columns <-> Arrow IPC stream bytes; the only wire format.

A message is one record batch whose schema metadata carries a format number and a small header of strings, so
any Arrow reader can open it. Reading copies nothing: columns point into the message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FORMAT = 1
_KEY = b"wiresonde"


class CodecError(Exception):
    """Bytes that are no message of ours, or of a format this version does not read."""


class NewerFormatError(CodecError):
    """A message of a newer format: upgrade the reader, do not skip."""


def encode(columns: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> bytes:
    """One message of equally long columns. ``header``: JSON values, kept beside the columns."""
    text = json.dumps({"format": FORMAT, **header}, separators=(",", ":")).encode()
    arrays = [pa.array(column) for column in columns.values()]
    fields = [pa.field(name, array.type, nullable=False) for name, array in zip(columns, arrays)]
    schema = pa.schema(fields, metadata={_KEY: text})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Columns, read-only, and header of a message. Raises CodecError for anything that is not one."""
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            text = (reader.schema.metadata or {}).get(_KEY)
            if text is None:
                raise CodecError("an Arrow stream, but not a wiresonde message")
            header = json.loads(text)
            if header.get("format") != FORMAT:
                _refuse(header.get("format"))
            batch = reader.read_next_batch()
            batch.validate(full=True)
    except (pa.ArrowException, StopIteration, ValueError, OSError) as error:
        raise CodecError(f"not an Arrow message of ours: {error}") from error
    columns = {}
    for field, array in zip(batch.schema, batch.columns):
        if array.null_count or not pa.types.is_primitive(field.type):
            raise CodecError(f"column {field.name}: nulls or a type that is not a number: {field.type}")
        columns[field.name] = array.to_numpy(zero_copy_only=True)
    return columns, header


def _refuse(found: Any) -> None:
    if isinstance(found, int) and found > FORMAT:
        raise NewerFormatError(f"message format {found}; this version reads up to {FORMAT}")
    raise CodecError(f"message format {found!r}; this version reads {FORMAT}")


def equal(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of columns have the same names, types and values."""
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)
