"""A connection with everything that is known of its packets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.types import Floats
from probing.corpus.columns import Ints, ns


class Mark(NamedTuple):
    """The beginning of a phase."""

    ts: int  # ns since the epoch
    phase: str


@dataclass(frozen=True)
class TracedConnection:
    """A connection and its n packets, in capture order."""

    capture: str  # name of the capture
    uid: str
    ends: str  # ORIGINATOR > RESPONDER PROTOCOL
    state: str  # Zeek's conn_state
    frame: Ints  # (n,) number of the frame in the capture, from 1
    ts: Ints  # (n,) ns since the epoch
    up: NDArray[np.bool_]  # (n,) whether the originator sent it
    size: Ints  # (n,) bytes on the wire
    payload: Ints  # (n,) bytes after the transport header
    flags: Ints  # (n,) TCP flags
    segment: Sequence[str]  # (n,) class of the segment
    recovery: NDArray[np.bool_]  # (n,) whether it lies in a recovery episode
    scores: Mapping[str, Floats]  # of each model, (n,); NaN: the packet has none
    thresholds: Mapping[str, float]  # of each model; NaN: it has none
    labels: Mapping[str, str] = field(default_factory=dict)
    verdict: Sequence[str] = ()  # (n,) what the link did; empty: not known
    marks: Sequence[Mark] = ()  # phases, in order; empty: not known
    left_out: int = 0  # packets beyond the trace's bound

    @property
    def since(self) -> Floats:
        """(n,) seconds since the connection's first packet."""
        result: Floats = (self.ts - self.ts[0]) / 1e9
        return result

    @property
    def phase(self) -> list[str | None]:
        """(n,) phase in force at each packet."""
        at = np.searchsorted([mark.ts for mark in self.marks], self.ts, side="right")
        return [self.marks[k - 1].phase if k else None for k in at.tolist()]


def traced_connection(
    capture: str, record: Mapping[str, Any], packets: pa.Table, ends: str
) -> TracedConnection:
    """The part that follows from the packets. packets: of one connection, from engine/commands/trace.py."""

    def column(name: str) -> Any:
        return packets[name].to_numpy()

    up = np.array([side == "orig" for side in packets["direction"].to_pylist()], bool)
    names = [n.removeprefix("score.") for n in packets.column_names if n.startswith("score.")]
    whole = {name: column(name).astype(np.int64) for name in ("number", "size", "payload", "tcp_flags")}
    return TracedConnection(
        capture, record["uid"], ends, record["conn_state"], whole["number"] + 1, ns(packets["ts"]), up,
        whole["size"], whole["payload"], whole["tcp_flags"], packets["segment"].to_pylist(),
        np.array(packets["recovery"].to_pylist(), bool),
        {name: column(f"score.{name}").astype(np.float64) for name in names}, {},
    )  # fmt: skip
