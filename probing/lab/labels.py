"""The labels of a connection: their names, units and values, and the rows of a run.

Three kinds of columns. *Keys* say which packets are meant. *Labels* are what was set, from bounded vocabularies:
connections with equal labels are one probe. *Measured* columns differ from connection to connection; they stay in the
file, for analyses, and are not sent along with scores.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from engine.labels.file import KIND
from probing.lab.load import Meter
from probing.lab.settings import DISTRIBUTIONS, TERMINATIONS, Link

Kind = Literal["key", "label", "measured"]
ROLES = ("main", "control", "data", "scan")


@dataclass(frozen=True)
class Label:
    """One column of a label file."""

    name: str
    kind: Kind
    type: pa.DataType
    unit: str
    about: str
    values: tuple[str, ...] = ()  # all there are; none: not a word, or the names of scenario files


_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()
_TIME = pa.timestamp("ns", tz="UTC")


def _two(name: str, about: str) -> tuple[Label, Label]:
    """A count for each direction."""
    return (
        Label(f"{name}_up", "measured", _INT, "packets", f"{about} from the originator"),
        Label(f"{name}_down", "measured", _INT, "packets", f"{about} to the originator"),
    )


COLUMNS: tuple[Label, ...] = (
    Label("src", "key", _TEXT, "address", "originator"),
    Label("sport", "key", pa.uint16(), "port", "its port; empty for ICMP"),
    Label("dst", "key", _TEXT, "address", "responder"),
    Label("dport", "key", pa.uint16(), "port", "its port; empty for ICMP"),
    Label("proto", "key", _TEXT, "", "protocol", ("tcp", "udp", "icmp")),
    Label("start", "key", _TIME, "UTC", "first packet, at whichever vantage it is seen first"),
    Label("end", "key", _TIME, "UTC", "last packet, at whichever vantage it is seen last"),
    Label("scenario", "label", _TEXT, "", "scenario file"),
    Label("task", "label", _TEXT, "", "what users want (factor a)"),
    Label("activity", "label", _TEXT, "", "what they do for it"),
    Label("role", "label", _TEXT, "", "which of an activity's connections this is", ROLES),
    Label("background", "label", pa.int8(), "0, 1", "whether other users did it meanwhile", ("0", "1")),
    Label("client_impl", "label", _TEXT, "", "client program (factor b)"),
    Label("server_impl", "label", _TEXT, "", "server program (factor b)"),
    Label("attack", "label", pa.int8(), "0, 1", "whether it is part of an attack", ("0", "1")),
    Label("attack_kind", "label", _TEXT, "", "kind of attack, none without"),
    Label("content_kind", "label", _TEXT, "", "what is transferred (factor c)", ("text", "binary")),
    Label("cache", "label", _TEXT, "", "whether the client was here before (factor d)", ("cold", "warm")),
    Label("load", "label", _TEXT, "", "load of the server that was set (factor e): none, quota-P, hogs-N"),
    Label("delay_ms", "label", _REAL, "ms", "delay of one direction (factor f)"),
    Label("jitter_ms", "label", _REAL, "ms", "standard deviation of the delay (uniform: half width)"),
    Label("distribution", "label", _TEXT, "", "law of the jitter", DISTRIBUTIONS),
    Label("loss_pct", "label", _REAL, "%", "packets that are dropped"),
    Label("reorder_pct", "label", _REAL, "%", "packets that do not wait for the delay"),
    Label("duplicate_pct", "label", _REAL, "%", "packets that are sent twice"),
    Label("corrupt_pct", "label", _REAL, "%", "packets with a bit turned over"),
    Label("keep_order", "label", pa.int8(), "0, 1", "whether jitter keeps packets in order", ("0", "1")),
    Label("rate_kbit", "label", _REAL, "kbit/s", "rate of the link, 0: no limit"),
    Label("queue_packets", "label", _INT, "packets", "queue in front of the rate"),
    Label("impaired", "label", _TEXT, "", "towards whom packets suffer", ("both", "server", "client")),
    Label("termination", "label", _TEXT, "", "how the connection ends", TERMINATIONS),
    Label("users", "label", _INT, "hosts", "that work at the same time"),
    Label("group", "label", _TEXT, "", "name of the setting in a corpus, for comparisons"),
    Label("run", "measured", _TEXT, "", "run it is part of"),
    Label("user", "measured", _INT, "", "which of the run's users, background included"),
    Label("sample", "measured", _INT, "", "how-manieth time they did their activity"),
    Label("pair", "measured", _TEXT, "", "equal in the twins of a sample; empty without"),
    Label("twin", "measured", _TEXT, "", "which of the twins: a, b …"),
    Label("content_bytes", "measured", _INT, "bytes", "content that the sample transfers; empty: none"),
    Label("succeeded", "measured", pa.bool_(), "", "whether the activity came to what it wanted; empty: unknown"),
    Label("problem", "measured", _TEXT, "", "why the sample could not be done to its end; empty: it was"),
    Label("phases", "measured", _TEXT, "JSON", "[[phase, ns since the epoch], …] of the sample"),
    Label("sample_start", "measured", _TIME, "UTC", "when the client began the sample"),
    Label("load_busy_pct", "measured", _REAL, "%", "of the machine's processors, meanwhile"),
    Label("load_waiting_pct", "measured", _REAL, "%", "of its running time that the server waited for a processor"),
    Label("handshake_ms", "measured", _REAL, "ms", "first SYN into the link to first SYN+ACK out of it; empty: none"),
    *_two("packets", "came into the link"),
    *_two("data", "came into the link with payload, SYN or FIN"),
    *_two("lost", "dropped by loss"),
    *_two("lost_data", "of those with payload, SYN or FIN, dropped by loss"),
    *_two("overflow", "dropped by a full queue"),
    *_two("overflow_data", "of those with payload, SYN or FIN, dropped by a full queue"),
    *_two("cut", "not carried after a sudden termination"),
    *_two("duplicated", "sent twice"),
    *_two("corrupted", "damaged"),
    *_two("reordered", "released behind a later one"),
    *_two("reordered_data", "of those with payload, SYN or FIN, released behind a later such one"),
)  # fmt: skip
LABELS = tuple(c.name for c in COLUMNS if c.kind == "label")
_PROTO = {1: "icmp", 6: "tcp", 17: "udp"}


def schema() -> pa.Schema:
    """Of a label file."""
    return pa.schema([pa.field(c.name, c.type, metadata={KIND: c.kind.encode()}) for c in COLUMNS])


def table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a label file has them, in order of their start."""
    ordered = sorted(rows, key=lambda row: (row["start"], row["run"]))
    return pa.table(
        {c.name: pa.array([row.get(c.name) for row in ordered], c.type) for c in COLUMNS}, schema=schema()
    )


