"""The labels of a connection: their names, units and values, and the rows of a run.

Three kinds of columns. *Keys* name the packets that a row is about. *Labels* were set, from bounded vocabularies:
connections with equal labels are one probe. *Measured* columns differ from connection to connection; they stay in the
file, for analyses, and are not sent along with scores.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from engine.labels.table import KIND
from probing.lab.link.tables import ARP, EVERYBODY
from probing.lab.load import Meter
from probing.lab.settings import DISTRIBUTIONS, TERMINATIONS, Link

Kind = Literal["key", "label", "measured"]
ROLES = ("main", "control", "data", "scan", "push", "pull", "idle")


@dataclass(frozen=True)
class Label:
    """One column of a label file."""

    name: str
    kind: Kind
    type: pa.DataType
    unit: str
    about: str
    values: tuple[str, ...] = ()  # all possible words; empty: no word, or a name from the scenario files


_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()
_TIME = pa.timestamp("ns", tz="UTC")


def _two(name: str, about: str, unit: str = "packets", kind: pa.DataType = _INT) -> tuple[Label, Label]:
    """Columns of a count, or of something else, one for each direction."""
    return (
        Label(f"{name}_up", "measured", kind, unit, f"{about} from the originator"),
        Label(f"{name}_down", "measured", kind, unit, f"{about} to the originator"),
    )


COLUMNS: tuple[Label, ...] = (
    Label("src", "key", _TEXT, "address", "address of the originator; ARP: its MAC"),
    Label("sport", "key", pa.uint16(), "port", "port of the originator; empty for ICMP and ARP"),
    Label("dst", "key", _TEXT, "address", "address of the responder; ARP: its MAC, or ff:ff:ff:ff:ff:ff for all"),
    Label("dport", "key", pa.uint16(), "port", "port of the responder; empty for ICMP and ARP"),
    Label("proto", "key", _TEXT, "", "protocol", ("tcp", "udp", "icmp", "arp")),
    Label("start", "key", _TIME, "UTC", "time of the first packet, at whichever vantage sees it first"),
    Label("end", "key", _TIME, "UTC", "time of the last packet, at whichever vantage sees it last"),
    Label("scenario", "label", _TEXT, "", "name of the scenario file"),
    Label("task", "label", _TEXT, "", "purpose of the users (factor a)"),
    Label("activity", "label", _TEXT, "", "activity of the users for this purpose"),
    Label("role", "label", _TEXT, "", "role of the connection in its activity", ROLES),
    Label("background", "label", pa.int8(), "0, 1", "1 if it belongs to the users in the background", ("0", "1")),
    Label("client_impl", "label", _TEXT, "", "client program (factor b)"),
    Label("server_impl", "label", _TEXT, "", "server program (factor b)"),
    Label("attack", "label", pa.int8(), "0, 1", "1 if it is part of an attack", ("0", "1")),
    Label("attack_kind", "label", _TEXT, "", "kind of attack; none where there is no attack"),
    Label("content_kind", "label", _TEXT, "", "kind of content that is transferred (factor c)", ("text", "binary")),
    Label("cache", "label", _TEXT, "", "warm if the client has been here before (factor d)", ("cold", "warm")),
    Label("load", "label", _TEXT, "", "load set on the server (factor e): none, quota-P, hogs-N"),
    Label("delay_ms", "label", _REAL, "ms", "delay of one direction (factor f)"),
    Label("jitter_ms", "label", _REAL, "ms", "standard deviation of the delay (uniform: half width); late packets are "
                                             "overtaken"),
    Label("ordered_jitter_ms", "label", _REAL, "ms", "the same; late packets hold back their successors"),
    Label("distribution", "label", _TEXT, "", "law of the jitter", DISTRIBUTIONS),
    Label("loss_pct", "label", _REAL, "%", "share of packets that are dropped, each by itself"),
    Label("burst_loss_pct", "label", _REAL, "%", "share of packets that are dropped in bursts"),
    Label("burst_packets", "label", _REAL, "packets", "mean length of a burst of losses; 0: there are none"),
    Label("outage_every_ms", "label", _REAL, "ms", "mean time from an outage to the next; 0: there are none"),
    Label("outage_ms", "label", _REAL, "ms", "mean duration of an outage"),
    Label("reorder_pct", "label", _REAL, "%", "share of packets that do not wait for the delay"),
    Label("duplicate_pct", "label", _REAL, "%", "share of packets that are sent twice"),
    Label("corrupt_pct", "label", _REAL, "%", "share of packets in which one bit is flipped"),
    Label("rate_kbit", "label", _REAL, "kbit/s", "rate of the link; 0: no limit"),
    Label("delivery_trace", "label", _TEXT, "", "name of the delivery trace in place of a rate; empty: none"),
    Label("queue_packets", "label", _INT, "packets", "length of the queue in front of the rate or the trace"),
    Label("queue_discipline", "label", _TEXT, "", "way in which the queue drops", ("drop-tail", "codel")),
    Label("cross_kbit", "label", _REAL, "kbit/s", "mean rate of a competitor's frames in the queue; 0: none"),
    Label("impaired", "label", _TEXT, "", "side towards which packets are impaired", ("both", "server", "client")),
    Label("congestion_control", "label", _TEXT, "", "congestion control that was set; empty: the kernel's own"),
    Label("mtu", "label", _INT, "bytes", "size of the largest packet, Ethernet's header not counted"),
    Label("segmentation_offload", "label", _TEXT, "", "on: the hosts hand over super-frames", ("off", "on")),
    Label("termination", "label", _TEXT, "", "way in which the connection ends", TERMINATIONS),
    Label("users", "label", _INT, "hosts", "number of users that work at the same time"),
    Label("pause_s", "label", _REAL, "s", "silence before the half of the run that it is in; 0: none"),
    Label("group", "label", _TEXT, "", "name of the setting in a corpus, for comparisons"),
    Label("part", "measured", _TEXT, "", "part of an experiment that the run is for; empty: not said",
          ("", "train", "calibrate", "test")),
    Label("run", "measured", _TEXT, "", "run that it is part of"),
    Label("user", "measured", _INT, "", "index of the user in the run, background included, from 0"),
    Label("sample", "measured", _INT, "", "index of this repetition of the user's activity, from 0"),
    Label("pair", "measured", _TEXT, "", "name shared by twins; empty: no twins"),
    Label("twin", "measured", _TEXT, "", "letter of the twin: a, b …"),
    Label("content_bytes", "measured", _INT, "bytes", "size of the sample's content; empty: no content"),
    Label("succeeded", "measured", pa.bool_(), "", "true if the activity reached its goal; empty: unknown"),
    Label("carries_attack", "measured", pa.bool_(), "", "true if it holds a part of the attack itself"),
    Label("attempts", "measured", _INT, "", "logins tried and injections sent in this connection; empty: not counted"),
    Label("mirrored", "measured", pa.bool_(), "", "true if it holds harmless requests as long as injections"),
    Label("problem", "measured", _TEXT, "", "reason why the sample failed; empty: it did not"),
    Label("phases", "measured", _TEXT, "JSON", "phases of the sample: [[phase, ns since the epoch], …]"),
    Label("sample_start", "measured", _TIME, "UTC", "time at which the sample began"),
    Label("load_busy_pct", "measured", _REAL, "%", "share of the machine's processors in use meanwhile"),
    Label("load_waiting_pct", "measured", _REAL, "%", "share of its running time that the server waited"),
    Label("handshake_ms", "measured", _REAL, "ms", "first SYN into the link to first SYN+ACK out of it; empty: none"),
    *_two("packets", "packets that entered the link"),
    *_two("data", "packets with payload, SYN or FIN that entered the link"),
    *_two("largest_bytes", "size of the largest frame", "bytes"),
    *_two("super_frames", "frames larger than mtu allows on a wire"),
    *_two("lost", "packets dropped by independent loss"),
    *_two("lost_data", "packets with payload, SYN or FIN dropped by independent loss"),
    *_two("burst_lost", "packets dropped in bursts"),
    *_two("burst_lost_data", "packets with payload, SYN or FIN dropped in bursts"),
    *_two("bursts", "bursts of losses", "bursts"),
    *_two("outage_lost", "packets dropped by an outage"),
    *_two("outage_lost_data", "packets with payload, SYN or FIN dropped by an outage"),
    *_two("overflow", "packets dropped by a full queue"),
    *_two("overflow_data", "packets with payload, SYN or FIN dropped by a full queue"),
    *_two("codel_lost", "packets dropped by CoDel"),
    *_two("codel_lost_data", "packets with payload, SYN or FIN dropped by CoDel"),
    *_two("cut", "packets not carried after a sudden termination"),
    *_two("duplicated", "packets sent twice"),
    *_two("corrupted", "packets damaged"),
    *_two("reordered", "packets released after a later one"),
    *_two("reordered_data", "packets with payload, SYN or FIN released after a later such packet"),
    *_two("delay_mean_ms", "mean time in the link of the packets delivered", "ms", _REAL),
    *_two("delay_std_ms", "standard deviation of this time", "ms", _REAL),
    *_two("queueing_mean_ms", "mean time in the queue of the packets let through; empty: none", "ms", _REAL),
    *_two("congestion_control", "congestion control of TCP, read back, for packets", "", _TEXT),
)  # fmt: skip
LABELS = tuple(c.name for c in COLUMNS if c.kind == "label")
# columns of counts by direction, and the fields of a flow that hold them
_COUNTS = {
    "packets": "packets", "data": "data", "largest_bytes": "largest", "super_frames": "super",
    "lost": "lost", "lost_data": "lost_data", "burst_lost": "burst", "burst_lost_data": "burst_data",
    "bursts": "bursts", "outage_lost": "outage", "outage_lost_data": "outage_data",
    "overflow": "overflow", "overflow_data": "overflow_data",
    "codel_lost": "codel", "codel_lost_data": "codel_data", "cut": "cuts", "duplicated": "duplicated",
    "corrupted": "corrupted", "reordered": "reordered", "reordered_data": "reordered_data",
}  # fmt: skip
_PROTO = {ARP: "arp", 1: "icmp", 6: "tcp", 17: "udp"}


def schema() -> pa.Schema:
    """The schema of a label file."""
    return pa.schema([pa.field(c.name, c.type, metadata={KIND: c.kind.encode()}) for c in COLUMNS])


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table in the schema of a label file, in order of their start."""
    ordered = sorted(rows, key=lambda row: (row["start"], row["run"]))
    return pa.table(
        {c.name: pa.array([row.get(c.name) for row in ordered], c.type) for c in COLUMNS}, schema=schema()
    )


