"""PacketBlock <-> bus message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from connectors.bus import codec
from connectors.bus.codec import CodecError
from engine.types import PACKET_DTYPES, PacketBlock, Packets, freeze

ADDED = {
    "vlan": 2,
    "ethertype": 2,
    "checksum": 2,
}  # columns that older messages lack, and the format that brought them


def encode(block: PacketBlock) -> bytes:
    """The message of a block."""
    header = {
        "sensor": block.sensor, "epoch": block.epoch, "seq": block.seq,
        "now": block.now, "dropped": block.dropped, "loss": block.loss,
    }  # fmt: skip
    return codec.encode(block.packets._asdict(), header)


def decode(data: bytes) -> PacketBlock:
    """The block of a message; its columns point into ``data``. Raises CodecError.

    Columns that a message of an older format lacks are 0.
    """
    columns, header = codec.decode(data)
    for name, since in ADDED.items():
        if header["format"] < since and name not in columns:
            columns[name] = np.zeros(len(next(iter(columns.values()), ())), PACKET_DTYPES[name])
    found = {name: column.dtype for name, column in columns.items()}
    if found != PACKET_DTYPES:
        wrong = sorted(set(found.items()) ^ set(PACKET_DTYPES.items()), key=str)
        raise CodecError(f"the columns differ from those of packets: {wrong[:3]}")
    sensor = header.get("sensor")
    if not isinstance(sensor, str):
        raise CodecError(f"sensor {sensor!r:.80} in the header must be text")
    if not sensor.isprintable() or len(sensor) > 200:  # it becomes a label of metrics
        raise CodecError(f"not a valid sensor name: {sensor!a:.80}")
    epoch, seq, dropped = (_number(header, name, 0) for name in ("epoch", "seq", "dropped"))
    now = _number(header, "now", -(1 << 63))
    loss = header.get("loss", False)
    if type(loss) is not bool:
        raise CodecError(f"loss {loss!r:.80} in the header must be true or false")
    return PacketBlock(sensor, epoch, seq, freeze(Packets(**columns)), now, dropped, loss)


def _number(header: Mapping[str, Any], name: str, least: int) -> int:
    value = header.get(name)
    if type(value) is not int or not least <= value < 1 << 63:
        raise CodecError(f"{name} {value!r:.80} in the header must be a number of at least {least}")
    return value
