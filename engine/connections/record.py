"""Connection rows -> columns: those of Zeek's conn.log under their names, then our own.

``ts, uid, id.*, proto, duration, orig_bytes … resp_ip_bytes`` mean what Zeek's documentation says. The columns
after ``community_id`` are our own; counts come once for each side (``orig_``, ``resp_``).
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.connections.columns import CONNECTION_COLUMNS, schema_of
from engine.connections.layout import (
    FLAG_DROPPED,
    FLAG_FLIPPED,
    FLAG_HISTORY_FULL,
    FLAG_HOLES_OVERFLOW,
    FLAG_LATE,
    FLAG_MIDSTREAM,
    Ending,
    State,
)
from engine.hashing import GOLDEN, splitmix
from engine.notation import V4_PREFIX, address_text, ethertype_name, seconds
from engine.types import ICMP, ICMP6, SCTP, TCP, UDP, Rows

CONNECTION_SCHEMA = schema_of(CONNECTION_COLUMNS)
PROTO_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp"}
SIDE_COUNTERS = {  # our name -> SIDE fields whose sum it is
    "retransmitted": ("duplicates", "spurious", "late_fills", "partial"),
    "reordered": ("reordered",),
    "duplicates": ("duplicates",),
    "spurious": ("spurious",),
    "late_fills": ("late_fills",),
    "partial": ("partial",),
    "keep_alive": ("keep_alive",),
    "zero_window": ("zero_window",),
    "zero_window_probe": ("zero_window_probe",),
    "capture_duplicate": ("capture_duplicate",),
    "duplicate_ack": ("duplicate_ack",),
    "out_of_window": ("out_of_window",),
    "recovery_episodes": ("episodes",),
    "repeated_bytes": ("again_bytes",),
    "missed_bytes": ("missed",),
}
_RSTOS0 = re.compile(r"\^?S[^HAFGIQ]*R")
_DIGITS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", np.uint8)


def uids(rows: Rows) -> list[str]:
    """Zeek-like ids: C and 16 characters, from the key and the start, so that a repeat of the run gives the same ids.

    Where a key and a start come again, or event time had gone back, that is mixed in, so that no id comes twice.
    """
    if not rows.size:
        return []
    words = [rows[f] for f in ("a_hi", "a_lo", "b_hi", "b_lo")]
    words.append(
        rows["start"].view(np.uint64) if rows["start"].flags.contiguous else rows["start"].astype("u8")
    )
    words.append(
        rows["a_port"].astype("u8") << np.uint64(24)
        | rows["b_port"].astype("u8") << np.uint64(8)
        | rows["proto"].astype("u8")
        | rows["ethertype"].astype("u8") << np.uint64(40)
    )
    again = rows["again"].astype(np.uint64)
    letters = np.empty((rows.size, 17), np.uint8)
    letters[:, 0] = ord("C")
    for half in range(2):
        h = np.full(rows.size, GOLDEN + np.uint64(half), np.uint64)
        for word in words:
            h = splitmix(h ^ word.astype(np.uint64)) + GOLDEN
        h = np.where(again == 0, h, splitmix(h ^ again) + GOLDEN)
        for k in range(8):
            letters[:, 1 + 8 * half + k] = _DIGITS[h % np.uint64(62)]
            h //= np.uint64(62)
    return [bytes(row).decode() for row in letters]


def community_ids(rows: Rows, seed: int = 0) -> list[str]:
    """Community ID, version 1 (github.com/corelight/community-id-spec)."""
    v4 = (rows["a_hi"] == 0) & (rows["b_hi"] == 0)
    v4 &= (rows["a_lo"] >> np.uint64(32) == V4_PREFIX) & (rows["b_lo"] >> np.uint64(32) == V4_PREFIX)
    a, b = (
        np.stack([rows[f"{side}_{part}"].astype(np.uint64) for part in ("hi", "lo", "port")], axis=1)
        for side in "ab"
    )
    icmp = (rows["proto"] == ICMP) | (rows["proto"] == ICMP6)
    one_way = np.zeros(len(rows), bool)
    for k in np.flatnonzero(icmp).tolist():
        one_way[k] = not _has_counterpart(int(rows["proto"][k]), int(rows["a_port"][k]))
    swap = ~one_way & _is_greater(a, b)
    a[swap], b[swap] = b[swap], a[swap].copy()
    with_ports = np.isin(rows["proto"], (TCP, UDP, ICMP, ICMP6, SCTP)).tolist()
    first, second = a.astype(">u8").tobytes(), b.astype(">u8").tobytes()
    prefix, tails = seed.to_bytes(2, "big"), {p: bytes((p, 0)) for p in set(rows["proto"].tolist())}
    out = []
    for k, (is_v4, proto, ports) in enumerate(zip(v4.tolist(), rows["proto"].tolist(), with_ports)):
        at, begin = 24 * k, 12 if is_v4 else 0
        data = prefix + first[at + begin : at + 16] + second[at + begin : at + 16] + tails[proto]
        if ports:
            data += first[at + 22 : at + 24] + second[at + 22 : at + 24]
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        out.append("1:" + binascii.b2a_base64(digest, newline=False).decode())
    return out


def _is_greater(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each row of a, (n, 3), comes after the same row of b."""
    greater = np.zeros(len(a), bool)
    for column in (2, 1, 0):
        greater = np.where(a[:, column] == b[:, column], greater, a[:, column] > b[:, column])
    return greater


