"""Columns of connection records: name, type, unit and meaning of each, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class Column(NamedTuple):
    """A column of a table that the product writes."""

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
    """A count of our own, once for each side."""
    return Column(f"orig_{name}", _COUNT, unit, about), Column(f"resp_{name}", _COUNT, unit, about)


CONNECTION_COLUMNS: tuple[Column, ...] = (
    Column("ts", _TIME, "", "time of the first packet"),
    Column(
        "uid",
        pa.string(),
        "",
        "id of the connection: C and 16 characters, the same whenever it is made again",
    ),
    Column("id.orig_h", pa.string(), "", "address of the originator"),
    Column("id.orig_p", pa.uint16(), "", "port of the originator; ICMP: type"),
    Column("id.resp_h", pa.string(), "", "address of the responder"),
    Column("id.resp_p", pa.uint16(), "", "port of the responder; ICMP: code, or type of the answer"),
    Column("proto", pa.string(), "", "tcp, udp, icmp or unknown_transport"),
    Column("duration", _SECONDS, "seconds", "time from the first to the last packet; null for a single one"),
    Column("orig_bytes", _COUNT, "bytes", "payload of the originator: TCP by sequence numbers"),
    Column("resp_bytes", _COUNT, "bytes", "payload of the responder: TCP by sequence numbers"),
    Column("conn_state", pa.string(), "", "Zeek's conn_state"),
    Column("missed_bytes", _COUNT, "bytes", "payload acknowledged but never captured"),
    Column(
        "history", pa.string(), "", "Zeek's history, 24 letters at most; a + behind them: there were more"
    ),
    Column("orig_pkts", _COUNT, "packets", "packets of the originator"),
    Column("orig_ip_bytes", _COUNT, "bytes", "IP bytes of the originator, headers included"),
    Column("resp_pkts", _COUNT, "packets", "packets of the responder"),
    Column("resp_ip_bytes", _COUNT, "bytes", "IP bytes of the responder, headers included"),
    Column("ip_proto", pa.uint8(), "", "IP protocol number"),
    Column("community_id", pa.string(), "", "Community ID, version 1"),
    *_sides(
        "retransmitted",
        "segments",
        "bring bytes again or too late: duplicates + spurious + late_fills + partial",
    ),
    *_sides("reordered", "segments", "fill a hole younger than a round trip"),
    *_sides("duplicates", "segments", "every byte was seen before, and not yet acknowledged"),
    *_sides("spurious", "segments", "every byte was seen before, and had been acknowledged"),
    *_sides(
        "late_fills", "segments", "fill a hole older than a round trip: the capture never saw the first copy"
    ),
    *_sides("partial", "segments", "some bytes seen before, some new"),
    *_sides("keep_alive", "segments", "keep-alives, as Wireshark has them"),
    *_sides("zero_window", "segments", "zero windows, as Wireshark has them"),
    *_sides("zero_window_probe", "segments", "zero window probes, as Wireshark has them"),
    *_sides("capture_duplicate", "packets", "the same packet captured twice; not a retransmission"),
    *_sides("duplicate_ack", "segments", "duplicate ACKs, as Wireshark has them"),
    *_sides(
        "recovery_episodes", "", "times that sending again began, until all sent by then was acknowledged"
    ),
    *_sides("repeated_bytes", "bytes", "payload seen twice"),
    *_sides("missed_bytes", "bytes", "payload acknowledged but never captured"),
    Column("recovery_seconds", _SECONDS, "seconds", "time spent in recovery episodes"),
    Column(
        "round_trip", _SECONDS, "seconds", "time from the SYN to the handshake's last ACK; null if not seen"
    ),
    Column("proper_close", pa.bool_(), "", "whether both sides sent a FIN that was acknowledged"),
    Column("midstream", pa.bool_(), "", "whether the first packet was not a SYN: the originator is a guess"),
    Column("holes_overflow", pa.bool_(), "", "whether there were more gaps at once than are kept"),
    Column("late_packets", pa.bool_(), "", "whether time went backwards"),
    Column("capture_loss", pa.bool_(), "", "whether the sensor lost packets while the connection lived"),
    Column("ending", pa.string(), "", "timeout, closed, reused, evicted or flushed; live: it has not ended"),
    Column("probe", pa.uint32(), "", "probe id, 0 = none"),
)
