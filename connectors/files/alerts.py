"""Alerts as ECS JSON lines (Elastic Common Schema 8), so that other tools can pivot on them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from connectors.files.whole import write_whole

ECS_VERSION = "8.11.0"
TRANSPORTS = {  # IANA's keywords in lower case, as ECS wants them
    1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp",
    89: "ospfigp", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip
WITH_PORTS = (6, 17, 33, 132, 136)  # for ICMP, Zeek puts type and code in place of the ports


OURS = (
    "uid", "model", "version", "score", "threshold", "mean_score", "scored_pkts", "conn_state", "history", "probe",
    "final", "known_orig", "known_resp", "partition", "offset", "row",
)  # fmt: skip
COLUMNS = (
    *OURS,
    "ts",
    "duration",
    "peak_at",
    "proto",
    "ip_proto",
    "community_id",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "orig_pkts",
    "resp_pkts",
    "orig_ip_bytes",
    "resp_ip_bytes",
)  # source columns of a document, besides the columns label.NAME


def to_ecs(row: Mapping[str, Any], observer: str) -> dict[str, Any]:
    """The ECS document of one scored connection, from COLUMNS and its labels."""
    start, duration = int(row["ts"]), row.get("duration") or 0.0
    end = start + round(duration * 1e9)
    # a dot would turn a label into an object, and labels are texts
    labels = {k[6:].replace(".", "_"): v for k, v in row.items() if v is not None and k[:6] == "label."}
    document: dict[str, Any] = {
        "@timestamp": _iso(end if row["peak_at"] is None else int(row["peak_at"])),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "kind": "alert",
            "category": ["network", "intrusion_detection"],
            "type": ["connection", "info"],
            "module": "wiresonde",
            "dataset": "wiresonde.alert",
            "id": f"{row['uid']}-{row['model']}",
            "start": _iso(start),
            "end": _iso(end),
            "duration": round(duration * 1e9),
        },
        "observer": {"name": observer, "type": "ids", "vendor": "Wiresonde"},
        "source": _endpoint(row, "orig"),
        "destination": _endpoint(row, "resp"),
        "network": {
            **_network(row),
            "packets": row["orig_pkts"] + row["resp_pkts"],
            "bytes": row["orig_ip_bytes"] + row["resp_ip_bytes"],
        },
        "rule": {"name": f"{row['model']} score above threshold", "category": "anomaly"},
        "wiresonde": {name: row[name] for name in OURS},
    }  # fmt: skip
    if row["ip_proto"] is not None:
        document["related"] = {"ip": [row["id.orig_h"], row["id.resp_h"]]}
    if labels:
        document["labels"] = labels
    return document


def _network(row: Mapping[str, Any]) -> dict[str, Any]:
    """Protocols; those of frames that are not IP are the names of their EtherTypes."""
    number = row["ip_proto"]
    if number is None:
        return {"type": row["proto"]}
    shown = {
        "iana_number": str(number),
        "type": "ipv6" if ":" in row["id.orig_h"] else "ipv4",
        "community_id": row["community_id"],
    }
    if number in TRANSPORTS:
        shown["transport"] = TRANSPORTS[number]
    return shown


def _endpoint(row: Mapping[str, Any], side: str) -> dict[str, Any]:
    shown = {"packets": row[f"{side}_pkts"], "bytes": row[f"{side}_ip_bytes"]}
    if row["ip_proto"] is None:
        return {"mac": row[f"id.{side}_h"].upper().replace(":", "-"), **shown}
    shown["ip"] = row[f"id.{side}_h"]
    if row["ip_proto"] in WITH_PORTS:
        shown["port"] = row[f"id.{side}_p"]
    return shown


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{rest:09d}Z"


def whole_lines(path: Path) -> int:
    """Bytes of a file up to and including its last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
            end = begin
    return 0


class JsonLines:
    """A file of JSON objects, one a line, that never holds part of a line.

    An existing file's lines stay until the first write, or ``close``; with ``append`` for good, except for a last line
    that a crash cut off.
    """

    def __init__(self, path: Path, append: bool = False) -> None:
        """Raises OSError when the file cannot be written."""
        self.path = path
        self._new = not path.exists()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0)
        self._good = -1  # bytes of complete lines; -1: not started
        if append and self._file.seekable():
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._file.close()
                raise OSError(
                    error.errno, "another process is writing it; give each process its own directory"
                ) from error
            self._good = whole_lines(path)
            self._cut(self._good)

    def write(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Append objects. Raises OSError, leaving the lines written before."""
        data = memoryview(b"".join(orjson.dumps(o, option=orjson.OPT_APPEND_NEWLINE) for o in objects))
        if self._good < 0:
            self._begin(data)
            return
        good = self._good + len(data)
        try:
            while data:  # a disk that fills up accepts a part before it refuses
                data = data[self._file.write(data) :]
        except OSError:
            self._cut(self._good)
            raise
        self._good = good

    def _begin(self, data: bytes | memoryview) -> None:
        """Replace the old contents by the first lines, all of them or none."""
        if not self._file.seekable():
            self._good = self._file.write(data)
            return
        write_whole(self.path, data)
        self._file.close()
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY), "wb", buffering=0)
        self._good = self._file.seek(0, os.SEEK_END)

    def _cut(self, size: int) -> None:
        if self._file.seekable():
            self._file.seek(size)
            self._file.truncate()

    def sync(self) -> None:
        """Make all lines durable. Raises OSError."""
        if self._file.seekable():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Make all lines durable. Raises OSError."""
        if self._good < 0:
            self._begin(b"")
        self.sync()
        self._file.close()

    def abort(self) -> None:
        """Keep the complete lines written so far; without one, leave the old contents."""
        self._file.close()
        if self._good < 0 and self._new:
            self.path.unlink(missing_ok=True)
