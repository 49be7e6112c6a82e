"""PacketBlock <-> bus message."""

from __future__ import annotations

from connectors import codec
from connectors.codec import CodecError
from engine.types import PACKET_DTYPES, PacketBlock, Packets, freeze


def encode(block: PacketBlock) -> bytes:
    """The message of a block."""
    header = {
        "sensor": block.sensor, "epoch": block.epoch, "seq": block.seq,
        "now": block.now, "dropped": block.dropped,
    }  # fmt: skip
    return codec.encode(block.packets._asdict(), header)


def decode(data: bytes) -> PacketBlock:
    """The block of a message; its columns point into ``data``. Raises CodecError."""
    columns, header = codec.decode(data)
    found = {name: column.dtype for name, column in columns.items()}
    if found != PACKET_DTYPES:
        wrong = sorted(set(found.items()) ^ set(PACKET_DTYPES.items()), key=str)
        raise CodecError(f"columns are not those of packets: {wrong[:3]}")
    numbers = [header.get(name) for name in ("epoch", "seq", "now", "dropped")]
    if not isinstance(header.get("sensor"), str) or not all(isinstance(x, int) for x in numbers):
        raise CodecError(f"header without sensor, epoch, seq, now and dropped: {header}")
    packets = freeze(Packets(**columns))
    return PacketBlock(
        header["sensor"], header["epoch"], header["seq"], packets, header["now"], header["dropped"]
    )
