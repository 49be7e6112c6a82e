"""Named columns <-> Arrow IPC stream bytes; the only wire format.

A message is one record batch whose schema metadata carries a format number and a small header of strings, so
any Arrow reader can open it. Reading copies nothing: columns point into the message.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

FORMAT = 2  # 1 had fewer columns; every format from 1 on is read
_KEY = b"wiresonde"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # end of an Arrow IPC stream
_UNREADABLE = (pa.ArrowException, StopIteration, EOFError, ValueError, OSError, RecursionError, struct.error)


class CodecError(Exception):
    """The bytes are not a message of ours, or have a format that this version does not read."""


class NewerFormatError(CodecError):
    """The message has a newer format: upgrade the reader, do not skip the message."""


def encode(columns: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> bytes:
    """One message from columns of equal length. ``header``: JSON values, kept beside the columns."""
    text = json.dumps({**header, "format": FORMAT}, separators=(",", ":")).encode()
    arrays = [pa.array(column) for column in columns.values()]
    fields = [pa.field(name, array.type, nullable=False) for name, array in zip(columns, arrays)]
    schema = pa.schema(fields, metadata={_KEY: text})
    # a stream's parts, each of its exact size: a stream writer doubles its buffer until the message fits
    return b"".join((schema.serialize(), pa.record_batch(arrays, schema=schema).serialize(), _END))


def decode(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Columns, read-only, and header of a message. Raises CodecError for anything else.

    No length in the message causes an allocation: columns must lie in it, as plain numbers.
    """
    try:
        messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(data))
        message = messages.read_next_message()
        if message.type != "schema":  # pyarrow 26 crashes on others
            raise CodecError(f"found a {message.type}, expected a schema")
        schema = pa.ipc.read_schema(message)
        header = _header(schema)
        message = messages.read_next_message()
        if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
            raise CodecError(f"found a {message.type}, expected a record batch without compression")
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
        if next(iter(messages), None) is not None:
            raise CodecError("more than one record batch")
    except _UNREADABLE as error:
        raise CodecError(f"not a wiresonde message: {error}") from error
    columns = {}
    for field, array in zip(batch.schema, batch.columns):
        if array.null_count:
            raise CodecError(f"column {field.name} has nulls")
        columns[field.name] = array.to_numpy(zero_copy_only=True)
    return columns, header


def _header(schema: pa.Schema) -> dict[str, Any]:
    """The header of a message, after checking that all its columns are numbers."""
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        raise CodecError("an Arrow stream, but not a wiresonde message")
    header = json.loads(text)
    if not isinstance(header, dict):
        raise CodecError("the header is not a JSON object")
    found = header.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise NewerFormatError(f"message format {found}; this version reads up to {FORMAT}")
    if type(found) is not int or found < 1:
        raise CodecError(f"message format {found!r}; this version reads 1 to {FORMAT}")
    for field in schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            raise CodecError(f"column {field.name} is not numeric: {field.type}")
    if len(set(schema.names)) < len(schema.names):
        raise CodecError("two columns have the same name")
    return header


def has_compression(data: bytes) -> bool:
    """Whether a message of an Arrow IPC stream is compressed, so that reading it may allocate any amount.

    Raises pyarrow.ArrowInvalid when it is not such a stream.
    """
    messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(data))
    return any(_is_compressed(m.metadata.to_pybytes()) for m in messages if m.type != "schema")


def _is_compressed(metadata: bytes) -> bool:
    """Whether a record batch's metadata has a `compression` field (Arrow's Message.fbs and Schema.fbs).

    Decompression would allocate what the message claims, and pyarrow cannot be told not to decompress.
    """
    at = _field(metadata, _u32(metadata, 0), 2)  # Message.header, a reference to a RecordBatch
    return at is not None and _field(metadata, at + _u32(metadata, at), 3) is not None


def _field(data: bytes, table: int, number: int) -> int | None:
    """Position of a field of a flatbuffers table; None when it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