def _has_counterpart(proto: int, kind: int) -> bool:
    two_way = (
        (8, 0, 13, 14, 15, 16, 10, 9, 17, 18) if proto == ICMP else (*range(128, 137), 139, 140, 144, 145)
    )
    return kind in two_way


def histories(rows: Rows) -> list[str]:
    """The history of each connection; a + at the end if letters were left out."""
    texts = []
    for n, flags, line in zip(rows["letters"].tolist(), rows["flags"].tolist(), rows["history"]):
        texts.append(bytes(line[:n]).decode("ascii") + ("+" if flags & FLAG_HISTORY_FULL else ""))
    return texts


def stream_bytes(me: Rows, you: Rows) -> NDArray[np.int64]:
    """Payload bytes of one side by its sequence numbers, captured or not (Zeek's orig_bytes)."""
    size = np.maximum(me["high"], me["acked"])
    size = np.maximum(size - 1, 0)
    size = np.maximum(size - (me["fins"] > 0), 0)
    aborted = (
        (me["prev_state"] == State.SYN_SENT) & (me["state"] == State.RESET) & (you["state"] == State.INACTIVE)
    )
    silent = me["state"] == State.INACTIVE  # Zeek does not count bytes known only from the other side's ACKs
    return np.where(silent | (aborted & (me["acked"] > 1)), 0, size)


def conn_states(
    tcp: NDArray[np.bool_],
    orig: Rows,
    resp: Rows,
    sizes: tuple[NDArray[np.int64], NDArray[np.int64]],
    history: list[str],
) -> list[str]:
    """Zeek's conn_state of each connection."""
    o, r = orig["state"], resp["state"]
    o_none = (o == State.INACTIVE) | (o == State.PARTIAL)
    r_none = (r == State.INACTIVE) | (r == State.PARTIAL)
    rejected = (o == State.SYN_SENT) | (o == State.SYN_ACK_SENT)
    rejected |= (o == State.RESET) & (sizes[0] == 0) & (sizes[1] == 0)
    stealth = np.array([bool(_RSTOS0.match(h)) for h in history], bool)
    both = (o == State.ESTABLISHED) & (r == State.ESTABLISHED)
    answered, asked = r != State.INACTIVE, o != State.INACTIVE
    rules: list[tuple[Any, Any]] = [
        (~tcp & asked & answered, "SF"),
        (~tcp & asked, "S0"),
        (~tcp & answered, "SHR"),
        (~tcp, "OTH"),
        ((r == State.RESET) & rejected, "REJ"),
        ((r == State.RESET) & o_none, "RSTRH"),
        (r == State.RESET, "RSTR"),
        ((o == State.RESET) & r_none & stealth, "RSTOS0"),
        ((o == State.RESET) & r_none, "OTH"),
        (o == State.RESET, "RSTO"),
        ((o == State.CLOSED) & (r == State.CLOSED), "SF"),
        ((o == State.CLOSED) & r_none, "SH"),
        (o == State.CLOSED, "S2"),
        ((r == State.CLOSED) & o_none, "SHR"),
        (r == State.CLOSED, "S3"),
        ((o == State.SYN_SENT) & (r == State.INACTIVE), "S0"),
        (both, "S1"),
    ]
    texts: list[str] = np.select([c for c, _ in rules], [t for _, t in rules], "OTH").tolist()
    return texts


def _oriented(rows: Rows, sides: Rows) -> tuple[Rows, Rows, dict[str, NDArray[Any]]]:
    """Sides and endpoint columns, originator first, then responder."""
    flipped = (rows["flags"] & FLAG_FLIPPED) != 0
    orig = np.where(flipped, sides[:, 1], sides[:, 0])
    resp = np.where(flipped, sides[:, 0], sides[:, 1])
    ends = {}
    for field in ("hi", "lo", "port", "mac"):
        a, b = rows[f"a_{field}"], rows[f"b_{field}"]
        ends[f"orig_{field}"], ends[f"resp_{field}"] = np.where(flipped, b, a), np.where(flipped, a, b)
    return orig, resp, ends


def _protocols(rows: Rows) -> list[str]:
    """Zeek's words for transport protocols; for frames that are not IP, the name of their EtherType."""
    names = [PROTO_NAMES.get(p, "unknown_transport") for p in rows["proto"].tolist()]
    for k in np.flatnonzero(rows["ethertype"]).tolist():
        names[k] = ethertype_name(int(rows["ethertype"][k]))
    return names


