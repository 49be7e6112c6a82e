"""Label rows of corpora for tests."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from probing.lab import labels

T0 = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
ROW: dict[str, Any] = {
    "src": "10.0.0.10", "sport": 40000, "dst": "10.0.0.1", "dport": 80, "proto": "tcp", "start": T0, "end": T0 + SECOND,
    "scenario": "http", "task": "web", "activity": "get", "role": "main",
    "background": 0, "client_impl": "curl", "server_impl": "nginx",
    "attack": 0, "attack_kind": "none", "content_kind": "text", "cache": "cold", "load": "none", "delay_ms": 0.0,
    "jitter_ms": 0.0, "distribution": "normal", "loss_pct": 0.0, "reorder_pct": 0.0, "duplicate_pct": 0.0,
    "ordered_jitter_ms": 0.0, "burst_loss_pct": 0.0, "burst_packets": 0.0, "outage_every_ms": 0.0, "outage_ms": 0.0,
    "delivery_trace": "", "queue_discipline": "drop-tail", "cross_kbit": 0.0, "congestion_control": "", "mtu": 1500,
    "segmentation_offload": "off", "corrupt_pct": 0.0,
    "rate_kbit": 0.0, "queue_packets": 1000, "impaired": "both", "termination": "fin", "users": 1,
    "group": "", "run": "00000-http", "sample": 0, "pair": "", "twin": "", "packets_up": 6, "packets_down": 4,
}  # fmt: skip


def table(*rows: dict[str, Any]) -> pa.Table:
    return labels.table([ROW | row for row in rows])
