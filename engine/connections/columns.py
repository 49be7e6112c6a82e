"""Columns of connection records: name, type, unit and meaning of each, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of a table that Wiresonde writes."""

    name: str
    type: pa.DataType
    unit: str  # empty for texts, identities and counts
    about: str


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of some columns."""
    return pa.schema([pa.field(c.name, c.type) for c in columns])


_TIME = pa.timestamp("ns", tz="UTC")
_COUNT, _SECONDS = pa.int64(), pa.float64()


def _sides(name: str, unit: str, about: str) -> tuple[Column, Column]:
    """Two columns, one for each side, of a count that Zeek does not have."""
    return Column(f"orig_{name}", _COUNT, unit, about), Column(f"resp_{name}", _COUNT, unit, about)


CONNECTION_COLUMNS: tuple[Column, ...] = (
    Column("ts", _TIME, "", "time of the first packet"),
    Column(
        "uid",
        pa.string(),
        "",
        "id of the connection: C and 16 characters, the same in every run over the same packets",
    ),
    Column("id.orig_h", pa.string(), "", "address of the originator; not IP: its MAC"),
    Column("id.orig_p", pa.uint16(), "", "port of the originator; ICMP: type; not IP: null"),
    Column("id.resp_h", pa.string(), "", "address of the responder; not IP: its MAC"),
    Column(
        "id.resp_p", pa.uint16(), "", "port of the responder; ICMP: code, or type of the answer; not IP: null"
    ),
    Column(
        "proto",
        pa.string(),
        "",
        "tcp, udp, icmp or unknown_transport; not IP: arp, lldp, …, or 0x and the EtherType",
    ),
    Column(
        "duration", _SECONDS, "seconds", "time from the first to the last packet; null for a single packet"
    ),
    Column("orig_bytes", _COUNT, "bytes", "payload of the originator: TCP by sequence numbers"),
    Column("resp_bytes", _COUNT, "bytes", "payload of the responder: TCP by sequence numbers"),
    Column("conn_state", pa.string(), "", "Zeek's conn_state"),
    Column("missed_bytes", _COUNT, "bytes", "payload acknowledged but never captured"),
    Column("history", pa.string(), "", "Zeek's history, at most 24 letters; a final + stands for more"),
    Column("orig_pkts", _COUNT, "packets", "packets of the originator"),
    Column("orig_ip_bytes", _COUNT, "bytes", "IP bytes of the originator, headers included"),
    Column("resp_pkts", _COUNT, "packets", "packets of the responder"),
    Column("resp_ip_bytes", _COUNT, "bytes", "IP bytes of the responder, headers included"),
    Column("ip_proto", pa.uint8(), "", "IP protocol number; not IP: null"),
    Column("community_id", pa.string(), "", "Community ID, version 1; null for frames that are not IP"),
    Column("vlan", pa.uint16(), "", "VLAN id of the first packet's outer tag; null without one"),
    Column("inner_vlan", pa.uint16(), "", "VLAN id of the tag inside that; null without one"),
    *_sides(
        "retransmitted",
        "segments",
        "segments with repeated or late bytes: duplicates + spurious + late_fills + partial",
    ),
    *_sides("reordered", "segments", "segments that fill a hole within a round trip"),
    *_sides("duplicates", "segments", "segments with only bytes seen before and not yet acknowledged"),
    *_sides("spurious", "segments", "segments with only bytes seen before and already acknowledged"),
    *_sides(
        "late_fills", "segments", "segments that fill a hole after a round trip: first copy not captured"
    ),
    *_sides("partial", "segments", "segments with some bytes seen before and some new"),
    *_sides("keep_alive", "segments", "keep-alives, as Wireshark defines them"),
    *_sides("zero_window", "segments", "zero windows, as Wireshark defines them"),
    *_sides("zero_window_probe", "segments", "zero window probes, as Wireshark defines them"),
    *_sides("capture_duplicate", "packets", "copies that the capture made of packets; not retransmissions"),
    *_sides(
        "out_of_window",
        "segments",
        "segments outside the window, or acknowledging what is; unless the peer confirms them, they change nothing",
    ),
    *_sides("duplicate_ack", "segments", "duplicate ACKs, as Wireshark defines them"),
    *_sides(
        "recovery_episodes",
        "",
        "recovery episodes: from a retransmission to the ACK of all data sent by then",
    ),
    *_sides("repeated_bytes", "bytes", "payload seen twice"),
    *_sides("missed_bytes", "bytes", "payload acknowledged but never captured"),
    Column("recovery_seconds", _SECONDS, "seconds", "total time of the recovery episodes"),
    Column(
        "round_trip", _SECONDS, "seconds", "time from the SYN to the handshake's last ACK; null if not seen"
    ),
    Column("proper_close", pa.bool_(), "", "whether both sides sent a FIN that was acknowledged"),
    Column("midstream", pa.bool_(), "", "whether the first packet was not a SYN: the originator is a guess"),
    Column(
        "one_sided",
        pa.bool_(),
        "",
        "whether only one side was captured, though it acknowledged the other's bytes",
    ),
    Column("holes_overflow", pa.bool_(), "", "whether there were more gaps at once than the tracker keeps"),
    Column("late_packets", pa.bool_(), "", "whether a packet was older than the one before it"),
    Column("capture_loss", pa.bool_(), "", "whether the sensor lost packets while the connection lived"),
    Column("ending", pa.string(), "", "timeout, closed, reused, evicted or flushed; live: not ended yet"),
    Column("probe", pa.uint32(), "", "probe id, 0 = none"),
)