def connection_table(rows: Rows, sides: Rows) -> pa.Table:
    """The columns of some connections, one row each. rows: (n,) CONNECTION. sides: (n, 2) SIDE."""
    orig, resp, ends = _oriented(rows, sides)
    tcp = rows["proto"] == TCP
    history = histories(rows)
    sizes = stream_bytes(orig, resp), stream_bytes(resp, orig)
    icmp = (rows["proto"] == ICMP) | (rows["proto"] == ICMP6)
    states = conn_states(tcp, orig, resp, sizes, history)
    instant = rows["last"] == rows["start"]
    link = rows["ethertype"] != 0
    finished = (orig["fin"] > 0) & (resp["fin"] > 0)
    finished &= (orig["acked"] >= orig["fin"]) & (resp["acked"] >= resp["fin"])
    columns: dict[str, Any] = {
        "ts": pa.array(rows["start"]).cast(pa.timestamp("ns", tz="UTC")),
        "uid": pa.array(uids(rows), pa.string()),
        "id.orig_h": pa.array(address_text(ends["orig_hi"], ends["orig_lo"]), pa.string()),
        "id.orig_p": pa.array(ends["orig_port"], mask=link),
        "id.resp_h": pa.array(address_text(ends["resp_hi"], ends["resp_lo"]), pa.string()),
        "id.resp_p": pa.array(ends["resp_port"], mask=link),
        "proto": pa.array(_protocols(rows), pa.string()),
        "duration": pa.array(np.round((rows["last"] - rows["start"]) * 1e-9, 9), mask=instant),
        "orig_bytes": pa.array(np.where(tcp, sizes[0], orig["payload"].astype("i8")), mask=instant),
        "resp_bytes": pa.array(np.where(tcp, sizes[1], resp["payload"].astype("i8")), mask=instant),
        "conn_state": pa.array(
            ["OTH" if other else s for other, s in zip(icmp.tolist(), states)], pa.string()
        ),
        "missed_bytes": (orig["missed"] + resp["missed"]).astype("i8"),
        "history": pa.array([letters or None for letters in history], pa.string()),
        "orig_pkts": orig["packets"].astype("i8"),
        "orig_ip_bytes": orig["ip_bytes"].astype("i8"),
        "resp_pkts": resp["packets"].astype("i8"),
        "resp_ip_bytes": resp["ip_bytes"].astype("i8"),
        "ip_proto": pa.array(rows["proto"], mask=link),
        "community_id": pa.array(community_ids(rows), pa.string(), mask=link),
        "vlan": pa.array(rows["vlan"] & 0xFFFF, pa.uint16(), mask=rows["vlan"] == 0),
        "inner_vlan": pa.array(rows["vlan"] >> 16, pa.uint16(), mask=rows["vlan"] >> 16 == 0),
    }
    for name, fields in SIDE_COUNTERS.items():
        for prefix, side in (("orig", orig), ("resp", resp)):
            total = sum(side[f].astype("i8") for f in fields)
            columns[f"{prefix}_{name}"] = total
    flags = rows["flags"]
    columns |= {
        "recovery_seconds": (orig["recovery_ns"] + resp["recovery_ns"]) / 1e9,
        "round_trip": pa.array(rows["handshake"] / 1e9, mask=rows["handshake"] == 0),
        "proper_close": finished,
        "midstream": (flags & FLAG_MIDSTREAM) != 0,
        "one_sided": _one_sided(orig, resp) | _one_sided(resp, orig),
        "holes_overflow": (flags & FLAG_HOLES_OVERFLOW) != 0,
        "late_packets": (flags & FLAG_LATE) != 0,
        "capture_loss": (flags & FLAG_DROPPED) != 0,
        "ending": pa.array([Ending(e).name.lower() for e in rows["ending"].tolist()], pa.string()),
        "probe": rows["probe"],
    }
    return pa.table([columns[name] for name in CONNECTION_SCHEMA.names], schema=CONNECTION_SCHEMA)


def _one_sided(seen: Rows, missing: Rows) -> NDArray[np.bool_]:
    """Whether a side was not captured, and the other acknowledged it: its acknowledgements gave it a base."""
    inactive = int(State.INACTIVE)  # not by packets: anybody can forge some that count but are not believed
    one: NDArray[np.bool_] = (
        (seen["state"] != inactive) & (missing["state"] == inactive) & (missing["have_base"] != 0)
    )
    return one


def json_lines(table: pa.Table) -> Iterator[str]:
    """One JSON object for each row, as Zeek writes them: absent values left out, ts in seconds."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names if name != "ts"}
    stamps = table.column("ts").cast(pa.int64()).to_pylist()
    for i, ns in enumerate(stamps):
        fields = {name: column[i] for name, column in columns.items() if column[i] is not None}
        yield f'{{"ts": {seconds(ns)}, ' + json.dumps(fields)[1:]