def link_labels(link: Link) -> dict[str, Any]:
    """What was set on a link."""
    return link.model_dump() | {"keep_order": int(link.keep_order)}


def flow_row(flow: Any, epoch: int, meter: Meter) -> dict[str, Any]:
    """What the link knows of a connection. epoch: of the link's times over the monotonic clock, ns."""
    proto = int(flow["proto"])
    ports = proto in (6, 17)
    load = meter.between(int(flow["first"]) - epoch, int(flow["last"]) - epoch)
    row: dict[str, Any] = {
        "src": _text(flow["src"]), "dst": _text(flow["dst"]), "proto": _PROTO.get(proto, str(proto)),
        "sport": int(flow["sport"]) if ports else None, "dport": int(flow["dport"]) if ports else None,
        "start": int(flow["first"]), "end": int(flow["last"]),
        "load_busy_pct": round(load.busy, 2), "load_waiting_pct": round(load.waiting, 2),
    }  # fmt: skip
    if flow["syn"] and flow["answer"]:
        row["handshake_ms"] = (int(flow["answer"]) - int(flow["syn"])) / 1e6
    for name, field in (
        ("packets", "packets"), ("data", "data"), ("lost", "lost"), ("lost_data", "lost_data"),
        ("overflow", "overflow"), ("overflow_data", "overflow_data"), ("cut", "cuts"),
        ("duplicated", "duplicated"), ("corrupted", "corrupted"), ("reordered", "reordered"),
        ("reordered_data", "reordered_data"),
    ):  # fmt: skip
        row[f"{name}_up"], row[f"{name}_down"] = int(flow[field][0]), int(flow[field][1])
    return row


def termination(flow: Any, wanted: str) -> str:
    """How a connection ends: as was set, unless it never came to be or its protocol has no end."""
    if flow["proto"] != 6:
        return "none"
    return wanted if flow["answer"] else "sudden" if wanted == "sudden" else "refused"


def _text(address: int) -> str:
    return socket.inet_ntoa(int(address).to_bytes(4, "big"))