def link_labels(link: Link) -> dict[str, Any]:
    """The settings of a link, as labels."""
    return link.model_dump() | {"delivery_trace": Path(link.delivery_trace).stem}


def flow_row(flow: Any, macs: Sequence[int], epoch: int, meter: Meter) -> dict[str, Any]:
    """The part of a row that the link knows.

    macs: MACs of the link's ports, by which ARP goes. epoch: ns from the monotonic clock to the link's times.
    """
    proto = int(flow["proto"])
    ports = proto in (6, 17)
    src, dst = int(flow["src"]), int(flow["dst"])
    if proto == ARP:
        ends = _mac_text(int(macs[src])), _mac_text(int(macs[dst]) if dst != EVERYBODY else (1 << 48) - 1)
    else:
        ends = _text(src), _text(dst)
    load = meter.between(int(flow["first"]) - epoch, int(flow["last"]) - epoch)
    row: dict[str, Any] = {
        "src": ends[0], "dst": ends[1], "proto": _PROTO.get(proto, str(proto)),
        "sport": int(flow["sport"]) if ports else None, "dport": int(flow["dport"]) if ports else None,
        "start": int(flow["first"]), "end": int(flow["last"]),
        "load_busy_pct": round(load.busy, 2), "load_waiting_pct": round(load.waiting, 2),
    }  # fmt: skip
    if flow["syn"] and flow["answer"]:
        row["handshake_ms"] = (int(flow["answer"]) - int(flow["syn"])) / 1e6
    for d, way in enumerate(("up", "down")):
        row |= {f"{name}_{way}": int(flow[field][d]) for name, field in _COUNTS.items()}
        row |= {f"{name}_{way}": value for name, value in _times(flow, d).items()}
    return row


def _times(flow: Any, d: int) -> dict[str, float | None]:
    """The times that one direction of a flow spent in the link and in its queue, in ms."""
    delivered, queued = int(flow["delivered"][d]), int(flow["queued"][d])
    mean = float(flow["delay"][d]) / delivered if delivered else None
    std = (
        math.sqrt(max(0.0, float(flow["delay_squared"][d]) / delivered - mean * mean))
        if mean is not None
        else None
    )
    waited = float(flow["waited"][d]) / queued / 1e6 if queued else None
    return {"delay_mean_ms": mean, "delay_std_ms": std, "queueing_mean_ms": waited}


def termination(flow: Any, wanted: str) -> str:
    """The way in which a connection ends: the one that was set, unless it was never accepted or is not of TCP."""
    if flow["proto"] != 6:
        return "none"
    return wanted if flow["answer"] else "sudden" if wanted == "sudden" else "refused"


def _mac_text(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


def _text(address: int) -> str:
    return socket.inet_ntoa(int(address).to_bytes(4, "big"))
