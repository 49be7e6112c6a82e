"""Packets -> a table for people: columns under their names, addresses as text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from engine.notation import address_text, mac_text
from engine.types import KIND_MASK, Kind, Packets, Reason

ADDRESS_WORDS = ("src_hi", "src_lo", "dst_hi", "dst_lo", "src_mac", "dst_mac")


def packet_table(p: Packets) -> pa.Table:
    """A table with one row for each packet.

    Addresses are text and the two VLANs columns of their own; every other column keeps its name and type.
    """
    network = p.kind & KIND_MASK
    has_address = network >= Kind.ARP
    columns = {
        "ts": p.ts,
        "src": pa.array(address_text(p.src_hi, p.src_lo), pa.string(), mask=~has_address),
        "dst": pa.array(address_text(p.dst_hi, p.dst_lo), pa.string(), mask=~has_address),
        "src_mac": pa.array([mac_text(m) if m else None for m in p.src_mac.tolist()], pa.string()),
        "dst_mac": pa.array([mac_text(m) if m else None for m in p.dst_mac.tolist()], pa.string()),
    }
    for name, column in p._asdict().items():
        if name not in (*ADDRESS_WORDS, "ts", "kind", "reason", "vlan"):
            columns[name] = column
    columns["vlan"], columns["inner_vlan"] = p.vlan & 0xFFFF, p.vlan >> 16
    columns["kind"] = p.kind
    columns["network"] = pa.array([Kind(k).name.lower() for k in network.tolist()], pa.string())
    columns["reason"] = pa.array([Reason(r).name.lower() for r in p.reason.tolist()], pa.string())
    return pa.table(columns)


def packet_lines(table: pa.Table) -> Iterator[str]:
    """One JSON object for each row; absent values are left out."""
    for row in table.to_pylist():
        yield json.dumps({name: value for name, value in row.items() if value is not None})
