"""Law 4: a block encoded and decoded is equal; any bytes that are not such a message are refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from connectors.bus import codec
from connectors.bus.codec import CodecError, NewerFormatError
from engine import wire
from engine.types import PACKET_DTYPES, PacketBlock, Packets, empty_packets, take
from tests.support.streams import stream

int64s = st.integers(-(1 << 63), (1 << 63) - 1)
counts = st.integers(0, (1 << 63) - 1)


@st.composite
def blocks(draw: st.DrawFn) -> PacketBlock:
    """Any block: a column may have any value of its type."""
    n = draw(st.integers(0, 20))
    columns = (draw(hnp.arrays(dtype, n)) for dtype in PACKET_DTYPES.values())
    numbers = draw(st.tuples(counts, counts, int64s, counts))
    epoch, seq, now, dropped = numbers
    return PacketBlock(
        draw(st.text(max_size=20).filter(str.isprintable)), epoch, seq, Packets(*columns), now, dropped
    )


def fields(block: PacketBlock) -> tuple[Any, ...]:
    return block.sensor, block.epoch, block.seq, block.now, block.dropped


GOOD = wire.encode(PacketBlock("sensor", 1, 2, stream(5, 30), 3, 4))


@given(block=blocks())
@settings(max_examples=40)
def test_a_block_coded_and_decoded_is_equal(block: PacketBlock) -> None:
    got = wire.decode(wire.encode(block))
    assert fields(got) == fields(block)
    assert got.packets._fields == block.packets._fields
    for name, column in block.packets._asdict().items():
        mine = getattr(got.packets, name)
        assert mine.dtype == column.dtype
        assert np.array_equal(mine, column)


@given(block=blocks())
@settings(max_examples=20)
def test_a_message_is_the_stream_that_arrow_writes(block: PacketBlock) -> None:
    data = wire.encode(block)
    with pa.ipc.open_stream(data) as reader:
        (batch,) = list(reader)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, reader.schema) as writer:
            writer.write_batch(batch)
    assert sink.getvalue().to_pybytes() == data


@given(block=blocks())
@settings(max_examples=20)
def test_equal_blocks_give_equal_bytes(block: PacketBlock) -> None:
    assert wire.encode(block) == wire.encode(wire.decode(wire.encode(block)))


def test_rows_taken_out_of_longer_columns_are_coded_as_they_are() -> None:
    p = stream(1, 40)
    every_third = take(p, slice(1, None, 3))
    got = wire.decode(wire.encode(PacketBlock("s", 0, 0, every_third, 0))).packets
    for mine, column in zip(got, every_third):
        np.testing.assert_array_equal(mine, column)


@pytest.mark.parametrize("n", [0, 1, 30])
def test_decoded_columns_lie_in_the_message_and_are_read_only(n: int) -> None:
    data = wire.encode(PacketBlock("s", 0, 0, stream(2, n) if n else empty_packets(), 0))
    inside = np.frombuffer(data, np.uint8)
    for column in wire.decode(data).packets:
        assert not column.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            column[:] = 0
        assert n == 0 or np.shares_memory(column, inside)


@given(data=st.binary(max_size=300))
def test_bytes_that_are_not_a_message_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        wire.decode(data)


@given(cut=st.integers(0, len(GOOD) - 1))
def test_a_message_that_is_cut_is_refused_or_lacks_only_its_end_mark(cut: int) -> None:
    try:
        got = wire.decode(GOOD[:cut])
    except CodecError:
        return
    assert len(GOOD) - cut <= 8
    assert fields(got) == fields(wire.decode(GOOD))


@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8)
)
@settings(max_examples=500)
def test_a_message_with_changed_bytes_is_refused_or_gives_a_complete_block(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        got = wire.decode(bytes(data))
    except CodecError:
        return
    assert {column.size for column in got.packets} == {len(got)}
    assert [column.dtype for column in got.packets] == list(PACKET_DTYPES.values())


@contextlib.contextmanager
def little_arrow_memory() -> Iterator[None]:
    """Fail if Arrow takes more than 1 MiB in the block. Uses its own pool, since a pool reports only its peak."""
    default, mine = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(mine)
    try:
        yield
    finally:
        pa.set_memory_pool(default)
    assert mine.max_memory() < 1 << 20


def test_every_byte_of_the_metadata_may_be_wrong_without_harm() -> None:
    with little_arrow_memory():
        for at in range(len(GOOD) - 30 * 90):  # the columns, about 90 bytes a packet, stand at the end
            for flip in (0x01, 0x80):
                data = bytearray(GOOD)
                data[at] ^= flip
                with contextlib.suppress(CodecError):
                    wire.decode(bytes(data))


def message(
    header: object, columns: dict[str, Any], compression: str | None = None, batches: int = 1
) -> bytes:
    """An Arrow stream as another program might write it."""
    metadata = None if header is None else {b"wiresonde": json.dumps(header).encode()}
    arrays = [pa.array(column) for column in columns.values()]
    schema = pa.schema([(k, a.type) for k, a in zip(columns, arrays)], metadata=metadata)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for _ in range(batches):
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data


HEADER = {"format": 2, "sensor": "s", "epoch": 0, "seq": 0, "now": 0, "dropped": 0}
PACKETS = stream(3, 4)._asdict()


def test_a_message_put_together_by_hand_is_read() -> None:
    assert len(wire.decode(message(HEADER, PACKETS))) == 4


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (None, "not a wiresonde message"),
        ([1], "not a JSON object"),
        (7, "not a JSON object"),
        ({}, "message format None"),
        ({"format": "1"}, "message format '1'"),
        ({"format": True}, "message format True"),
        ({"format": 0}, "message format 0"),
        (HEADER | {"sensor": 5}, "sensor"),
        (HEADER | {"seq": -1}, "seq -1"),
        (HEADER | {"seq": True}, "seq True"),
        (HEADER | {"epoch": 1.5}, "epoch 1.5"),
        (HEADER | {"dropped": -3}, "dropped -3"),
        (HEADER | {"now": 1 << 63}, f"now {1 << 63}"),
        ({k: v for k, v in HEADER.items() if k != "now"}, "now None"),
    ],
)
def test_a_wrong_header_is_refused_and_named(header: object, problem: str) -> None:
    with pytest.raises(CodecError, match=problem):
        wire.decode(message(header, PACKETS))


def test_a_header_nested_deeper_than_python_can_go_is_refused() -> None:
    text = b'{"format":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    schema = pa.schema([("ts", pa.int64())], metadata={b"wiresonde": text})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array([1])], schema=schema))
    with pytest.raises(CodecError):
        wire.decode(sink.getvalue().to_pybytes())


def test_a_message_of_the_first_format_has_neither_vlan_nor_ethertype() -> None:
    old = {name: column for name, column in PACKETS.items() if name not in ("vlan", "ethertype")}
    got = wire.decode(message(HEADER | {"format": 1}, old)).packets
    for name, column in PACKETS.items():
        want = column if name in old else np.zeros(4, column.dtype)
        np.testing.assert_array_equal(getattr(got, name), want, strict=True)
        assert not getattr(got, name).flags.writeable
    for lacking in (old, old | {"vlan": PACKETS["vlan"]}):
        with pytest.raises(CodecError, match="columns differ"):
            wire.decode(message(HEADER, lacking))


@pytest.mark.parametrize("number", [3, 4, 1000])
def test_a_newer_format_is_distinguished_from_damage(number: int) -> None:
    with pytest.raises(NewerFormatError, match=f"message format {number}; this version reads up to 2"):
        wire.decode(message(HEADER | {"format": number}, {"something": [1, 2]}))


@pytest.mark.parametrize(
    "columns",
    [
        {k: v for k, v in PACKETS.items() if k != "ttl"},
        PACKETS | {"extra": np.zeros(4)},
        PACKETS | {"ttl": PACKETS["ttl"].astype(np.int64)},
        PACKETS | {"ttl": np.zeros(4, bool)},
        PACKETS | {"ttl": ["a", "b", "c", "d"]},
        PACKETS | {"ttl": [[1], [2], [3], [4]]},
        PACKETS | {"ttl": pa.array([1, 2, None, 4], pa.uint8())},
        PACKETS | {"ts": PACKETS["ts"].astype("M8[ns]")},
        {},
    ],
    ids=["lacks", "extra", "width", "bool", "text", "nested", "null", "time", "none"],
)
def test_columns_that_are_not_those_of_packets_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        wire.decode(message(HEADER, columns))


def test_two_columns_of_one_name_are_refused() -> None:
    schema = pa.schema([("a", pa.int64())] * 2, metadata={b"wiresonde": b'{"format":1}'})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array([1])] * 2, schema=schema))
    with pytest.raises(CodecError, match="same name"):
        codec.decode(sink.getvalue().to_pybytes())


def test_a_record_batch_in_the_place_of_the_schema_is_refused() -> None:
    behind_schema = 8 + int.from_bytes(GOOD[4:8], "little")
    with pytest.raises(CodecError, match="found a record batch, expected a schema"):
        wire.decode(GOOD[behind_schema:])


@pytest.mark.parametrize("batches", [0, 2])
def test_a_message_is_one_record_batch(batches: int) -> None:
    with pytest.raises(CodecError):
        wire.decode(message(HEADER, PACKETS, batches=batches))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_small_message_that_unpacks_to_a_huge_one_costs_no_memory(compression: str) -> None:
    bomb = message({"format": 1}, {"a": np.zeros(1 << 28, np.uint8)}, compression)
    assert len(bomb) < 4 << 20
    with little_arrow_memory(), pytest.raises(CodecError, match="without compression"):
        codec.decode(bomb)
