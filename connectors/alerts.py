"""Alerts as ECS JSON lines (Elastic Common Schema 8), so that other tools can pivot on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ECS_VERSION = "8.11.0"


def to_ecs(row: Mapping[str, Any], observer: str) -> dict[str, Any]:
    """The ECS document of one scored connection, given its columns under Zeek's and our names."""
    start, duration = int(row["ts"]), row.get("duration") or 0.0
    orig_bytes, resp_bytes = row.get("orig_ip_bytes") or 0, row.get("resp_ip_bytes") or 0
    orig_packets, resp_packets = row.get("orig_pkts") or 0, row.get("resp_pkts") or 0
    labels = {k.removeprefix("label."): v for k, v in row.items() if k.startswith("label.") and v is not None}
    document: dict[str, Any] = {
        "@timestamp": _iso(int(row["peak_at"])),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "kind": "alert",
            "category": ["network", "intrusion_detection"],
            "type": ["connection", "info"],
            "module": "wiresonde",
            "dataset": "wiresonde.alert",
            "id": f"{row['uid']}-{row['model']}",
            "start": _iso(start),
            "end": _iso(start + round(duration * 1e9)),
            "duration": round(duration * 1e9),
        },
        "observer": {"name": observer, "type": "ids", "vendor": "Wiresonde"},
        "source": {
            "ip": row["id.orig_h"], "port": row["id.orig_p"], "packets": orig_packets, "bytes": orig_bytes,
        },
        "destination": {
            "ip": row["id.resp_h"], "port": row["id.resp_p"], "packets": resp_packets, "bytes": resp_bytes,
        },
        "network": {
            "transport": row["proto"],
            "iana_number": str(row["ip_proto"]),
            "type": "ipv6" if ":" in row["id.orig_h"] else "ipv4",
            "community_id": row["community_id"],
            "packets": orig_packets + resp_packets,
            "bytes": orig_bytes + resp_bytes,
        },
        "rule": {"name": f"{row['model']} score above threshold", "category": "anomaly"},
        "wiresonde": {
            name: row[name]
            for name in (
                "uid", "model", "version", "score", "threshold", "mean_score", "scored_pkts", "conn_state", "history",
                "probe", "final", "partition", "offset",
            )
        },
    }  # fmt: skip
    if labels:
        document["labels"] = labels
    return document


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class JsonLines:
    """A file of JSON objects, one a line; only whole lines are ever in it."""

    def __init__(self, path: Path) -> None:
        """Begins the file anew. Raises OSError."""
        self.path = path
        self._file = path.open("wb")
        self._good = 0

    def write(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Append objects. Raises OSError, leaving the lines written before."""
        data = b"".join(json.dumps(o, separators=(",", ":")).encode() + b"\n" for o in objects)
        try:
            self._file.write(data)
            self._file.flush()
            self._good += len(data)
        except OSError:
            os.truncate(self.path, self._good)
            raise

    def close(self) -> None:
        """Make all lines durable. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
